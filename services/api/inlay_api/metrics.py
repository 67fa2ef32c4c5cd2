"""What Prometheus may know: counts and times by route and status. No label comes from a request's content.

Each process counts for itself; with several processes behind one port a scrape sees one of them, so scale by replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from inlay_core.application.ports import Delivery, NewUnitOfWork
from inlay_core.domain.errors import DomainError
from inlay_core.domain.ids import Clock
from inlay_core.domain.job import OPEN_STATES
from inlay_core.domain.order import Priority

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
"""Those that are counted under their names: a client may send any word."""
_BY: Final = "fhir"
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# What has ended is counted where it ended: a scrape does not go through all that ended over the years.
SHOWN_JOBS: Final = OPEN_STATES
SHOWN_ITEMS: Final = (Delivery.PENDING, Delivery.DEAD)


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, reader: NewUnitOfWork, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "inlay_http_requests", "Answered requests.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "inlay_http_request_seconds",
            "Time until the answer began.",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._orders = Counter(
            "inlay_orders", "Orders that were placed or changed, by the way they came.", ["by"], registry=self.registry
        )
        # From the start, as zero: a rise from nothing is no rise.
        self._orders.labels(_BY)
        self.streams = Gauge("inlay_http_streams", "Live progress streams that are open.", registry=self.registry)
        self.registry.register(_Queues(reader, clock))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the pattern of the path, never the path."""
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def ordered(self) -> None:
        """Count an order."""
        self._orders.labels(_BY).inc()

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


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
        jobs = GaugeMetricFamily("inlay_jobs", "Open jobs by state and priority.", labels=["state", "priority"])
        waits = GaugeMetricFamily("inlay_jobs_oldest_seconds", "Age of the oldest queued job.", labels=["priority"])
        outbox = GaugeMetricFamily(
            "inlay_outbox",
            "Items that wait, or were given up (dead).",
            labels=["to", "state"],
        )
        lags = GaugeMetricFamily("inlay_outbox_oldest_seconds", "Age of the oldest pending item.", labels=["to"])
        now = self._clock()
        try:
            with self._reader() as uow:
                counted = uow.jobs.count(SHOWN_JOBS)
                for (destination, delivery), count in uow.outbox.count(SHOWN_ITEMS).items():
                    outbox.add_metric([destination, str(delivery)], count)
                queued, pending = uow.jobs.queued_since(), uow.outbox.pending_since()
        except DomainError:
            return
        # Zero where nothing waits: a line that ends looks like a database that is away.
        for state, rank in product(sorted(OPEN_STATES), Priority):
            jobs.add_metric([str(state), str(rank)], counted.get((state, rank), 0))
        for rank in Priority:
            waits.add_metric([str(rank)], (now - queued[rank]).total_seconds() if rank in queued else 0.0)
        for destination, since in pending.items():
            lags.add_metric([destination], (now - since).total_seconds())
        yield from (jobs, waits, outbox, lags)
