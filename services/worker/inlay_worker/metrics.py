"""What Prometheus may know of a worker: how its jobs end and what they take, and its store of encoded studies.

Labels are kinds, states and stages; nothing else comes from a job.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from inlay_core.domain.job import Job
from inlay_worker.generation import KeptPrefixes, Model

# From an infill on a GPU to an order that waits for a night's images.
_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)


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


class Jobs:
    """Ends of jobs, and the seconds of their stages: queue (from the order to the first claim), images, model, all."""

    def __init__(self) -> None:
        self._ended = Counter(
            "inlay_jobs_ended", "Jobs that ended here, by kind and state.", ["kind", "state"], registry=None
        )
        self._seconds = Histogram(
            "inlay_job_seconds", "Seconds of a stage.", ["kind", "stage"], buckets=_BUCKETS, registry=None
        )

    def ended(self, job: Job, stages: Mapping[str, float]) -> None:
        """Count a job. One that goes back to the queue ends here as `queued`."""
        self._ended.labels(str(job.kind), str(job.state)).inc()
        for stage, seconds in stages.items():
            self._seconds.labels(str(job.kind), stage).observe(seconds)

    def register(self, registry: CollectorRegistry) -> None:
        """Show them there."""
        registry.register(self._ended)
        registry.register(self._seconds)


def registry_of(model: Model, jobs: Jobs | None = None) -> CollectorRegistry:
    """The metrics of a worker with this model."""
    registry = CollectorRegistry()
    registry.register(PrefixCache(model.prefixes))
    (jobs or Jobs()).register(registry)
    return registry
