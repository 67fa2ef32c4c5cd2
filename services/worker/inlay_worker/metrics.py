"""What Prometheus may know of a worker: how its jobs end and what they take, and its store of encoded studies.

Labels are kinds, states and stages; nothing else comes from a job.
"""

from collections import Counter as Counts
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inlay_core.domain.job import JobKind, JobState
from inlay_worker.generation import KeptPrefixes, Model
from inlay_worker.work import Ended

# From an infill on a GPU to an order that waits for a night's images.
_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
# A gap takes a handful; the most that a request may ask for is far beyond.
_STEPS: Final = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)

# Of passes of the model: by graphs and kernels, without them, failed, and left to the library for want of a bucket.
WAYS: Final = ("fast", "plain", "failed", "unfit")


class _Asked(Collector):
    """Figures that are read when somebody asks for them."""

    def describe(self) -> Iterable[Metric]:
        """Nothing is counted at registration."""
        return []


class PrefixCache(_Asked):
    """Hits, misses and bytes, read from the store when somebody asks."""

    def __init__(self, prefixes: KeptPrefixes) -> None:
        self._prefixes = prefixes

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The figures as they are now."""
        kept = self._prefixes
        yield CounterMetricFamily("inlay_prefix_cache_hits", "Studies that were found encoded.", kept.hits)
        yield CounterMetricFamily("inlay_prefix_cache_misses", "Studies that had to be encoded.", kept.misses)
        yield GaugeMetricFamily("inlay_prefix_cache_bytes", "Memory that encoded studies hold.", kept.nbytes)


class Memory(_Asked):
    """What the worker's devices hold, asked when somebody asks; nothing where it works on the CPU."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The figures as they are now."""
        family = GaugeMetricFamily(
            "inlay_gpu_memory_bytes",
            "Memory of a GPU: allocated is what the model and its work hold, reserved what the process has taken.",
            labels=["device", "kind"],
        )
        for one in self._model.memory():
            for kind in ("allocated", "reserved", "total"):
                family.add_metric([one.device, kind], getattr(one, kind))
        yield family


class ModelPasses(_Asked):
    """Which way the passes of the model went, read when somebody asks; nothing where it works on the CPU."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The figures as they are now."""
        family = CounterMetricFamily(
            "inlay_model_passes",
            "Passes by the way they went: fast is by graphs and kernels. After the first that failed they are plain.",
            labels=["way"],
        )
        ways: Counts[str] = Counts()
        for name, count in self._model.passes.items():
            ways[next(part for part in name.split(".") if part in WAYS)] += count
        for way, count in sorted(ways.items()):
            family.add_metric([way], count)
        yield family


class Jobs:
    """Ends of jobs, their denoising steps, locks and disputes, and the seconds of their stages.

    Stages: queue (from the order to its first claim), images, prefix, denoising, second-look, rereading (those four
    make `model`), store, all.
    """

    def __init__(self) -> None:
        self._ended = Counter(
            "inlay_jobs_ended", "Jobs that ended here, by kind and state.", ["kind", "state"], registry=None
        )
        # What an alert looks at is there from the start, as zero: a rise from nothing is no rise.
        for kind in JobKind:
            self._ended.labels(str(kind), str(JobState.FAILED))
        self._seconds = Histogram(
            "inlay_job_seconds", "Seconds of a stage.", ["kind", "stage"], buckets=_BUCKETS, registry=None
        )

        self._steps = Histogram(
            "inlay_job_steps", "Denoising steps of a draft or an infill.", ["kind"], buckets=_STEPS, registry=None
        )
        self._locks = Counter("inlay_locks_sent", "Locked spans that infills were sent with.", registry=None)
        self._kept = Counter("inlay_locks_kept", "Locked spans that came back byte for byte.", registry=None)
        self._disputes = Counter("inlay_disputes", "Locked spans that the model held to be wrong.", registry=None)

    def ended(self, ended: Ended) -> None:
        """Count a job. One that goes back to the queue ends here as `queued`."""
        job = ended.job
        self._ended.labels(str(job.kind), str(job.state)).inc()
        for stage, seconds in ended.stages.items():
            self._seconds.labels(str(job.kind), stage).observe(seconds)
        steps = (job.run_record or {}).get("steps_taken")
        if job.state is JobState.SUCCEEDED and isinstance(steps, int):
            self._steps.labels(str(job.kind)).observe(steps)
        self._locks.inc(ended.locks)
        self._kept.inc(ended.kept)
        self._disputes.inc(ended.disputes)

    def register(self, registry: CollectorRegistry) -> None:
        """Show them there."""
        for metric in (self._ended, self._seconds, self._steps, self._locks, self._kept, self._disputes):
            registry.register(metric)


def registry_of(model: Model, jobs: Jobs | None = None) -> CollectorRegistry:
    """The metrics of a worker with this model."""
    registry = CollectorRegistry()
    registry.register(PrefixCache(model.prefixes))
    registry.register(Memory(model))
    registry.register(ModelPasses(model))
    (jobs or Jobs()).register(registry)
    return registry
