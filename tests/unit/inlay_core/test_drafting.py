from __future__ import annotations

from dataclasses import replace

import pytest

from inlay_core.application import drafting, editing, signing, switching
from inlay_core.application.ports import Claimed, Delivery, Destination, Generated, GenerationPolicy, Pulse, Site
from inlay_core.domain.edits import FragmentEdit, SectionEdit
from inlay_core.domain.errors import Conflict, DomainError, Fault, Forbidden, Locked, Stale, Unavailable
from inlay_core.domain.fragment import Origin
from inlay_core.domain.infill import Dispute, Fill, Gap, InfillRequest, InfillSection, LockRef
from inlay_core.domain.job import Job, JobKind, JobState, Reason
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Priority
from inlay_core.domain.report import Report
from inlay_core.domain.switch import Scope, Writer
from inlay_testkit.core import ADMIN, AUDITOR, DRAFT, EHR, RADIOLOGIST, WORKER, Ward, counting_ids, order_command
from inlay_testkit.memory import Memory

CRASH = Reason("out-of-memory", "The model ran out of memory.")


@pytest.fixture
def memory() -> Memory:
    """An empty database in memory."""
    return Memory()


@pytest.fixture
def ward(memory: Memory) -> Ward:
    """A ward that parks a job after two attempts."""
    return Ward(memory(), site=Site(max_attempts=2, lease_seconds=60))


def claim(ward: Ward) -> Claimed:
    """The next job, which must be there."""
    claimed = drafting.claim_next(*ward.trio, WORKER, site=ward.site)
    assert claimed is not None
    return claimed


def start(ward: Ward) -> Job:
    """The next job, claimed and started."""
    job = claim(ward).job
    return drafting.start_generation(*ward.trio, WORKER, job.id, fence=job.fence)


def job_of(ward: Ward, job_id: str) -> Job:
    """The stored job."""
    with ward.uow as uow:
        job = uow.jobs.get(job_id)
    assert job is not None
    return job


def apply(ward: Ward, job: Job, generated: Generated = DRAFT) -> JobState:
    """Hand in a result; return the job's state."""
    return drafting.apply_result(
        *ward.trio, WORKER, job.id, fence=job.fence, generated=generated, site=ward.site
    ).job.state


def lock_first(ward: Ward, report: Report) -> tuple[Report, str]:
    """Lock the first finding; return the report and the fragment's id."""
    findings = report.section("findings")
    assert findings is not None
    edits = tuple(FragmentEdit(f.id, locked=n == 0) for n, f in enumerate(findings.fragments))
    locked = editing.put_fragments(
        *ward.trio, RADIOLOGIST, report.id, expected_version=report.version, edits=[SectionEdit("findings", edits)]
    )
    return locked, findings.fragments[0].id


def infill(ward: Ward, report: Report, fragment_id: str) -> Job:
    """Ask for everything after the lock."""
    request = InfillRequest((InfillSection("findings", (LockRef(fragment_id), Gap())),))
    return drafting.request_infill(
        *ward.trio, RADIOLOGIST, report.id, expected_version=report.version, request=request, site=ward.site
    )


# ---------------------------------------------------------------------------------------------- the good way


def test_a_draft_goes_from_registered_to_drafted(ward: Ward) -> None:
    """Claim, start and result make the versions registered, drafting, drafted; the job keeps its run record."""
    ward.order(reason="Cough for 3 days")
    report = ward.draft()
    with ward.uow as uow:
        assert [str(v.status) for v in uow.reports.versions(report.id)] == ["registered", "drafting", "drafted"]
        (job,) = uow.jobs.of_report(report.id)
    assert (job.state, job.run_record, job.lease_until) == (JobState.SUCCEEDED, DRAFT.run_record, None)
    assert report.job_id == job.id
    assert [section.name for section in report.sections] == ["indication", "findings", "impression"]
    indication, findings, _ = report.sections
    assert (indication.text, indication.fragments[0].origin) == ("Cough for 3 days", Origin.IMPORTED)
    assert [f.text for f in findings.fragments] == [
        "The heart is normal. ",
        "No pleural effusion.\n",
        "No pneumothorax. ",
    ]
    assert {(f.origin, f.job_id, f.locked) for f in findings.fragments} == {(Origin.MODEL, job.id, False)}
    assert findings.text == dict(DRAFT.texts)["findings"]


def test_the_claim_says_what_images_to_look_for_and_no_more(ward: Ward) -> None:
    """A claimed draft names study and accession; the order's free text comes along only where the site allows it."""
    ward.order(reason="Cough")
    claimed = claim(ward)
    assert (claimed.images.study_instance_uid, claimed.images.accession_number) == ("1.2.826.0.1.1", "A1")
    assert claimed.reason is None
    open_minded = Ward(Memory()(), site=Site(generation=GenerationPolicy(imported_text_allowed=True)))
    open_minded.order(reason="Cough")
    assert claim(open_minded).reason == "Cough"


def test_an_infill_writes_between_the_locks(ward: Ward) -> None:
    """The locked fragment is the same object after the infill, the rest is new, and the digest proves it."""
    report, lock = lock_first(ward, ward.drafted())
    kept = report.fragment(lock)
    assert kept is not None
    job = infill(ward, report, lock)
    claimed = claim(ward)
    assert (claimed.job.id, claimed.job.kind) == (job.id, JobKind.INFILL)
    assert [section.name for section in claimed.sections] == ["findings", "impression"]
    generated = Generated(
        {"seed": 2},
        fills=(Fill("findings", 1, "Small left effusion. Clear lungs."),),
        disputes=(Dispute("findings", 0, 4, 9, "laterality"),),
    )
    drafting.start_generation(*ward.trio, WORKER, job.id, fence=1)
    applied = drafting.apply_result(*ward.trio, WORKER, job.id, fence=1, generated=generated)
    assert applied.report is not None
    assert applied.report.fragment(lock) == replace(kept, warnings=applied.report.fragment(lock).warnings)  # type: ignore[union-attr]
    assert applied.report.sections[0].text == kept.text + "Small left effusion. Clear lungs."
    assert applied.report.sections[1] == report.sections[1]
    assert [(d.fragment_id, d.sha256) for d in applied.digests] == [(lock, kept.digest)]
    assert (applied.report.status, applied.report.version) == (Status.IN_REVIEW, report.version + 1)


def test_an_infill_of_an_unopened_draft_puts_it_in_review(ward: Ward) -> None:
    """Asking for an infill needs no edit first."""
    report = ward.drafted()
    job = infill(ward, report, report.sections[0].fragments[0].id)
    start(ward)
    assert apply(ward, replace(job, fence=1), Generated({}, fills=(Fill("findings", 1, "New."),))) is JobState.SUCCEEDED
    assert ward.report(report.id).status is Status.IN_REVIEW


# ---------------------------------------------------------------------------------------------- late results


def test_a_late_draft_never_overwrites_an_edit(ward: Ward) -> None:
    """A clinician who wrote by hand while the draft was made keeps the text; the job ends as superseded."""
    report = ward.order()
    job = start(ward)
    edits = [SectionEdit("findings", (FragmentEdit(text="By hand."),))]
    edited = editing.put_fragments(*ward.trio, RADIOLOGIST, report.id, expected_version=2, edits=edits)
    assert drafting.heartbeat(ward.uow, ward.clock, job.id, fence=1).stop
    assert apply(ward, job) is JobState.SUPERSEDED
    assert ward.report(report.id) == edited


def test_a_late_infill_never_overwrites_a_signature(ward: Ward) -> None:
    """A report that was signed while an infill ran stays as it was signed."""
    report, lock = lock_first(ward, ward.drafted())
    infill(ward, report, lock)
    job = start(ward)
    signed = signing.sign(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version)
    assert apply(ward, job, Generated({}, fills=(Fill("findings", 1, "x"),))) is JobState.SUPERSEDED
    assert ward.report(report.id) == signed


def test_a_late_infill_never_overwrites_a_newer_version(ward: Ward) -> None:
    """An edit between request and result wins, even one that only locks."""
    report, lock = lock_first(ward, ward.drafted())
    infill(ward, report, lock)
    job = start(ward)
    newer, _ = lock_first(ward, report)
    assert apply(ward, job, Generated({}, fills=(Fill("findings", 1, "x"),))) is JobState.SUPERSEDED
    assert ward.report(report.id) == newer


def test_a_queued_job_on_an_old_version_is_never_started(ward: Ward) -> None:
    """A waiting draft ends as soon as somebody writes by hand."""
    report = ward.order()
    edits = [SectionEdit("findings", (FragmentEdit(text="By hand."),))]
    editing.put_fragments(*ward.trio, RADIOLOGIST, report.id, expected_version=1, edits=edits)
    assert drafting.claim_next(*ward.trio, WORKER) is None
    with ward.uow as uow:
        assert [str(job.state) for job in uow.jobs.of_report(report.id)] == ["superseded"]


def test_a_new_infill_supersedes_the_open_one(ward: Ward) -> None:
    """Whoever asks again means the new request; the running one is told to stop."""
    report, lock = lock_first(ward, ward.drafted())
    first = infill(ward, report, lock)
    running = start(ward)
    second = infill(ward, report, lock)
    assert drafting.heartbeat(ward.uow, ward.clock, first.id, fence=1).stop
    assert apply(ward, running, Generated({}, fills=(Fill("findings", 1, "Old."),))) is JobState.SUPERSEDED
    assert claim(ward).job.id == second.id


def test_a_result_that_does_not_fit_leaves_everything_as_it_was(ward: Ward, memory: Memory) -> None:
    """A result with a missing fill is a fault, and the transaction is undone."""
    report, lock = lock_first(ward, ward.drafted())
    infill(ward, report, lock)
    job = start(ward)
    before = memory.world
    with pytest.raises(Fault):
        apply(ward, job, Generated({}))
    assert memory.world is before


# ---------------------------------------------------------------------------------------------- fences and leases


def test_a_worker_that_fell_silent_has_lost_its_job(ward: Ward) -> None:
    """After the lease the job is claimed again under a higher fence, and the first worker can do nothing any more."""
    ward.order()
    job = start(ward)
    ward.clock.advance(61)
    (taken,) = drafting.reclaim_expired(*ward.trio, WORKER, site=ward.site)
    assert (taken.state, taken.reason) == (JobState.QUEUED, Reason("lease-expired", "The worker fell silent."))
    second = start(ward)
    assert (second.id, second.fence) == (job.id, 2)
    for act in (
        lambda: drafting.heartbeat(ward.uow, ward.clock, job.id, fence=1),
        lambda: drafting.start_generation(*ward.trio, WORKER, job.id, fence=1),
        lambda: apply(ward, job),
        lambda: drafting.fail_job(*ward.trio, WORKER, job.id, fence=1, reason=CRASH, retry=True),
        lambda: drafting.stop_job(*ward.trio, WORKER, job.id, fence=1),
        lambda: drafting.images_missing(*ward.trio, WORKER, job.id, fence=1),
    ):
        with pytest.raises(Stale):
            act()
    assert apply(ward, second) is JobState.SUCCEEDED


def test_a_heartbeat_keeps_the_job(ward: Ward) -> None:
    """A lease that is renewed is not taken back."""
    ward.order()
    job = start(ward)
    ward.clock.advance(50)
    assert not drafting.heartbeat(ward.uow, ward.clock, job.id, fence=1, site=ward.site).stop
    ward.clock.advance(50)
    assert drafting.reclaim_expired(*ward.trio, WORKER, site=ward.site) == []


def test_silent_workers_park_the_job_in_the_end(ward: Ward) -> None:
    """A job that kills its workers is parked with a reason, and its report failed, after the last attempt."""
    report = ward.order()
    for state in (JobState.QUEUED, JobState.FAILED):
        start(ward)
        ward.clock.advance(61)
        (job,) = drafting.reclaim_expired(*ward.trio, WORKER, site=ward.site)
        assert job.state is state
    assert ward.report(report.id).status is Status.FAILED
    assert drafting.claim_next(*ward.trio, WORKER) is None


def test_a_reclaimed_job_that_was_cancelled_ends(ward: Ward) -> None:
    """Nobody starts a job again that was cancelled while its worker died."""
    ward.order()
    job = start(ward)
    drafting.cancel_job(*ward.trio, RADIOLOGIST, job.id)
    ward.clock.advance(61)
    (ended,) = drafting.reclaim_expired(*ward.trio, WORKER, site=ward.site)
    assert ended.state is JobState.CANCELLED


# ---------------------------------------------------------------------------------------------- failures


def test_a_failed_attempt_is_repeated_after_a_pause(ward: Ward, memory: Memory) -> None:
    """A job that may succeed later waits, is announced for that moment, and keeps its reason."""
    ward.order()
    job = start(ward)
    again = drafting.fail_job(*ward.trio, WORKER, job.id, fence=1, reason=CRASH, retry=True, site=ward.site)
    assert (again.state, again.attempts, again.reason) == (JobState.QUEUED, 1, CRASH)
    assert again.not_before is not None
    assert drafting.claim_next(*ward.trio, WORKER) is None
    assert [*memory.world.outbox.values()][-1].next_attempt_at == again.not_before
    ward.clock.advance(2)
    assert start(ward).fence == 2


@pytest.mark.parametrize("retry", [True, False])
def test_a_job_that_cannot_succeed_is_parked_with_its_reason(ward: Ward, *, retry: bool) -> None:
    """Without hope, or after the last attempt, job and report fail and say why; a retry makes a new job."""
    report = ward.order()
    for attempt in range(2 if retry else 1):
        ward.clock.advance(60)
        job = start(ward)
        assert job.attempts == attempt + 1
        drafting.fail_job(*ward.trio, WORKER, job.id, fence=job.fence, reason=CRASH, retry=retry, site=ward.site)
    failed = ward.report(report.id)
    assert (failed.status, failed.reason, job_of(ward, job.id).state) == (Status.FAILED, CRASH, JobState.FAILED)
    again = drafting.retry_draft(*ward.trio, RADIOLOGIST, report.id, expected_version=failed.version)
    assert again.base_version == failed.version + 1
    assert ward.draft().status is Status.DRAFTED


def test_a_failed_infill_leaves_the_report_in_review(ward: Ward) -> None:
    """The text that the clinician has is not lost with an infill."""
    report, lock = lock_first(ward, ward.drafted())
    infill(ward, report, lock)
    job = start(ward)
    drafting.fail_job(*ward.trio, WORKER, job.id, fence=1, reason=CRASH, retry=False)
    assert ward.report(report.id) == report


def test_pauses_double_up_to_five_minutes() -> None:
    """The pause before the next attempt grows, and not without end."""
    pauses = [drafting.backoff(attempts).total_seconds() for attempts in (0, 1, 2, 3, 10, 10**6)]
    assert pauses == [2, 2, 4, 8, 300, 300]


# ---------------------------------------------------------------------------------------------- images


def test_a_job_without_images_waits_without_a_worker(ward: Ward, memory: Memory) -> None:
    """Missing images put the job aside (no attempt is counted); their arrival queues and announces it."""
    report = ward.order()
    job = claim(ward).job
    waiting = drafting.images_missing(*ward.trio, WORKER, job.id, fence=1)
    assert (waiting.state, waiting.attempts, waiting.lease_until) == (JobState.WAITING_IMAGES, 0, None)
    assert drafting.claim_next(*ward.trio, WORKER) is None
    assert ward.report(report.id).status is Status.REGISTERED
    (found,) = drafting.jobs_waiting_for_images(ward.uow)
    assert (found.job.id, found.images.accession_number) == (job.id, "A1")
    announced = len(memory.world.outbox)
    assert drafting.images_arrived(*ward.trio, WORKER, job.id).state is JobState.QUEUED
    assert len(memory.world.outbox) == announced + 1
    assert ward.draft().status is Status.DRAFTED
    assert drafting.images_arrived(*ward.trio, WORKER, job.id).state is JobState.SUCCEEDED


# ---------------------------------------------------------------------------------------------- cancelling


def test_cancelling_a_waiting_draft_fails_its_report(ward: Ward) -> None:
    """DELETE of a queued draft ends it at once; the report says so and can be asked for again."""
    report = ward.order()
    with ward.uow as uow:
        (job,) = uow.jobs.of_report(report.id)
    ended = drafting.cancel_job(*ward.trio, RADIOLOGIST, job.id)
    assert ended.state is JobState.CANCELLED
    failed = ward.report(report.id)
    assert (failed.status, failed.reason) == (Status.FAILED, Reason("job-cancelled", "The job was cancelled."))
    with pytest.raises(Conflict):
        drafting.cancel_job(*ward.trio, RADIOLOGIST, job.id)


def test_cancelling_a_running_draft_stops_it_between_two_steps(ward: Ward) -> None:
    """The worker hears of it at the next heartbeat, stops, and the job ends as cancelled without a draft."""
    report = ward.order()
    job = start(ward)
    assert drafting.cancel_job(*ward.trio, RADIOLOGIST, job.id).state is JobState.RUNNING
    assert drafting.heartbeat(ward.uow, ward.clock, job.id, fence=1).reason == "cancelled"
    assert drafting.stop_job(*ward.trio, WORKER, job.id, fence=1).state is JobState.CANCELLED
    assert ward.report(report.id).sections == ()


def test_cancelling_an_infill_leaves_the_report(ward: Ward) -> None:
    """A cancelled infill changes nothing in the report."""
    report, lock = lock_first(ward, ward.drafted())
    job = infill(ward, report, lock)
    assert drafting.cancel_job(*ward.trio, RADIOLOGIST, job.id).state is JobState.CANCELLED
    assert ward.report(report.id) == report


# ---------------------------------------------------------------------------------------------- requests


def test_an_infill_needs_the_newest_version_and_the_role(ward: Ward) -> None:
    """Another version is stale, another role is forbidden, and nothing is queued."""
    report, lock = lock_first(ward, ward.drafted())
    request = InfillRequest((InfillSection("findings", (LockRef(lock), Gap())),))
    with pytest.raises(Stale):
        drafting.request_infill(
            *ward.trio, RADIOLOGIST, report.id, expected_version=report.version - 1, request=request
        )
    with pytest.raises(Forbidden):
        drafting.request_infill(*ward.trio, EHR, report.id, expected_version=report.version, request=request)
    dropped = InfillRequest((InfillSection("findings", (Gap(),)),))
    with pytest.raises(Locked):
        drafting.request_infill(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version, request=dropped)
    assert drafting.claim_next(*ward.trio, WORKER) is None


@pytest.mark.parametrize("status", [Status.REGISTERED, Status.SIGNED])
def test_only_an_unsigned_text_can_be_rewritten(ward: Ward, status: Status) -> None:
    """A report without text and a signed one take no infill."""
    report = ward.order()
    if status is Status.SIGNED:
        report = ward.draft()
        report = signing.sign(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version)
    request = InfillRequest((InfillSection("findings", (Gap(),)),))
    with pytest.raises(Conflict) as refused:
        drafting.request_infill(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version, request=request)
    assert refused.value.code == "wrong-status"


def test_a_clinician_who_waits_comes_before_routine_drafts(ward: Ward) -> None:
    """An infill overtakes drafts that nobody waits for."""
    report = ward.drafted("1")
    ward.order("2")
    job = infill(ward, report, report.sections[0].fragments[0].id)
    assert claim(ward).job.id == job.id


@pytest.mark.parametrize("actor", [RADIOLOGIST, ADMIN, EHR, AUDITOR], ids=lambda actor: actor.id)
def test_only_our_workers_claim(ward: Ward, actor: object) -> None:
    """No identity from outside can claim a job or hand in a result."""
    ward.order()
    with pytest.raises(Forbidden):
        drafting.claim_next(*ward.trio, actor)  # type: ignore[arg-type]
    job = start(ward)
    with pytest.raises(Forbidden):
        drafting.apply_result(*ward.trio, actor, job.id, fence=1, generated=DRAFT)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- switches


def test_the_kill_switch_stops_claims_running_jobs_and_results(ward: Ward) -> None:
    """While it is on nothing is claimed, running jobs go back to the queue, and even a finished draft is not shown."""
    first = ward.order("1")
    ward.clock.advance(1)
    ward.order("2")
    running = start(ward)
    switching.stop_generation(*ward.trio, ADMIN)
    assert drafting.claim_next(*ward.trio, WORKER) is None
    assert drafting.heartbeat(ward.uow, ward.clock, running.id, fence=1).reason == "generation-off"
    assert apply(ward, running) is JobState.QUEUED
    assert ward.report(first.id).sections == ()
    assert job_of(ward, running.id).attempts == 0
    switching.resume_generation(*ward.trio, ADMIN)
    assert ward.draft().id == first.id


def test_reading_and_signing_go_on_without_generation(ward: Ward) -> None:
    """The kill switch leaves editing by hand and signing usable, and refuses infills clearly."""
    report = ward.drafted()
    switching.stop_generation(*ward.trio, ADMIN)
    with pytest.raises(Unavailable) as refused:
        infill(ward, report, report.sections[0].fragments[0].id)
    assert refused.value.code == "generation-off"
    edited, _ = lock_first(ward, report)
    assert signing.sign(*ward.trio, RADIOLOGIST, report.id, expected_version=edited.version).is_signed


@pytest.mark.parametrize(
    ("policy", "kinds"),
    [
        (GenerationPolicy(), {JobKind.DRAFT, JobKind.INFILL}),
        (GenerationPolicy(draft=False), {JobKind.INFILL}),
        (GenerationPolicy(infill=False), {JobKind.DRAFT}),
        (GenerationPolicy(stopped=True), set()),
    ],
)
def test_drafts_and_infills_are_switched_separately(policy: GenerationPolicy, kinds: set[JobKind]) -> None:
    """Image drafting and infill are separate intended uses."""
    ward = Ward(Memory()(), site=Site(generation=policy))
    ward.order()
    assert (drafting.claim_next(*ward.trio, WORKER, site=ward.site) is not None) is (JobKind.DRAFT in kinds)
    with ward.uow as uow:
        assert switching.allowance(uow, ward.site).kinds == kinds


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        (Scope(), True),
        (Scope(use=JobKind.DRAFT), True),
        (Scope(use=JobKind.INFILL), False),
        (Scope(site="RIS"), True),
        (Scope(site="NORTH"), False),
        (Scope(modality="DX"), True),
        (Scope(modality="CT"), False),
        (Scope(model="tiny"), True),
        (Scope(model="d1"), True),
        (Scope(model="other"), False),
        (Scope(JobKind.DRAFT, "RIS", "DX", "tiny"), True),
        (Scope(JobKind.DRAFT, "RIS", "CT", "tiny"), False),
    ],
    ids=lambda value: value.name if isinstance(value, Scope) else "",
)
def test_a_switch_stops_what_it_covers_and_nothing_else(ward: Ward, scope: Scope, covered: bool) -> None:
    """A stopped use, site, modality or model: not claimed, stopped at the next glance, and its result not applied."""
    writer = Writer("tiny", "d1")
    ward.order("1")
    claimed = drafting.claim_next(*ward.trio, WORKER, writer=writer)
    assert claimed is not None
    job = drafting.start_generation(*ward.trio, WORKER, claimed.job.id, fence=1)
    switching.stop_generation(*ward.trio, ADMIN, scope)
    for hear in (drafting.glance(ward.uow, job.id, fence=1, writer=writer), beat(ward, job, writer)):
        assert hear == Pulse(stop=covered, reason="generation-off" if covered else None)
    made = replace(DRAFT, run_record={"model": "tiny", "model_digest": "d1"})
    applied = drafting.apply_result(*ward.trio, WORKER, job.id, fence=1, generated=made)
    assert applied.job.state is (JobState.QUEUED if covered else JobState.SUCCEEDED)
    if covered:
        assert drafting.claim_next(*ward.trio, WORKER, writer=writer) is None
        switching.resume_generation(*ward.trio, ADMIN, scope)
        assert drafting.claim_next(*ward.trio, WORKER, writer=writer) is not None


def test_a_stopped_model_leaves_its_jobs_to_others(ward: Ward) -> None:
    """Another model's worker takes what the stopped one may not."""
    ward.order()
    switching.stop_generation(*ward.trio, ADMIN, Scope(model="tiny"))
    assert drafting.claim_next(*ward.trio, WORKER, writer=Writer("tiny", "d1")) is None
    assert drafting.claim_next(*ward.trio, WORKER, writer=Writer("large", "d2")) is not None


def test_infill_of_a_stopped_site_is_refused_when_it_is_asked_for(ward: Ward) -> None:
    """Whoever asks hears it at once; what other sites ask for is taken."""
    report = ward.drafted()
    switching.stop_generation(*ward.trio, ADMIN, Scope(use=JobKind.INFILL, site="RIS"))
    with pytest.raises(Unavailable):
        infill(ward, report, report.sections[0].fragments[0].id)
    switching.resume_generation(*ward.trio, ADMIN, Scope(use=JobKind.INFILL, site="RIS"))
    switching.stop_generation(*ward.trio, ADMIN, Scope(use=JobKind.INFILL, site="NORTH"))
    assert infill(ward, report, report.sections[0].fragments[0].id).state is JobState.QUEUED


def beat(ward: Ward, job: Job, writer: Writer) -> Pulse:
    """The worker's heartbeat."""
    return drafting.heartbeat(ward.uow, ward.clock, job.id, fence=job.fence, writer=writer)


def test_only_an_administrator_switches(ward: Ward) -> None:
    """The switch is the administrator's, and each turn is in the trail."""
    with pytest.raises(Forbidden):
        switching.stop_generation(*ward.trio, RADIOLOGIST)
    assert switching.stop_generation(*ward.trio, ADMIN).on
    assert not switching.resume_generation(*ward.trio, ADMIN).on


# ---------------------------------------------------------------------------------------------- sweepers


def test_forgotten_jobs_are_announced_again(ward: Ward, memory: Memory) -> None:
    """A job that nobody took is announced again, once per pause, and not while generation is off."""
    ward.order()

    def wake() -> int:
        return drafting.wake_forgotten(*ward.trio, WORKER, older_than_seconds=30)

    assert wake() == 0
    ward.clock.advance(31)
    assert [wake(), wake()] == [1, 0]
    ward.clock.advance(31)
    switching.stop_generation(*ward.trio, ADMIN)
    assert wake() == 0
    pending = [i for i in memory.world.outbox.values() if i.state is Delivery.PENDING]
    assert [i.destination for i in pending] == [Destination.CELERY] * 2


def test_unknown_jobs_are_not_found(ward: Ward) -> None:
    """An id that nobody knows is an error of its own."""
    with pytest.raises(DomainError) as refused:
        drafting.cancel_job(*ward.trio, RADIOLOGIST, counting_ids("zz")())
    assert refused.value.code == "unknown-job"


def test_stat_overtakes(ward: Ward) -> None:
    """The STAT order is drafted first although it came last."""
    ward.order("1")
    ward.receive(order_command("2", priority=Priority.STAT))
    assert claim(ward).images.accession_number == "A2"
