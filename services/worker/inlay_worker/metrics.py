"""What Prometheus may know of a worker: figures of its store of encoded studies. No label comes from a job."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from inlay_worker.generation import KeptPrefixes, Model


class PrefixCache(Collector):
    """Hits, misses and bytes, read from the store when somebody asks."""

    def __init__(self, prefixes: KeptPrefixes) -> None:
        self._prefixes = prefixes

    def describe(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """Nothing is counted at registration."""
        return []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The figures as they are now."""
        kept = self._prefixes
        yield CounterMetricFamily("inlay_prefix_cache_hits", "Studies that were found encoded.", kept.hits)
        yield CounterMetricFamily("inlay_prefix_cache_misses", "Studies that had to be encoded.", kept.misses)
        yield GaugeMetricFamily("inlay_prefix_cache_bytes", "Memory that encoded studies hold.", kept.nbytes)


def registry_of(model: Model) -> CollectorRegistry:
    """The metrics of a worker with this model."""
    registry = CollectorRegistry()
    registry.register(PrefixCache(model.prefixes))
    return registry
