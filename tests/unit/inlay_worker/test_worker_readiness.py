from typing import Any

import pytest

from inlay_core.application import switching
from inlay_core.application.ports import UnitOfWork
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.order import Priority
from inlay_core.domain.switch import Scope
from inlay_testkit.core import ADMIN
from inlay_testkit.engine import FakeModel
from inlay_testkit.hospital import Hospital
from inlay_worker.generation import Generation
from inlay_worker.metrics import Jobs, registry_of
from inlay_worker.readiness import consumes, look_unasked


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


def test_warming_up_is_one_draft_that_is_kept_nowhere() -> None:
    """The model is asked once, before any job; where it cannot draft, the worker does not start."""
    model = FakeModel()
    Generation(model, steps=4).warm_up()
    assert model.batches == [1]

    class Broken(FakeModel):
        def batch(self, requests: Any, finished: Any = None) -> Any:  # noqa: ARG002 - the engine's signature
            return [RuntimeError("CUDA error") for _ in requests]

    with pytest.raises(Unavailable) as refused:
        Generation(Broken(), steps=4).warm_up()
    assert refused.value.code == "cannot-draft"


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
