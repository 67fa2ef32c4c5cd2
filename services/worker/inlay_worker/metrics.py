"""What Prometheus may know of a worker: figures of its store of encoded studies. No label comes from a job."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from inlay_core.domain.errors import Unavailable
from inlay_core.settings import Settings
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


def serve(settings: Settings, model: Model) -> None:
    """Answer Prometheus on INLAY_METRICS_PORT, from a thread that ends with the process; 0 is no port.

    Raises Unavailable where the port cannot be had.
    """
    if not settings.metrics_port:
        return
    try:
        start_http_server(settings.metrics_port, settings.http_host, registry_of(model))
    except OSError:
        raise Unavailable("port-taken", "The port for metrics cannot be had.", "INLAY_METRICS_PORT") from None
