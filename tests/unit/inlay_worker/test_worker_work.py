"""What a worker does with jobs, on the fakes of database, images and model."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from inlay_core.application import drafting, switching
from inlay_core.application.ports import GenerationPolicy, ImageRef, Site
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.infill import FreeText, InfillRequest, InfillSection
from inlay_core.domain.job import JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.matching import PatientCheck
from inlay_core.domain.prior import PriorReport, PriorSection, PriorStatus
from inlay_model import Comparison, Dispute, PromptContext
from inlay_testkit.core import ADMIN, RADIOLOGIST, WORKER
from inlay_testkit.dicom import radiograph
from inlay_testkit.engine import FakeModel
from inlay_testkit.hospital import PATIENT, PIXELS, Hospital, raise_in_first_call, raising, ticking
from inlay_worker.generation import Generation
from inlay_worker.images import Studies, views_of
from inlay_worker.work import MOST_FAULTS_IN_A_ROW, WorkerSuspect

REASON = "planted reason: fell off her horse"


# ── drafts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_order_with_image_becomes_a_draft() -> None:
    """A claimed draft ends with the model's text in the report, its run record on the job, and nothing else."""
    hospital = Hospital()
    report = hospital.order()
    assert hospital.worker.work_off() == 1
    drafted = hospital.ward.report(report.id)
    assert drafted.status is Status.DRAFTED
    assert [(s.name, s.text) for s in drafted.sections] == [
        ("findings", "The findings are normal. "),
        ("impression", "The impression are normal. "),
    ]
    (job,) = hospital.jobs(report)
    assert job.state is JobState.SUCCEEDED
    assert job.run_record is not None
    assert job.run_record["model"] == "fake"
    assert job.run_record["notes"] == []


def test_study_time_of_the_image_is_kept_with_the_order() -> None:
    """What the image says of its study's time is known of the order from the draft on, and stands in the trail once."""
    hospital = Hospital()
    hospital.arrive(StudyDate="20260301", StudyTime="0930")
    report = hospital.order(image=False)
    assert hospital.worker.work_off() == 1
    with hospital.memory() as uow:
        order = uow.orders.get(report.order_id)
    assert order is not None
    assert order.studied_at == datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    hospital.infill(hospital.ward.report(report.id))
    assert hospital.worker.work_off() == 1
    assert hospital.ward.tags(report.id).count("worker:order:studied") == 1


def test_worker_goes_on_until_there_is_nothing_to_do() -> None:
    """One wake-up is enough for all queued jobs; the most urgent one comes first."""
    from inlay_core.domain.order import Priority

    hospital = Hospital()
    hospital.worker.stream = nullcontext
    routine = hospital.order("1")
    stat = hospital.order("2", priority=Priority.STAT)
    assert hospital.worker.work_off() == 2
    first, second = (hospital.jobs(report)[0] for report in (stat, routine))
    assert first.state is second.state is JobState.SUCCEEDED
    assert [job_id for job_id, step, *_ in hospital.canvases if step == 1] == [first.id, second.id]


def test_model_sees_the_frontal_picture_in_eight_bits() -> None:
    """What reaches the model is the decoded frontal image, once, as uint8."""
    hospital = Hospital()
    hospital.arrive(ViewPosition="LL")
    hospital.order()
    hospital.worker.work_off()
    (picture,) = hospital.model.asked[0]["images"]
    assert picture.dtype == np.uint8
    assert (picture == PIXELS).all()


def test_every_step_is_published_and_kept_with_the_result() -> None:
    """Each denoising step's canvas goes out under the job's id, and all of them can be read again afterwards."""
    hospital = Hospital(FakeModel(steps=3))
    # A listener that is told beside the work may miss canvases (test_worker_together): this one is told in its course.
    hospital.worker.stream = nullcontext
    report = hospital.order()
    hospital.worker.work_off()
    (job,) = hospital.jobs(report)
    assert hospital.canvases == [(job.id, step, 3, f"step {step}") for step in (1, 2, 3)]
    with hospital.ward.uow as uow:
        kept = [(one.job_id, one.step, one.steps, one.text) for one in uow.progress.kept(job.id)]
    assert kept == hospital.canvases


def test_who_watches_a_model_that_stops_early_is_told_which_canvas_was_the_last() -> None:
    """It is told once more, with as many steps as were taken; it is kept once. A job that fails has no last canvas."""
    hospital = Hospital(FakeModel(steps=2, foreseen=16))
    hospital.worker.stream = nullcontext
    report = hospital.order()
    hospital.worker.work_off()
    (job,) = hospital.jobs(report)
    assert [(step, steps) for _, step, steps, _ in hospital.canvases] == [(1, 16), (2, 16), (2, 2)]
    assert hospital.canvases[-1][3] == "step 2"
    with hospital.ward.uow as uow:
        assert [(one.step, one.steps) for one in uow.progress.kept(job.id)] == [(1, 16), (2, 16)]
    hospital.canvases.clear()

    def fail_in_the_second(step: int) -> None:
        if step == 2:
            raise ValueError

    hospital.model.before_step = fail_in_the_second
    hospital.order("2")
    hospital.worker.work_off()
    assert [(step, steps) for _, step, steps, _ in hospital.canvases] == [(1, 16)]


def test_a_watcher_that_cannot_be_told_the_last_canvas_costs_nothing() -> None:
    """The result is written all the same."""
    hospital = Hospital(FakeModel(steps=1, foreseen=16))
    report = hospital.order()

    def publish(_job: str, step: int, steps: int, *_: object) -> None:
        if step == steps:
            raise OSError

    hospital.worker.progress.publish = publish  # type: ignore[method-assign,assignment]
    hospital.worker.work_off()
    assert hospital.jobs(report)[0].state is JobState.SUCCEEDED


def test_seed_follows_from_the_job() -> None:
    """Two jobs have two seeds, and the same job has the same seed again after a crash."""
    hospital = Hospital()
    reports = [hospital.order("1"), hospital.order("2")]
    hospital.worker.work_off()
    seeds = [hospital.jobs(report)[0].run_record["seed"] for report in reports]  # type: ignore[index]
    assert seeds[0] != seeds[1]
    from inlay_worker.generation import settings_of

    assert settings_of(hospital.jobs(reports[0])[0], 16).seed == seeds[0]


# ── privacy ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_of_patient_or_order_reaches_the_model() -> None:
    """Neither names nor numbers, nor the order's free text, are in anything that the model is called with.

    A site that lets free text reach the model is no exception: the prompt has no place for an order's.
    """
    for allowed in (False, True):
        site = Site(generation=GenerationPolicy(imported_text_allowed=allowed))
        hospital = Hospital(site=site)
        report = hospital.order(reason=REASON)
        hospital.worker.work_off()
        hospital.infill(hospital.ward.report(report.id)) if not allowed else None
        hospital.worker.work_off()
        said = repr([{k: v for k, v in call.items() if k != "images"} for call in hospital.model.asked])
        for planted in ("Planted", "MRN", "Testperson", "Tina", "horse", "P1", "A1", "1.2.826"):
            assert planted not in said


@pytest.mark.parametrize("allowed", [False, True])
def test_a_draft_is_asked_with_the_earlier_examinations_that_the_site_allows(allowed: bool) -> None:
    """Day, description and impression; one made after this study, as its images say, is none to compare with."""
    hospital = Hospital(site=Site(generation=GenerationPolicy(imported_text_allowed=allowed)))
    hospital.arrive(StudyDate="20260301", StudyTime="0930")
    report = hospital.order(image=False)
    with hospital.memory() as uow:
        order = uow.orders.get(report.order_id)
    assert order is not None
    for year in (2025, 2027):
        at = datetime(year, 1, 2, 8, tzinfo=UTC)
        said = (PriorSection("19005-8", "Impression", f"Scar of {year}."),)
        prior = PriorReport(f"p{year}", order.patient, "RIS", f"N{year}", PriorStatus.FINAL, said)
        hospital.memory.world.priors[prior.id] = replace(prior, procedure_text="Chest", performed_at=at)
    assert hospital.worker.work_off() == 1
    told = (Comparison(date(2025, 1, 2), "Chest", "Scar of 2025."),) if allowed else ()
    assert hospital.model.asked[0]["context"] == PromptContext("plain", comparison=told)


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_missing_images_put_the_job_aside_without_an_attempt() -> None:
    """A draft without images waits, does not hold the worker, and has used up no attempt."""
    hospital = Hospital()
    waiting = hospital.order("1", image=False)
    ready = hospital.order("2")
    assert hospital.worker.work_off() == 2
    (job,) = hospital.jobs(waiting)
    assert (job.state, job.attempts) == (JobState.WAITING_IMAGES, 0)
    assert hospital.ward.report(waiting.id).status is Status.REGISTERED
    assert hospital.ward.report(ready.id).status is Status.DRAFTED


def test_job_goes_on_when_its_images_arrive() -> None:
    """Once images are here and the sweeper has queued the job, it is drafted."""
    hospital = Hospital()
    report = hospital.order(image=False)
    hospital.worker.work_off()
    hospital.arrive()
    drafting.images_arrived(*hospital.ward.trio, WORKER, hospital.jobs(report)[0].id)
    hospital.worker.work_off()
    assert hospital.ward.report(report.id).status is Status.DRAFTED


def test_source_that_is_away_does_not_use_up_attempts() -> None:
    """A PACS that does not answer is like images that have not come: the draft waits for it."""
    hospital = Hospital()
    report = hospital.order()

    def away(*_: Any) -> list[ImageRef]:
        raise Unavailable("pacs-away", "No answer.")

    hospital.images.find = away  # type: ignore[method-assign,assignment]
    hospital.worker.work_off()
    assert hospital.jobs(report)[0].state is JobState.WAITING_IMAGES


def test_broken_image_parks_the_job_with_its_place() -> None:
    """An image that cannot be shown fails the report at once, and the reason names the attribute, not its value."""
    hospital = Hospital()
    hospital.arrive(BitsAllocated=12)
    report = hospital.ward.order("1")
    hospital.worker.work_off()
    (job,) = hospital.jobs(report)
    assert job.state is JobState.FAILED
    assert job.reason is not None
    assert job.reason.code == "image-unsupported"
    assert hospital.ward.report(report.id).status is Status.FAILED


def test_study_is_decoded_once_for_draft_and_infill() -> None:
    """The picture of a study that was just drafted from is at hand for its infill."""
    hospital = Hospital()
    report = hospital.order()
    loads: list[ImageRef] = []
    load = hospital.images.load
    hospital.images.load = lambda ref: loads.append(ref) or load(ref)  # type: ignore[method-assign]
    hospital.worker.work_off()
    hospital.infill(hospital.ward.report(report.id))
    hospital.worker.work_off()
    assert len(hospital.model.asked) == 2
    assert len(loads) == 1


# ── the demonstration model ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("phantom", "lifted", "allowed"), [(0, 0, 0), (1, 0, 1), (0, 1, 1)])
def test_demonstration_model_is_refused_on_real_studies(phantom: int, lifted: int, allowed: int) -> None:
    """Rule 9: the demonstration model reads phantoms only, unless the setting named for that is on; it is not asked."""
    from inlay_testkit.dicom import PHANTOM_TAGS

    hospital = Hospital(FakeModel(demonstration=True))
    hospital.worker.generation = Generation(hospital.model, steps=16, demo_on_any_study=bool(lifted))
    tags = PHANTOM_TAGS | {"StudyInstanceUID": "1.2.826.0.1.1"} if phantom else {"StudyInstanceUID": "1.2.826.0.1.1"}
    hospital.images.put(radiograph(PIXELS, **tags))
    report = hospital.ward.order("1")
    hospital.worker.work_off()
    (job,) = hospital.jobs(report)
    assert len(hospital.model.asked) == allowed
    assert job.state is (JobState.SUCCEEDED if allowed else JobState.FAILED)
    if not allowed:
        assert job.reason is not None
        assert job.reason.code == "not-a-phantom"
        assert hospital.ward.report(report.id).status is Status.FAILED


def test_demonstration_model_does_not_infill_blindly() -> None:
    """An infill whose images have gone is refused too: nobody can say any more that the study was a phantom."""
    hospital = Hospital()
    report = hospital.order()
    hospital.worker.work_off()
    hospital.images.datasets.clear()
    job = hospital.infill(hospital.ward.report(report.id))
    model = FakeModel(demonstration=True)
    hospital.new_worker(model).work_off()
    ended = hospital.jobs(report)[-1]
    assert ended.id == job.id
    assert ended.reason is not None
    assert ended.reason.code == "not-a-phantom"
    assert model.asked == []


# ── infill ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_infill_keeps_locks_and_fills_gaps() -> None:
    """The locked sentence comes back as it was, the gap is filled, other sections are untouched but shown."""
    hospital = Hospital()
    report = hospital.order()
    hospital.worker.work_off()
    drafted = hospital.ward.report(report.id)
    hospital.infill(drafted, seed=5, steps=4)
    hospital.worker.work_off()
    after = hospital.ward.report(report.id)
    assert after.status is Status.IN_REVIEW
    assert [s.text for s in after.sections] == [
        "The findings are normal. No effusion. ",
        "The impression are normal. ",
    ]
    kept = after.sections[0].fragments[0]
    assert (kept.id, kept.locked) == (drafted.sections[0].fragments[0].id, True)
    asked = hospital.model.asked[1]
    assert [section.name for section in asked["sections"]] == ["findings", "impression"]
    assert (asked["settings"].seed, asked["settings"].steps) == (5, 4)
    gap = asked["sections"][0].items[1]
    assert (gap.max_tokens, gap.hint) == (20, "pleura")


def test_disputed_words_of_a_lock_become_warnings_of_its_fragment() -> None:
    """What the model disputes stands as a warning at the locked fragment, which keeps its text."""
    hospital = Hospital()
    report = hospital.order()
    hospital.worker.work_off()
    before = hospital.ward.report(report.id)
    hospital.model.disputes = (Dispute("findings", 0, 4, 12, 0.02, "lungs"),)
    hospital.infill(before)
    hospital.worker.work_off()
    fragment = hospital.ward.report(report.id).sections[0].fragments[0]
    assert fragment.text == before.sections[0].fragments[0].text
    (warning,) = fragment.warnings
    assert (warning.code, warning.start, warning.end) == ("disputed", 4, 12)
    assert "“findings”" in warning.message
    assert "2 %" in warning.message


def test_alternatives_of_each_gap_are_kept_with_the_job() -> None:
    """Three texts asked for: the job's result has them with their scores, the report only the first one."""
    hospital = Hospital()
    report = hospital.order()
    hospital.worker.work_off()
    hospital.infill(hospital.ward.report(report.id), alternatives=3)
    hospital.worker.work_off()
    job = hospital.jobs(report)[-1]
    texts = [
        {"text": "No effusion.", "score": 0.0},
        {"text": "No effusion.1", "score": -1.0},
        {"text": "No effusion.2", "score": -2.0},
    ]
    assert job.alternatives == ({"section": "findings", "item": 1, "texts": texts},)
    assert hospital.ward.report(report.id).sections[0].text == "The findings are normal. No effusion. "
    assert "alternatives" not in (job.run_record or {})


def test_a_warm_start_shows_the_model_what_stood_in_the_gaps() -> None:
    """The share reaches the model's settings, and each gap of free text says what it replaces; else neither does."""
    hospital = Hospital()
    report = hospital.order()
    hospital.worker.work_off()
    for share in (0.5, None):
        drafted = hospital.ward.report(report.id)
        free = InfillRequest((InfillSection("impression", (FreeText("Old words."),)),), warm_start=share)
        drafting.request_infill(
            *hospital.ward.trio, RADIOLOGIST, report.id, expected_version=drafted.version, request=free
        )
        hospital.worker.work_off()
        asked = hospital.model.asked[-1]
        (gap,) = next(section.items for section in asked["sections"] if section.name == "impression")
        assert (asked["settings"].warm_start, gap.replaces) == (share, "Old words." if share else None)


def test_infill_without_images_uses_the_text_alone() -> None:
    """A model for real studies fills gaps from the text when the images have gone; the run record has no image."""
    hospital = Hospital()
    report = hospital.order()
    hospital.worker.work_off()
    hospital.images.datasets.clear()
    hospital.infill(hospital.ward.report(report.id))
    hospital.worker.work_off()
    assert hospital.model.asked[1]["images"] is None
    assert hospital.jobs(report)[-1].state is JobState.SUCCEEDED


def test_a_site_may_forbid_infills_from_the_text_alone() -> None:
    """It is an intended use of its own: where it is off, an infill whose images have gone fails and says why."""
    hospital = Hospital()
    report = hospital.order()
    hospital.worker.work_off()
    hospital.worker.generation = Generation(hospital.model, steps=16, without_images=False)
    hospital.images.datasets.clear()
    hospital.infill(hospital.ward.report(report.id))
    hospital.worker.work_off()
    (_, job) = hospital.jobs(report)
    assert job.reason is not None
    assert (job.state, job.reason.code) == (JobState.FAILED, "images-missing")
    assert len(hospital.model.asked) == 1


def test_a_rewriting_shows_the_model_what_is_to_be_said_in_the_sites_style() -> None:
    """The request's flag reaches the prompt's context, with the style of the site; without it an infill names none."""
    hospital = Hospital()
    report = hospital.order()
    hospital.worker.work_off()
    hospital.infill(hospital.ward.report(report.id), rewrite=True)
    hospital.worker.work_off()
    hospital.infill(hospital.ward.report(report.id))
    hospital.worker.work_off()
    assert [asked.get("context") for asked in hospital.model.asked[1:]] == [PromptContext("plain", rewrite=True), None]


def test_a_model_that_cannot_rewrite_is_not_asked_to() -> None:
    """The job ends at once with a reason in words, the text stays, and records say what the model can."""
    hospital = Hospital()
    hospital.model.rewrites = hospital.model.takes_hints = False
    report = hospital.order()
    hospital.worker.work_off()
    drafted = hospital.ward.report(report.id)
    hospital.infill(drafted, rewrite=True)
    hospital.worker.work_off()
    draft, rewriting = hospital.jobs(report)
    assert draft.run_record is not None
    assert (draft.run_record["rewrites"], draft.run_record["takes_hints"]) == (False, False)
    assert rewriting.reason is not None
    assert (rewriting.state, rewriting.reason.code) == (JobState.FAILED, "cannot-rewrite")
    assert hospital.ward.report(report.id) == drafted
    assert len(hospital.model.asked) == 1


# ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cancelled_job_stops_between_two_steps_and_leaves_no_draft() -> None:
    """A cancellation is seen before the next step; no later step is taken, and the report has no text."""
    hospital = Hospital(FakeModel(steps=50))
    report = hospital.order()
    steps: list[int] = []

    def cancel_at_third(step: int) -> None:
        steps.append(step)
        if step == 3:
            drafting.cancel_job(*_trio(hospital), RADIOLOGIST, hospital.jobs(report)[0].id)

    hospital.model.before_step = cancel_at_third
    hospital.worker.timer = ticking(0.1)
    hospital.worker.work_off()
    assert steps == [1, 2, 3]
    (job,) = hospital.jobs(report)
    assert job.state is JobState.CANCELLED
    after = hospital.ward.report(report.id)
    assert after.status is Status.FAILED
    assert all(section.text == "" for section in after.sections)


def test_late_draft_never_overwrites_an_edit() -> None:
    """A report that a clinician wrote meanwhile keeps their words; the job ends as superseded."""
    from inlay_core.application import editing
    from inlay_core.domain.edits import FragmentEdit, SectionEdit

    hospital = Hospital(FakeModel(steps=50))
    report = hospital.order()

    def edit_at_second(step: int) -> None:
        if step == 2:
            now = hospital.ward.report(report.id)
            editing.put_fragments(
                *_trio(hospital),
                RADIOLOGIST,
                report.id,
                expected_version=now.version,
                edits=(SectionEdit("findings", (FragmentEdit(text="My own words. "),)),),
            )

    hospital.model.before_step = edit_at_second
    hospital.worker.timer = ticking(0.1)
    hospital.worker.work_off()
    (job,) = hospital.jobs(report)
    assert job.state is JobState.SUPERSEDED
    assert hospital.ward.report(report.id).sections[0].text == "My own words. "


def test_ending_process_gives_its_job_back() -> None:
    """SIGTERM during a job: it goes back to the queue with its attempt, and the worker takes no other."""
    hospital = Hospital(FakeModel(steps=50))
    report, other = hospital.order("1"), hospital.order("2")
    hospital.model.before_step = lambda step: hospital.worker.stopping.set() if step == 2 else None
    assert hospital.worker.work_off() == 1
    (job,) = hospital.jobs(report)
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    assert hospital.jobs(other)[0].state is JobState.QUEUED
    hospital.new_worker(FakeModel()).work_off()
    assert hospital.ward.report(report.id).status is Status.DRAFTED


def test_kill_switch_stops_everything_and_loses_nothing() -> None:
    """While generation is stopped no job is claimed; afterwards all of them are done."""
    hospital = Hospital()
    report = hospital.order()
    switching.stop_generation(*hospital.ward.trio, ADMIN)
    assert hospital.worker.work_off() == 0
    switching.resume_generation(*hospital.ward.trio, ADMIN)
    assert hospital.worker.work_off() == 1
    assert hospital.ward.report(report.id).status is Status.DRAFTED


def test_kill_switch_of_the_settings_stops_everything() -> None:
    """INLAY_KILL_SWITCH has the same effect for this worker."""
    hospital = Hospital(site=Site(generation=GenerationPolicy(stopped=True)))
    hospital.order()
    assert hospital.worker.work_off() == 0


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_failing_job_does_not_end_the_worker() -> None:
    """After a job whose generation raised, the next one is drafted; the failed one is queued with its reason."""
    hospital = Hospital()
    reports = [hospital.order("1"), hospital.order("2")]
    hospital.model.before_step = raise_in_first_call(RuntimeError("quotes Patricia"))
    assert hospital.worker.work_off() == 2
    good, bad = sorted((hospital.jobs(report)[0] for report in reports), key=lambda job: job.state is JobState.QUEUED)
    assert (good.state, bad.state) == (JobState.SUCCEEDED, JobState.QUEUED)
    assert bad.reason is not None
    assert bad.reason.code == "worker-fault"
    assert "Patricia" not in bad.reason.text


def test_job_is_parked_after_its_last_attempt() -> None:
    """A job that fails again and again ends with its reason, and its report is failed."""
    hospital = Hospital(site=Site(max_attempts=2))
    report = hospital.order()
    hospital.model.before_step = raising(RuntimeError())
    for _ in range(4):
        hospital.worker.work_off()
        hospital.worker._faults = 0
        hospital.ward.clock.advance(600)
    (job,) = hospital.jobs(report)
    assert (job.state, job.attempts) == (JobState.FAILED, 2)
    assert hospital.ward.report(report.id).status is Status.FAILED


def test_request_that_can_never_fit_is_parked_at_once() -> None:
    """Locks that fill more than a canvas are a named error after one attempt."""
    from inlay_model import CanvasOverflow

    hospital = Hospital()
    report = hospital.order()
    hospital.model.before_step = raising(CanvasOverflow(300, 256))
    hospital.worker.work_off()
    (job,) = hospital.jobs(report)
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert job.reason is not None
    assert job.reason.code == "canvas-overflow"


def test_suspect_process_ends() -> None:
    """Several unexpected failures in a row end the process: its device may be lost. The jobs are queued again."""
    hospital = Hospital()
    reports = [hospital.order(str(number)) for number in range(1, MOST_FAULTS_IN_A_ROW + 3)]
    hospital.model.before_step = raising(RuntimeError())
    with pytest.raises(WorkerSuspect):
        hospital.worker.work_off()
    assert len(hospital.model.asked) == MOST_FAULTS_IN_A_ROW
    assert all(hospital.jobs(report)[0].state is JobState.QUEUED for report in reports)


def test_expected_failures_are_no_sign_of_a_bad_process() -> None:
    """Any number of refused jobs leaves the worker working."""
    hospital = Hospital(FakeModel(demonstration=True))
    for number in range(1, MOST_FAULTS_IN_A_ROW + 3):
        hospital.order(str(number))
    assert hospital.worker.work_off() == MOST_FAULTS_IN_A_ROW + 2


def test_worker_that_lost_its_lease_writes_nothing() -> None:
    """A job taken over by another worker is drafted once, by the other; the first one's result is refused."""
    hospital = Hospital()
    report = hospital.order()
    other = hospital.new_worker(FakeModel())

    def fall_silent(step: int) -> None:
        if step == 2:
            hospital.ward.clock.advance(hospital.site.lease_seconds + 1)
            drafting.reclaim_expired(*_trio(hospital), WORKER, site=hospital.site)
            other.work_off()

    hospital.model.before_step = fall_silent
    hospital.worker.work_off()
    (job,) = hospital.jobs(report)
    assert (job.state, job.fence) == (JobState.SUCCEEDED, 2)
    assert hospital.ward.tags(report.id).count("worker:report:drafted") == 1


def test_database_that_is_away_leaves_the_worker_alive() -> None:
    """Claiming from a database that is away is no crash: the next wake-up asks again."""
    hospital = Hospital()

    class Away:
        def __enter__(self) -> Any:
            raise Unavailable("database-away", "No answer.")

        def __exit__(self, *_: object) -> None: ...

    hospital.worker.uow = Away  # type: ignore[assignment]
    assert hospital.worker.work_off() == 0


# ── aids ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _trio(hospital: Hospital) -> tuple[Any, Any, Any]:
    return hospital.memory(), hospital.ward.clock, hospital.ward.new_id


# ── views ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_further_views_come_after_the_frontal_one() -> None:
    """Where site and checkpoint allow two views, the lateral follows; a second frontal exposure says nothing new."""
    hospital = Hospital()
    hospital.worker.studies = Studies(hospital.images, views=2)
    hospital.arrive(ViewPosition="LL", SOPInstanceUID="1.2.7")
    hospital.arrive(ViewPosition="AP", SOPInstanceUID="1.2.8")
    hospital.arrive(ViewPosition="PA", SOPInstanceUID="1.2.9")
    report = hospital.order(image=False)
    hospital.worker.work_off()
    assert len(hospital.model.asked[0]["images"]) == 2
    (job,) = hospital.jobs(report)
    assert job.run_record is not None
    assert job.run_record["images"] == [
        {"sop_instance_uid": "1.2.9", "view": "frontal"},
        {"sop_instance_uid": "1.2.7", "view": "lateral"},
    ]


def test_every_view_has_to_show_the_patient() -> None:
    """A lateral of somebody else stops the draft as a frontal image would."""
    hospital = Hospital()
    hospital.worker.studies = Studies(hospital.images, views=2)
    hospital.arrive(ViewPosition="LL", PatientID="OTHER-1")
    report = hospital.order()
    hospital.worker.work_off()
    assert hospital.jobs(report)[0].state is JobState.FAILED


@pytest.mark.parametrize(
    ("views", "most", "chosen"),
    [
        (["frontal", "frontal", "lateral", "other"], 2, [0, 2]),
        (["frontal", "", "lateral", "other"], 8, [0, 2, 3]),
        (["", "lateral"], 2, [0, 1]),
        (["lateral", "other"], 1, [0]),
        ([], 2, []),
    ],
)
def test_one_image_per_view(views: list[str], most: int, chosen: list[int]) -> None:
    """The best image whatever it shows, and then the first of each further view that is stated."""
    refs = [ImageRef("memory", "", "1", str(number), view=view) for number, view in enumerate(views)]
    assert [int(ref.sop_instance_uid) for ref in views_of(refs, most)] == chosen


# ── patients ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_image_of_another_patient_is_not_drafted_from() -> None:
    """A header that names somebody else parks the job with a reason without values; the trail says which facts."""
    hospital = Hospital()
    hospital.arrive(PatientID="OTHER-1", PatientBirthDate="19990909")
    report = hospital.order(image=False)
    assert hospital.worker.work_off() == 1
    assert hospital.model.asked == []
    (job,) = hospital.jobs(report)
    failed = hospital.ward.report(report.id)
    assert job.state is JobState.FAILED
    assert failed.status is Status.FAILED
    assert job.reason == failed.reason
    assert job.reason is not None
    assert job.reason.code == "patient-contradicts"
    assert job.reason.text == "The image's header names another patient than the order, by birth-date, identifier."
    with hospital.memory() as uow:
        events = [event for event in uow.audit.of_report(report.id) if event.tag == "worker:patient:contradicted"]
    assert [dict(event.detail) for event in events] == [
        {"job": job.id, "facts": "birth-date, identifier", "check": "person"}
    ]


def test_mended_image_is_drafted_from_at_the_next_attempt() -> None:
    """After the header was mended under the same UIDs, a retry reads it anew."""
    hospital = Hospital()
    hospital.arrive(PatientID="OTHER-1")
    report = hospital.order(image=False)
    hospital.worker.work_off()
    (image,) = hospital.images.datasets.values()
    image.PatientID = PATIENT["PatientID"]
    failed = hospital.ward.report(report.id)
    drafting.retry_draft(*hospital.ward.trio, RADIOLOGIST, report.id, expected_version=failed.version)
    assert hospital.worker.work_off() == 1
    assert hospital.ward.report(report.id).status is Status.DRAFTED


def test_infill_beside_an_image_of_another_patient_is_parked() -> None:
    """The image counts for infills as well; the report stays as the clinician left it."""
    hospital = Hospital()
    report = hospital.order()
    hospital.worker.work_off()
    job = hospital.infill(hospital.ward.report(report.id))
    (image,) = hospital.images.datasets.values()
    image.PatientID = "OTHER-1"
    assert hospital.new_worker(hospital.model).work_off() == 1
    ended = next(each for each in hospital.jobs(report) if each.id == job.id)
    assert ended.reason is not None
    assert ended.reason.code == "patient-contradicts"
    assert hospital.ward.report(report.id).status is Status.DRAFTED


def test_site_may_draft_from_any_patients_image() -> None:
    """The comparison can be switched off."""
    hospital = Hospital(site=Site(patient_check=PatientCheck.OFF))
    hospital.arrive(PatientID="OTHER-1")
    report = hospital.order(image=False)
    hospital.worker.work_off()
    assert hospital.ward.report(report.id).status is Status.DRAFTED
