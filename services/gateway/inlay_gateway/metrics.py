"""What Prometheus may know of the listeners and the relay. No label comes from a message or a peer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from inlay_gateway.delivery import DELIVERED
from inlay_hl7.ack import Outcome

# From one commit to a database that makes everybody wait.
_BY: Final = "hl7"
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


# From a wake-up to a receiver that was away for days.
_DELIVERY_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0)


class ListenerMetrics:
    """HL7 messages and images that came in."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._messages = Counter(
            "inlay_hl7_messages",
            "Answered HL7 messages, by acknowledgement code (of the original mode) and what became of them.",
            ["ack", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "inlay_hl7_answer_seconds",
            "From the last byte of a message to its acknowledgement.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._orders = Counter(
            "inlay_orders", "Orders that were placed or changed, by the way they came.", ["by"], registry=self.registry
        )
        self._orders.labels(_BY)
        # Those that alerts look at are there from the start, as zeros: a rise from nothing is no rise.
        for outcome in Outcome:
            self._messages.labels(*_labels(outcome))

    def answered(self, outcome: Outcome, seconds: float, orders: int = 0) -> None:
        """Count a message, and the orders that it placed or changed."""
        self._messages.labels(*_labels(outcome)).inc()
        self._orders.labels(_BY).inc(orders)
        self._seconds.observe(seconds)

    def connections(self, number: Callable[[], int]) -> None:
        """Ask for the open MLLP connections when Prometheus does."""
        self.registry.register(_Connections(number))


def _labels(outcome: Outcome) -> tuple[str, str]:
    return outcome.original, outcome.name.lower().replace("_", "-")


class _Connections(Collector):
    def __init__(self, number: Callable[[], int]) -> None:
        self._number = number

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing is counted at registration."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """As many as are open now."""
        yield GaugeMetricFamily("inlay_mllp_connections", "Open MLLP connections.", self._number())


class Rounds(Collector):
    """Seconds that the present round of each duty has lasted. One that waits for a peer for ever is a rising line."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._began: dict[str, float | None] = {}

    @contextmanager
    def watched(self, duty: str) -> Iterator[None]:
        """The duty goes round, well or not."""
        self._began[duty] = self._timer()
        try:
            yield
        finally:
            self._began[duty] = None

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing is counted at registration."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The ages as they are now; 0 for a duty that rests."""
        family = GaugeMetricFamily(
            "inlay_duty_round_seconds", "How long the present round of a duty has lasted.", labels=["duty"]
        )
        now = self._timer()
        for duty, began in sorted(self._began.items()):
            family.add_metric([duty], 0.0 if began is None else now - began)
        yield family


class Deliveries:
    """Attempts to tell other systems, and what became of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "inlay_deliveries",
            "Attempts to deliver, by destination and what became of each: delivered, or why it was not.",
            ["to", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "inlay_delivery_seconds",
            "From a decision to its delivery, by destination.",
            ["to"],
            buckets=_DELIVERY_BUCKETS,
            registry=registry,
        )

    def attempted(self, destination: str, code: str, seconds: float) -> None:
        """Count an attempt that ended so long after the item was written."""
        self._attempts.labels(destination, code).inc()
        if code == DELIVERED:
            self._seconds.labels(destination).observe(seconds)


def registry_of(rounds: Rounds) -> CollectorRegistry:
    """The metrics of a relay."""
    registry = CollectorRegistry()
    registry.register(rounds)
    return registry
