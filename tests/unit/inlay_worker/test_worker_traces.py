from __future__ import annotations

import pytest

from inlay_core.application import drafting
from inlay_core.application.ports import Destination, Site
from inlay_core.application.tracing import Tracer, under
from inlay_core.domain.identity import system
from inlay_model import Stage
from inlay_testkit.core import WORKER
from inlay_testkit.engine import FakeModel
from inlay_testkit.hospital import Hospital
from inlay_testkit.tracing import Recorded, Recorder
from inlay_worker.metrics import Jobs, registry_of

SWEEPER = system("sweeper")
PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def recorder() -> Recorder:
    """Keeps spans."""
    return Recorder()


def traced(recorder: Recorder, model: FakeModel | None = None) -> Hospital:
    """A hospital whose worker traces, with one order that came in a trace."""
    hospital = Hospital(model, site=Site(destinations=(Destination.ORU,)))
    hospital.worker.tracer = Tracer(recorder)
    return hospital


def below(recorder: Recorder, span: Recorded) -> list[str]:
    """Names of the spans below that one, in the order of their ends."""
    return [each.name for each in recorder.spans if each.parent == span.traceparent]


def test_a_job_goes_on_with_the_trace_of_its_order(recorder: Recorder) -> None:
    """Its wait, from stored times; its images; the stages of the model with their steps; and what it caused."""
    hospital = traced(recorder)
    with under(PARENT):
        report = hospital.order("1")
    hospital.ward.clock.advance(40)
    hospital.worker.work_off()
    (wait,), (job,) = recorder.named("job queue"), recorder.named("job draft")
    assert (wait.parent, wait.ended - wait.began) == (PARENT, 40_000_000_000)
    assert (job.parent, job.kind, job.failure) == (PARENT, "consumer", None)
    assert below(recorder, job) == ["images fetch", "model prefix", "model denoising", "report store"]
    assert job.attributes == {
        "inlay.job_id": hospital.jobs(report)[0].id,
        "inlay.report_id": report.id,
        "inlay.job_kind": "draft",
        "inlay.priority": "routine",
        "inlay.attempts": 1,
        "inlay.state": "succeeded",
        "inlay.steps": 2,
    }
    (denoised,), (images,) = recorder.named("model denoising"), recorder.named("images fetch")
    assert (denoised.attributes["inlay.steps"], images.attributes["inlay.images"]) == (2, 1)
    (result,) = [item for item in hospital.memory.world.outbox.values() if item.destination == Destination.ORU]
    (stored,) = recorder.named("report store")
    assert result.traceparent == stored.traceparent


def test_jobs_that_are_done_together_are_each_in_their_own_trace(recorder: Recorder) -> None:
    """A shared pass mixes no traces: each job's stages are below its own span."""
    hospital = traced(recorder)
    hospital.worker.together = 2
    parents = [PARENT, PARENT.replace("a", "c")]
    for number, parent in enumerate(parents):
        with under(parent):
            hospital.order(str(number + 1))
    hospital.worker.work_off()
    assert hospital.model.batches == [2]
    jobs = recorder.named("job draft")
    assert sorted(str(job.parent) for job in jobs) == sorted(parents)
    for job in jobs:
        assert below(recorder, job) == ["images fetch", "model prefix", "model denoising", "report store"]


def test_a_job_that_comes_again_has_a_span_each_time(recorder: Recorder) -> None:
    """Missing images, then a failure, then a draft: each stay here is told with its end, in one trace."""
    model = FakeModel()
    hospital = traced(recorder, model)
    with under(PARENT):
        report = hospital.order("1", image=False)
    hospital.worker.work_off()
    hospital.arrive("1")
    hospital.ward.clock.advance(3600)
    drafting.images_arrived(*hospital.ward.trio, WORKER, hospital.jobs(report)[0].id)
    with hospital.memory() as uow:
        uow.jobs.woken([hospital.jobs(report)[0].id], hospital.ward.clock())
        uow.commit()

    def fail(_step: int) -> None:
        raise MemoryError

    model.before_step = fail
    hospital.ward.clock.advance(1)
    hospital.worker.work_off()
    model.before_step = lambda _: None
    hospital.ward.clock.advance(60)
    hospital.worker.work_off()
    stays = recorder.named("job draft")
    assert [(span.parent, span.attributes["inlay.state"], span.failure) for span in stays] == [
        (PARENT, "waiting-images", None),
        (PARENT, "queued", "out-of-memory"),
        (PARENT, "succeeded", None),
    ]
    waits = recorder.named("job queue")
    # From the order; then from the last wake-up, which was told of the images and not of the failure.
    assert [(span.ended - span.began) / 1e9 for span in waits] == [0, 1, 61]


def test_a_job_that_is_lost_ends_its_span(recorder: Recorder) -> None:
    """A worker whose fence has moved tells so, and writes nothing."""
    hospital: Hospital

    def stolen(_step: int) -> None:
        """Its lease runs out, and another worker takes it."""
        hospital.ward.clock.advance(3600)
        drafting.reclaim_expired(*hospital.ward.trio, SWEEPER)
        assert drafting.claim_next(*hospital.ward.trio, WORKER) is not None

    hospital = traced(recorder, FakeModel(steps=1, before_step=stolen))
    hospital.order("1")
    hospital.worker.work_off()
    assert recorder.named("job draft")[0].failure == "fence-moved"


def test_stages_of_the_model_are_metrics_too(recorder: Recorder) -> None:
    """Seconds of prefix, denoising and the rest by kind; a stage that comes twice counts once with its sum."""

    class Paged(FakeModel):
        def stages(self) -> list[Stage]:
            return [Stage("prefix", 1.0), Stage("denoising", 2.0, 5), Stage("prefix", 1.5), Stage("rereading", 0.25)]

    hospital, jobs = traced(recorder, Paged()), Jobs()
    hospital.worker.ended = jobs.ended
    registry = registry_of(hospital.model, jobs)
    hospital.order("1")
    hospital.worker.work_off()
    told = {
        stage: registry.get_sample_value("inlay_job_seconds_sum", {"kind": "draft", "stage": stage})
        for stage in ("prefix", "denoising", "rereading")
    }
    assert told == {"prefix": 2.5, "denoising": 2.0, "rereading": 0.25}
    assert registry.get_sample_value("inlay_job_seconds_count", {"kind": "draft", "stage": "prefix"}) == 1
