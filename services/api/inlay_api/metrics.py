"""What Prometheus may know: counts and times by route and status. No label comes from a request's content.

Each process counts for itself; with several processes behind one port a scrape sees one of them, so scale by replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from inlay_core.application.ports import Delivery, NewUnitOfWork
from inlay_core.domain.errors import DomainError
from inlay_core.domain.ids import Clock
from inlay_core.domain.job import OPEN_STATES, JobState
from inlay_core.domain.order import Priority

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# A scrape does not go through all that ended over the years; workers count the ends of jobs (`inlay_jobs_ended`).
SHOWN_JOBS: Final = (*OPEN_STATES, JobState.FAILED)
SHOWN_ITEMS: Final = (Delivery.PENDING, Delivery.DEAD)


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, reader: NewUnitOfWork, clock: Clock) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "inlay_http_requests", "Answered requests.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "inlay_http_request_seconds",
            "Time until the answer began.",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.streams = Gauge("inlay_http_streams", "Live progress streams that are open.", registry=self._registry)
        self._registry.register(_Queues(reader, clock))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the pattern of the path, never the path."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


class _Queues(Collector):
    """Jobs and outbox, counted in the database when somebody asks."""

    def __init__(self, reader: NewUnitOfWork, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing is counted at registration."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges; none while the database is away, which /readyz tells."""
        jobs = GaugeMetricFamily("inlay_jobs", "Open and failed jobs.", labels=["state", "priority"])
        waits = GaugeMetricFamily("inlay_jobs_oldest_seconds", "Age of the oldest queued job.", labels=["priority"])
        outbox = GaugeMetricFamily("inlay_outbox", "Outbox items that are pending or dead.", labels=["to", "state"])
        lags = GaugeMetricFamily("inlay_outbox_oldest_seconds", "Age of the oldest pending item.", labels=["to"])
        now = self._clock()
        try:
            with self._reader() as uow:
                for (state, priority), count in uow.jobs.count(SHOWN_JOBS).items():
                    jobs.add_metric([str(state), str(priority)], count)
                for (destination, delivery), count in uow.outbox.count(SHOWN_ITEMS).items():
                    outbox.add_metric([destination, str(delivery)], count)
                queued, pending = uow.jobs.queued_since(), uow.outbox.pending_since()
        except DomainError:
            return
        # Zero where nothing waits: a line that ends looks like a database that is away.
        for rank in Priority:
            waits.add_metric([str(rank)], (now - queued[rank]).total_seconds() if rank in queued else 0.0)
        for destination, since in pending.items():
            lags.add_metric([destination], (now - since).total_seconds())
        yield from (jobs, waits, outbox, lags)
