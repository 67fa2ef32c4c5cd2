"""Several jobs at once: one batch of the model, and every job with a life of its own."""

import threading
from dataclasses import replace
from urllib.request import urlopen

import pytest

from inlay_core.application import drafting
from inlay_core.domain.errors import Invalid
from inlay_core.domain.job import JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.health import told
from inlay_core.settings import Settings
from inlay_model import CanvasOverflow, DraftRequest, InfillRequest
from inlay_testkit.core import RADIOLOGIST
from inlay_testkit.engine import FakeModel
from inlay_testkit.hospital import Hospital, raising, ticking
from inlay_testkit.peers import free_port
from inlay_worker.generation import Generation
from inlay_worker.metrics import registry_of


def four_at_once(model: FakeModel | None = None) -> Hospital:
    """A ward whose worker takes up to four jobs together."""
    hospital = Hospital(model)
    hospital.worker.together = 4
    return hospital


def test_waiting_jobs_are_done_in_one_batch() -> None:
    """Six waiting drafts are two batches, of four and of two; every report is drafted."""
    hospital = four_at_once()
    reports = [hospital.order(str(number)) for number in range(6)]
    assert hospital.worker.work_off() == 6
    assert hospital.model.batches == [4, 2]
    assert all(hospital.ward.report(report.id).status is Status.DRAFTED for report in reports)


def test_nobody_waits_for_a_batch_to_be_full() -> None:
    """A single waiting job is done at once, by itself."""
    hospital = four_at_once()
    hospital.order()
    assert hospital.worker.work_off() == 1
    assert hospital.model.batches == [1]


def test_drafts_and_infills_share_a_batch() -> None:
    """An infill and a draft that wait together are one batch, each with its own result."""
    hospital = four_at_once()
    first = hospital.order("1")
    hospital.worker.work_off()
    hospital.infill(hospital.ward.report(first.id))
    second = hospital.order("2")
    assert hospital.worker.work_off() == 2
    assert hospital.model.batches == [1, 2]
    assert hospital.ward.report(first.id).sections[0].text == "The findings are normal. No effusion. "
    assert hospital.ward.report(second.id).status is Status.DRAFTED


def test_jobs_of_a_batch_want_the_same_adapter() -> None:
    """Four waiting jobs for two adapters are two batches, each with its adapter active; all are answered."""
    hospital = four_at_once()
    reports = [hospital.order(str(number)) for number in range(4)]
    odd = {hospital.jobs(report)[0].id for report in reports[1::2]}
    hospital.worker.generation = Generation(
        hospital.model, steps=2, adapter_of=lambda claimed: "/a/odd" if claimed.job.id in odd else None
    )
    assert hospital.worker.work_off() == 4
    assert hospital.model.batches == [2, 2]
    assert sorted(map(str, hospital.model.adapted)) == ["/a/odd", "None"]
    assert all(hospital.ward.report(report.id).status is Status.DRAFTED for report in reports)


def test_a_poison_job_does_not_take_its_neighbours_down() -> None:
    """Of three jobs in a batch one can never be done: it alone is parked, with its own reason."""
    hospital = four_at_once()
    reports = [hospital.order(str(number)) for number in range(3)]
    poisoned = {2}

    def poison(step: int) -> None:
        if step == 1 and len(hospital.model.asked) in poisoned:
            raise CanvasOverflow(300, 256)

    hospital.model.before_step = poison
    hospital.worker.work_off()
    jobs = [hospital.jobs(report)[0] for report in reports]
    assert sorted(job.state for job in jobs) == [JobState.FAILED, JobState.SUCCEEDED, JobState.SUCCEEDED]
    (failed,) = [job for job in jobs if job.state is JobState.FAILED]
    assert failed.reason is not None
    assert failed.reason.code == "canvas-overflow"


def test_a_job_that_is_refused_before_the_model_leaves_the_others_in_the_batch() -> None:
    """A draft without images waits, a broken image fails its own job; the model is asked about the others."""
    hospital = four_at_once()
    waiting = hospital.order("1", image=False)
    hospital.arrive("2", BitsAllocated=12)
    broken = hospital.order("2", image=False)
    fine = hospital.order("3")
    assert hospital.worker.work_off() == 3
    assert hospital.model.batches == [1]
    states = [hospital.jobs(report)[0].state for report in (waiting, broken, fine)]
    assert states == [JobState.WAITING_IMAGES, JobState.FAILED, JobState.SUCCEEDED]


def test_each_job_is_cancelled_by_itself() -> None:
    """Cancelling one job of a batch ends that job; its neighbours are drafted."""
    hospital = four_at_once(FakeModel(steps=20))
    reports = [hospital.order(str(number)) for number in range(3)]
    victim = hospital.jobs(reports[1])[0]

    def cancel(step: int) -> None:
        if step == 2 and len(hospital.model.asked) == 1:
            drafting.cancel_job(*hospital.ward.trio, RADIOLOGIST, victim.id)

    hospital.model.before_step = cancel
    hospital.worker.timer = ticking(0.1)
    hospital.worker.work_off()
    states = [hospital.jobs(report)[0].state for report in reports]
    assert states == [JobState.SUCCEEDED, JobState.CANCELLED, JobState.SUCCEEDED]


def test_each_job_has_its_own_fence() -> None:
    """A job of the batch that another worker took over meanwhile is refused; the others are written."""
    hospital = four_at_once(FakeModel(steps=3))
    reports = [hospital.order(str(number)) for number in range(2)]
    lost = hospital.jobs(reports[0])[0].id

    def take_over(step: int) -> None:
        if step == 2 and len(hospital.model.asked) == 1:
            jobs = hospital.memory.world.jobs
            jobs[lost] = replace(jobs[lost], fence=jobs[lost].fence + 1)

    hospital.model.before_step = take_over
    hospital.worker.work_off()
    assert hospital.ward.report(reports[0].id).status is not Status.DRAFTED
    assert hospital.ward.report(reports[1].id).status is Status.DRAFTED


def test_a_batch_that_fails_as_a_whole_fails_each_job() -> None:
    """Where the model itself breaks, every job of the batch is queued again with the reason; none is left running."""
    hospital = four_at_once()
    reports = [hospital.order(str(number)) for number in range(2)]

    def broken(requests: list[DraftRequest | InfillRequest], finished: object = None) -> list[object]:
        raise RuntimeError(len(requests), finished)

    hospital.model.batch = broken  # type: ignore[method-assign,assignment]
    hospital.worker.work_off()
    jobs = [hospital.jobs(report)[0] for report in reports]
    assert [job.state for job in jobs] == [JobState.QUEUED, JobState.QUEUED]
    assert {job.reason.code for job in jobs if job.reason} == {"worker-fault"}


def test_an_ending_process_gives_all_jobs_of_the_batch_back() -> None:
    """SIGTERM while a batch runs: all its jobs go back to the queue with their attempts."""
    hospital = four_at_once(FakeModel(steps=50))
    reports = [hospital.order(str(number)) for number in range(3)]
    hospital.model.before_step = lambda step: hospital.worker.stopping.set() if step == 2 else None
    hospital.worker.work_off()
    assert [(j.state, j.attempts) for r in reports for j in hospital.jobs(r)] == [(JobState.QUEUED, 0)] * 3


def test_leases_end_with_their_jobs() -> None:
    """After a batch, whatever became of its jobs, no lease is renewed any more and nobody is told of steps."""
    hospital = four_at_once()
    for number in range(3):
        hospital.order(str(number))
    hospital.model.before_step = raising(CanvasOverflow(300, 256))
    before = set(threading.enumerate())
    hospital.worker.work_off()
    assert set(threading.enumerate()) <= before


def test_a_slow_listener_does_not_hold_up_the_model() -> None:
    """While the progress port hangs, the model takes all its steps; the last canvas is told before the job ends."""
    hospital = four_at_once(FakeModel(steps=5))
    report = hospital.order()
    let_go = threading.Event()
    told: list[int] = []

    def publish(job_id: str, step: int, *_: object) -> None:
        assert let_go.wait(10)
        told.append(step)
        assert hospital.ward.report(report.id).status is not Status.DRAFTED
        assert job_id == hospital.jobs(report)[0].id

    hospital.worker.progress.publish = publish  # type: ignore[method-assign,assignment]
    hospital.model.before_step = lambda step: let_go.set() if step == 5 else None
    hospital.worker.work_off()
    assert told[-1] == 5
    assert hospital.ward.report(report.id).status is Status.DRAFTED


def test_jobs_together_is_at_least_one() -> None:
    """A worker that takes no job at a time would do nothing, silently: the setting is refused by name."""
    with pytest.raises(Invalid) as refused:
        Settings.from_env({"INLAY_JOBS_TOGETHER": "0"})
    assert refused.value.place == "INLAY_JOBS_TOGETHER"


def test_prefix_cache_is_a_metric() -> None:
    """Hits, misses and bytes are exposed under their names, as they are when Prometheus asks."""
    model = FakeModel()
    registry = registry_of(model)
    model.prefixes.hits, model.prefixes.misses, model.prefixes.nbytes = 7, 3, 1024
    assert registry.get_sample_value("inlay_prefix_cache_hits_total") == 7
    assert registry.get_sample_value("inlay_prefix_cache_misses_total") == 3
    assert registry.get_sample_value("inlay_prefix_cache_bytes") == 1024


def test_metrics_are_served_where_a_port_is_set() -> None:
    """With a port the page can be fetched."""
    port = free_port()
    settings = Settings(metrics_port=port)
    with told(settings, registry_of(FakeModel())), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
        assert b"inlay_prefix_cache_bytes 0.0" in page.read()
