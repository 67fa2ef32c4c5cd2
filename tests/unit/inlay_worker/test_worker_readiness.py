import hashlib
from typing import Any

import pytest

from inlay_core.application import drafting, switching
from inlay_core.application.ports import Applied, GenerationPolicy, Site, UnitOfWork
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.infill import KeptText, LockDigest
from inlay_core.domain.job import JobKind
from inlay_core.domain.order import Priority
from inlay_core.domain.switch import Scope
from inlay_model import DeviceMemory, Dispute
from inlay_testkit.core import ADMIN, WORKER
from inlay_testkit.engine import FakeModel
from inlay_testkit.hospital import Hospital
from inlay_worker.generation import Generation
from inlay_worker.metrics import Jobs, registry_of
from inlay_worker.readiness import consumes, look_unasked, may_generate
from inlay_worker.work import locks_of


def test_a_worker_that_hears_no_wake_up_is_not_ready() -> None:
    """While jobs wait, an idle worker that did not look for three rounds of the sweeper says so, until it looks."""
    hospital = Hospital()
    moment = [0.0]
    hospital.worker.timer = lambda: moment[0]
    hospital.worker.looked = 0.0
    ready = consumes(hospital.worker, 30.0)
    moment[0] = 1000.0
    assert ready() is None, "nothing waits"
    hospital.order("1", priority=Priority.STAT)
    hospital.ward.clock.advance(1)
    assert "hears no wake-up" in (ready() or "")
    hospital.worker.busy = True
    assert ready() is None, "it is at work, and will look when it has ended that"
    hospital.worker.busy = False
    hospital.worker.work_off()
    hospital.order("2")
    hospital.ward.clock.advance(1)
    assert ready() is None, "it looked just now"


def test_a_worker_that_stays_deaf_looks_and_connects_anew() -> None:
    """A job that has just come is left to its wake-up; at the second look it is done, and the connection given up."""
    hospital = Hospital()
    hospital.worker.timer, hospital.worker.looked = (lambda: 1000.0), 0.0
    look = look_unasked(hospital.worker, 30.0, hospital.worker.work_off)
    hospital.order("1")
    hospital.ward.clock.advance(1)
    look()
    assert hospital.model.batches == []
    with pytest.raises(ConnectionError):
        look()
    assert hospital.model.batches == [1]
    look()
    assert hospital.model.batches == [1], "nothing waits any more"


def test_what_is_switched_off_waits_for_good_reason() -> None:
    """A worker that may not do what waits is ready all the same: nobody should restart it."""
    hospital = Hospital()
    hospital.worker.timer, hospital.worker.looked = (lambda: 1000.0), 0.0
    hospital.order("1")
    hospital.ward.clock.advance(1)
    ready = consumes(hospital.worker, 30.0)
    assert ready() is not None
    switching.stop_generation(*hospital.ward.trio, ADMIN, Scope(modality="DX"))
    assert ready() is None


def test_a_worker_without_its_database_is_not_ready() -> None:
    """It could claim nothing."""
    hospital = Hospital()
    away = Unavailable("database-away", "The database does not answer.")

    def no_reader() -> UnitOfWork:
        raise away

    hospital.worker.reader = no_reader
    assert "database is away" in (consumes(hospital.worker, 30.0)() or "")


def test_warming_up_is_a_draft_and_an_infill_that_are_kept_nowhere() -> None:
    """The model is asked once for each, and for as many as it takes together; where it cannot, no worker starts."""
    model = FakeModel()
    Generation(model, steps=4).warm_up()
    assert model.batches == [1, 1]
    for kinds in ({JobKind.INFILL}, ()):
        Generation(model, steps=4).warm_up(kinds)
    assert model.batches == [1, 1, 1]
    Generation(model, steps=4).warm_up(together=3)
    assert model.batches[3:] == [1, 3, 1, 3]

    class Broken(FakeModel):
        def batch(self, requests: Any, finished: Any = None) -> Any:  # noqa: ARG002 - the engine's signature
            return [RuntimeError("CUDA error") for _ in requests]

    with pytest.raises(Unavailable) as refused:
        Generation(Broken(), steps=4).warm_up()
    assert refused.value.code == "cannot-draft"
    with pytest.raises(Unavailable, match="infill"):
        Generation(Broken(), steps=4).warm_up({JobKind.INFILL})


def test_ends_of_jobs_and_their_stages_are_metrics() -> None:
    """A job counts once by kind and state; its queue, its images and the model have their seconds."""
    hospital, jobs = Hospital(), Jobs()
    hospital.worker.ended = jobs.ended
    registry = registry_of(hospital.model, jobs)
    hospital.order("1")
    hospital.ward.clock.advance(40)
    hospital.worker.work_off()

    def sample(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"kind": "draft", **labels})

    assert sample("inlay_jobs_ended_total", state="succeeded") == 1
    assert sample("inlay_job_seconds_bucket", stage="queue", le="30.0") == 0
    assert sample("inlay_job_seconds_bucket", stage="queue", le="60.0") == 1
    assert [sample("inlay_job_seconds_count", stage=stage) for stage in ("images", "model", "all")] == [1, 1, 1]


def test_nothing_is_written_to_warm_up_that_is_stopped() -> None:
    """A switch over everything, or over this model's drafts or infills, keeps it from these; one of a site does not."""
    hospital = Hospital()
    trio = hospital.ward.trio
    both: set[JobKind] = set(JobKind)
    for scope, allowed in (
        (Scope(), set()),
        (Scope(use=JobKind.DRAFT), {JobKind.INFILL}),
        (Scope(model="fake"), set()),
        (Scope(model="another"), both),
        (Scope(use=JobKind.INFILL), {JobKind.DRAFT}),
        (Scope(site="NORTH"), both),
    ):
        switching.stop_generation(*trio, ADMIN, scope)
        assert may_generate(hospital.worker) == allowed, scope
        switching.resume_generation(*trio, ADMIN, scope)
    hospital.worker.site = Site(generation=GenerationPolicy(stopped=True))
    assert not may_generate(hospital.worker)


def test_a_database_that_cannot_be_asked_allows_no_warming_up() -> None:
    """Whether drafts are stopped is not known then."""
    hospital = Hospital()

    def no_reader() -> UnitOfWork:
        raise Unavailable("database-away", "The database does not answer.")

    hospital.worker.reader = no_reader
    assert not may_generate(hospital.worker)


def test_steps_locks_and_disputes_are_counted() -> None:
    """An infill's locks are counted as sent, and as kept by the digests of what stands in the report."""
    hospital, jobs = Hospital(), Jobs()
    hospital.worker.ended = jobs.ended
    registry = registry_of(hospital.model, jobs)
    report = hospital.order("1")
    hospital.worker.work_off()
    assert registry.get_sample_value("inlay_locks_sent_total") == 0
    hospital.infill(hospital.ward.report(report.id))
    hospital.model.disputes = (Dispute("findings", 0, 0, 3, 0.02, "small"),)
    hospital.worker.work_off()
    for name in ("inlay_locks_sent_total", "inlay_locks_kept_total", "inlay_disputes_total"):
        assert registry.get_sample_value(name) == 1, name
    assert [registry.get_sample_value("inlay_job_steps_sum", {"kind": kind}) for kind in ("draft", "infill")] == [2, 2]


def test_a_lock_that_came_back_changed_is_not_counted_as_kept() -> None:
    """What is counted are digests of the report against what was sent."""
    hospital = Hospital()
    report = hospital.order("1")
    hospital.worker.work_off()
    hospital.infill(hospital.ward.report(report.id))
    claimed = drafting.claim_next(*hospital.ward.trio, WORKER)
    assert claimed is not None
    named = (part for part in claimed.sections if not part.context)
    (text,) = (item.text for part in named for item in part.items if isinstance(item, KeptText))
    same, other = (hashlib.sha256(words.encode()).hexdigest() for words in (text, text + " "))
    for digest, kept in ((same, 1), (other, 0)):
        applied = Applied(claimed.job, None, (LockDigest("findings", 0, "f", digest),))
        assert locks_of(claimed, applied) == (1, kept)


def test_memory_of_gpus_is_told_by_device() -> None:
    """Allocated, reserved and total of each; nothing on the CPU."""
    model = FakeModel()
    registry = registry_of(model)
    assert registry.get_sample_value("inlay_gpu_memory_bytes", {"device": "cuda:0", "kind": "total"}) is None
    model.devices = (DeviceMemory("cuda:0", 1, 2, 3),)
    told = [
        registry.get_sample_value("inlay_gpu_memory_bytes", {"device": "cuda:0", "kind": kind})
        for kind in ("allocated", "reserved", "total")
    ]
    assert told == [1, 2, 3]


def test_passes_are_told_by_the_way_they_went() -> None:
    """Fast and plain ones of every kind together, and how many failed or were no bucket's; nothing on the CPU."""
    model = FakeModel()
    registry = registry_of(model)

    def told(way: str) -> float | None:
        return registry.get_sample_value("inlay_model_passes_total", {"way": way})

    assert told("fast") is None
    model.passes = {"step.fast": 3, "encode.fast": 1, "step.plain": 2, "failed.step.RuntimeError": 1, "unfit": 4}
    assert [told(way) for way in ("fast", "plain", "failed", "unfit")] == [4, 2, 1, 4]
