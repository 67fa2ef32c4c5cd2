"""What every unit of work promises, as tests that the fake and each real database run through alike.

A subclass gives the fixture `new_uow`; pytest collects it where its name starts with Test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest

from inlay_core.application import (
    clients,
    drafting,
    editing,
    intake,
    publishing,
    queries,
    sessions,
    signing,
    subscribing,
    switching,
    trail,
)
from inlay_core.application.ports import (
    Arrival,
    Attendance,
    Delivery,
    Destination,
    DestinationCount,
    Envelope,
    Generated,
    MessageOutcome,
    NewUnitOfWork,
    OrderCondition,
    OutboxItem,
    Placed,
    Received,
    ReportSearch,
    SenderCount,
    Site,
    Sort,
    Sought,
    Standing,
    StepProgress,
    StoredMessage,
    Switch,
    TimeBound,
    UnitOfWork,
    WorkerSeen,
)
from inlay_core.domain.audit import AuditEvent, Kind, Tag, event_of
from inlay_core.domain.edits import FragmentEdit, SectionEdit
from inlay_core.domain.errors import Conflict, Fault, NotFound, Race, Stale
from inlay_core.domain.fragment import Fragment, FragmentWarning, Origin, Section
from inlay_core.domain.identity import Actor, Role
from inlay_core.domain.infill import Fill, Gap, InfillRequest, InfillSection, LockRef
from inlay_core.domain.job import Job, JobKind, JobState, Reason
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order, OrderStatus, Priority, PriorStudy, Procedure
from inlay_core.domain.patient import Patient, PersonName, Provider
from inlay_core.domain.prior import PriorReport, PriorSection, PriorStatus
from inlay_core.domain.reader_study import Case, Choice, Grade, Mark, ReaderStudy
from inlay_core.domain.report import Report
from inlay_core.domain.session import Session
from inlay_core.domain.subscription import SubscriptionState
from inlay_core.domain.switch import Allowance, Scope
from inlay_testkit.core import (
    ADMIN,
    COLLEAGUE,
    DRAFT,
    EHR,
    MONDAY,
    RADIOLOGIST,
    RELAY,
    RIS,
    WORKER,
    StillClock,
    Ward,
    ack,
    envelope,
    order_command,
)

T = TypeVar("T")

ALL_KINDS = frozenset(JobKind)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
EVERY_MOMENT = MONDAY.replace(microsecond=123456)

# Text that careless storage changes: both normal forms, combining marks, emoji, right to left, all line ends, blanks.
DIFFICULT = (
    "Caf\u00e9 Cafe\u0301 \u0915\u094d\u0937 \U0001f469\u200d\u2695\ufe0f "
    "\u202b\u05d1\u05d3\u05d9\u05e7\u05d4\u202c\r\n\tx  \r\u2028\n "
)


class UnitOfWorkContract:
    """Facts about every implementation of `UnitOfWork`."""

    @pytest.fixture
    def ward(self, new_uow: NewUnitOfWork) -> Ward:
        """A ward on a fresh database."""
        return Ward(new_uow())

    # -------------------------------------------------------------------------------------- transactions

    def test_nothing_is_kept_without_a_commit(self, new_uow: NewUnitOfWork) -> None:
        """Leaving the block without a commit leaves no trace, with or without an error."""
        with new_uow() as uow:
            uow.switches.save(Switch("s", on=True, changed_at=MONDAY, changed_by="x"))
        with pytest.raises(RuntimeError), new_uow() as uow:  # noqa: PT012 (the block is what is tested)
            uow.switches.save(Switch("s", on=True, changed_at=MONDAY, changed_by="x"))
            raise RuntimeError
        with new_uow() as uow:
            assert uow.switches.get("s") is None

    def test_rollback_forgets_the_change_and_its_duty(self, new_uow: NewUnitOfWork) -> None:
        """After a rollback the same block can commit, because nothing is left that needs an event."""
        with new_uow() as uow:
            uow.patients.add(_patient())
            uow.rollback()
            uow.commit()
        with new_uow() as uow:
            assert uow.patients.get("pat") is None

    @pytest.mark.parametrize("what", ["patient", "order", "report", "job", "message", "switch"])
    def test_a_change_without_its_event_cannot_be_committed(self, new_uow: NewUnitOfWork, what: str) -> None:
        """An unaudited change is a failed transaction, and an event about something else does not help."""
        changes: dict[str, Callable[..., None]] = {
            "patient": lambda uow: uow.patients.add(_patient("other")),
            "order": lambda uow: uow.orders.add(_order("other")),
            "report": lambda uow: uow.reports.add(replace(_report(), id="rep2", order_id="ord2")),
            "job": lambda uow: uow.jobs.add(_job("other")),
            "message": lambda uow: uow.messages.add(_message()),
            "switch": lambda uow: uow.switches.save(Switch("s", on=True, changed_at=MONDAY, changed_by="x")),
        }
        _store(new_uow)
        if what == "report":
            with new_uow() as uow:
                uow.orders.add(_order("ord2"))
                _record(uow, (Kind.ORDER, "ord2"))
                uow.commit()
        with pytest.raises(Fault) as refused, new_uow() as uow:  # noqa: PT012 (the block is what is tested)
            changes[what](uow)
            _record(uow, (Kind.REPORT, "something-else"))
            uow.commit()
        assert refused.value.code == "audit-event-missing"

    def test_a_unit_of_work_is_one_transaction_at_a_time(self, new_uow: NewUnitOfWork) -> None:
        """Entering an open unit of work is a defect that says so."""
        uow = new_uow()
        with uow, pytest.raises(Fault), uow:
            pass
        with uow:
            assert uow.reports.get("x") is None

    # -------------------------------------------------------------------------------------- records come back

    def test_an_order_comes_back_as_it_was(self, new_uow: NewUnitOfWork) -> None:
        """Every field of an order and its patient survives storage; moments are kept to the microsecond, in UTC."""
        _store(new_uow)
        with new_uow() as uow:
            stored = uow.orders.get("ord")
        assert stored == _order()
        assert stored is not None
        assert stored.scheduled_at is not None
        assert stored.scheduled_at.utcoffset() == timedelta(0)

    def test_an_order_shows_its_patients_newest_record(self, new_uow: NewUnitOfWork) -> None:
        """The patient of an order is the record, not a copy taken at intake."""
        _store(new_uow)
        with new_uow() as uow:
            uow.patients.save(replace(_patient(), name=PersonName("Newname"), version=2))
            _record(uow, (Kind.PATIENT, "pat"))
            uow.commit()
        with new_uow() as uow:
            order = uow.orders.get("ord")
        assert order is not None
        assert order.patient.name == PersonName("Newname")

    def test_a_prior_report_comes_back_as_it_was(self, new_uow: NewUnitOfWork) -> None:
        """Every field and every character survives; one row per number; the newest study of a patient comes first."""
        _store(new_uow)
        prior = PriorReport(
            "pri",
            _patient(),
            "RIS",
            "F9",
            PriorStatus.FINAL,
            (PriorSection("X", "Text", DIFFICULT),),
            accession_number="A9",
            procedure_code="1",
            procedure_system="L",
            procedure_text="Thorax",
            modality="DX",
            performed_at=EVERY_MOMENT,
            reported_at=MONDAY,
            message_time=MONDAY,
            created_at=MONDAY,
            updated_at=EVERY_MOMENT,
        )
        newer = replace(prior, id="new", number="F10", performed_at=EVERY_MOMENT + timedelta(days=1))
        with new_uow() as uow:
            for each in (prior, newer):
                uow.priors.add(each)
                _record(uow, (Kind.PRIOR, each.id))
            uow.commit()
        with new_uow() as uow:
            assert uow.priors.find("RIS", "F9") == prior
            assert uow.priors.find("RIS", "F8") is None
            assert [each.id for each in uow.priors.of_patients(["pat"])] == ["new", "pri"]
            assert not uow.priors.of_patients(["other"])
        with pytest.raises(Race), new_uow() as uow:  # noqa: PT012 (the block is what is tested)
            uow.priors.add(replace(prior, id="third"))
            uow.commit()
        with new_uow() as uow:
            uow.priors.save(replace(prior, status=PriorStatus.WITHDRAWN, version=2))
            _record(uow, (Kind.PRIOR, "pri"))
            uow.commit()
        with pytest.raises(Race), new_uow() as uow:
            uow.priors.save(replace(prior, version=2))

    def test_a_merged_patient_points_to_the_record_that_stayed(self, new_uow: NewUnitOfWork) -> None:
        """Both directions of a merge can be followed, and the orders of a record are found."""
        _store(new_uow)
        with new_uow() as uow:
            uow.patients.add(replace(_patient("old"), identifier="4712", merged_into="pat"))
            _record(uow, (Kind.PATIENT, "old"))
            uow.commit()
        with new_uow() as uow:
            assert [each.id for each in uow.patients.merged_into("pat")] == ["old"]
            assert [each.id for each in uow.orders.of_patient("pat")] == ["ord"]
            assert not uow.orders.of_patient("old")

    def test_stored_messages_are_gone_through_in_the_order_of_arrival(self, new_uow: NewUnitOfWork) -> None:
        """Outcome, sender, day and the end of the last batch restrict; every field comes back."""
        with new_uow() as uow:
            for number in range(3):
                outcome = MessageOutcome.ACCEPTED if number == 1 else MessageOutcome.REFUSED
                message = replace(
                    _message(),
                    id=f"m{number}",
                    received_at=MONDAY + timedelta(hours=number),
                    outcome=outcome,
                    sha256=str(number) * 64,
                )
                uow.messages.add(message)
                _record(uow, (Kind.MESSAGE, message.id))
            uow.commit()
        with new_uow() as uow:
            assert [m.id for m in uow.messages.received()] == ["m0", "m1", "m2"]
            assert [m.id for m in uow.messages.received(outcome=MessageOutcome.REFUSED)] == ["m0", "m2"]
            assert [m.id for m in uow.messages.received(since=MONDAY + timedelta(hours=1))] == ["m1", "m2"]
            assert [m.id for m in uow.messages.received(application="OTHER")] == []
            assert [m.id for m in uow.messages.received(after=(MONDAY, "m0"), limit=1)] == ["m1"]

    def test_report_text_is_kept_byte_for_byte(self, new_uow: NewUnitOfWork) -> None:
        """No storage normalises, trims or re-encodes the text of a fragment; all versions stay readable."""
        _store(new_uow)
        fragment = Fragment(
            "f",
            DIFFICULT,
            Origin.CLINICIAN,
            locked=True,
            warnings=(FragmentWarning("side", "left?", 1, 2),),
            job_id="j",
        )
        second = replace(
            _report(),
            version=2,
            status=Status.IN_REVIEW,
            sections=(Section("findings", (fragment,)), Section("impression")),
            reason=Reason("why", DIFFICULT),
        )
        _save_report(new_uow, second)
        with new_uow() as uow:
            assert uow.reports.get("rep") == second
            assert uow.reports.version("rep", 1) == _report()
            assert list(uow.reports.versions("rep")) == [_report(), second]
            assert uow.reports.version("rep", 3) is None

    def test_a_job_comes_back_as_it_was(self, new_uow: NewUnitOfWork) -> None:
        """Every field of a job survives storage."""
        _store(new_uow)
        job = _job(
            "full",
            request={"sections": [{"text": DIFFICULT}]},
            reason=Reason("code", "text"),
            run_record={"seed": 2**53, "loss": 0.1, "nested": [None, True]},
            alternatives=({"section": "findings", "item": 1, "texts": [{"text": "é", "score": -0.5}]},),
            lease_until=EVERY_MOMENT,
            not_before=EVERY_MOMENT,
            woken_at=EVERY_MOMENT,
            started_at=EVERY_MOMENT,
            finished_at=EVERY_MOMENT,
            cancel_requested=True,
            requested_by="dr-1",
        )
        _add_jobs(new_uow, job)
        with new_uow() as uow:
            assert uow.jobs.get("full") == job
            assert list(uow.jobs.of_report("rep")) == [job]

    def test_a_message_comes_back_as_it_was(self, new_uow: NewUnitOfWork) -> None:
        """Raw bytes, acknowledgement and verdict of a message survive storage, bytes that are no text included."""
        with new_uow() as uow:
            uow.messages.add(_message())
            _record(uow, (Kind.MESSAGE, "msg"))
            uow.commit()
        with new_uow() as uow:
            assert uow.messages.get("msg") == _message()
            assert uow.messages.find("APP", "FAC", "C1", "0" * 64) == _message()
            assert uow.messages.find("APP", "FAC", "C1", "1" * 64) is None
            assert uow.messages.digests("APP", "FAC", "C1") == ["0" * 64]
            assert not uow.messages.digests("APP", "OTHER", "C1")

    def test_moments_of_other_zones_are_the_same_moments(self, new_uow: NewUnitOfWork) -> None:
        """A moment given in another zone comes back as the same moment."""
        _store(new_uow)
        tokyo = EVERY_MOMENT.astimezone(timezone(timedelta(hours=9)))
        _add_jobs(new_uow, _job("tokyo", not_before=tokyo))
        with new_uow() as uow:
            job = uow.jobs.get("tokyo")
        assert job is not None
        assert job.not_before == EVERY_MOMENT

    def test_switches_and_canvases_are_overwritten(self, new_uow: NewUnitOfWork) -> None:
        """The newest switch and the newest canvas are what is read."""
        with new_uow() as uow:
            for on in (True, False):
                uow.switches.save(Switch("generation", on=on, changed_at=EVERY_MOMENT, changed_by="a"))
                uow.progress.put(StepProgress("j", int(on), 16, DIFFICULT, ((0, 3), (5, 6)), 2**41), MONDAY)
            _record(uow, (Kind.SWITCH, "generation"))
            uow.commit()
        with new_uow() as uow:
            assert uow.switches.get("generation") == Switch(
                "generation", on=False, changed_at=EVERY_MOMENT, changed_by="a"
            )
            assert [switch.name for switch in uow.switches.all()] == ["generation"]
            assert uow.progress.get("j") == StepProgress("j", 0, 16, DIFFICULT, ((0, 3), (5, 6)), 2**41)
            assert uow.progress.get("other") is None

    def test_the_canvases_of_a_run_come_back_in_their_order(self, new_uow: NewUnitOfWork) -> None:
        """Each with its text to the character and its spans; of a job without any there are none."""
        shown = tuple(StepProgress("done", step, 3, DIFFICULT * step, ((0, step),), 2**41 + step) for step in (1, 2, 3))
        _store(new_uow)
        _add_jobs(new_uow, _job("done", state=JobState.SUCCEEDED))
        with new_uow() as uow:
            uow.progress.keep("done", shown)
            uow.commit()
        with new_uow() as uow:
            assert tuple(uow.progress.kept("done")) == shown
            assert tuple(uow.progress.kept("other")) == ()

    # -------------------------------------------------------------------------------------- administration

    def test_a_session_is_found_by_its_id_until_it_is_over(self, new_uow: NewUnitOfWork) -> None:
        """Sessions come back as they are, are seen without an event, and go when they are removed or over."""
        actor = Actor("dr", "Dr. Zoë", frozenset({Role.RADIOLOGIST, Role.ADMIN}))
        later = MONDAY + timedelta(hours=1)
        with new_uow() as uow:
            for name, ends in (("s", later), ("old", MONDAY), ("gone", later)):
                uow.sessions.add(Session(name, actor, "token", MONDAY, MONDAY, ends))
                _record(uow, (Kind.SESSION, name))
            uow.commit()
        with new_uow() as uow:
            uow.sessions.seen("s", EVERY_MOMENT)
            uow.sessions.forget(MONDAY + timedelta(seconds=1))
            uow.commit()
        with new_uow() as uow:
            assert uow.sessions.get("s") == Session("s", actor, "token", MONDAY, EVERY_MOMENT, later)
            assert uow.sessions.get("old") is None
        with pytest.raises(Fault), new_uow() as uow:  # noqa: PT012 (the block is what is tested)
            uow.sessions.remove("gone")
            uow.commit()
        with new_uow() as uow:
            uow.sessions.remove("gone")
            _record(uow, (Kind.SESSION, "gone"))
            uow.commit()
        with new_uow() as uow:
            assert uow.sessions.get("gone") is None

    def test_workers_are_there_until_they_end_or_fall_silent(self, new_uow: NewUnitOfWork) -> None:
        """What a worker tells last is what is seen of it."""
        busy = WorkerSeen("w", "host", "tiny", "d1", ("a", "b"), "cuda:0", 2, MONDAY, EVERY_MOMENT)
        with new_uow() as uow:
            uow.workers.put(replace(busy, jobs=0, seen_at=MONDAY))
            uow.workers.put(busy)
            uow.workers.put(replace(busy, id="silent", seen_at=MONDAY))
            uow.workers.put(replace(busy, id="ended"))
            uow.commit()
        with new_uow() as uow:
            uow.workers.forget(MONDAY + timedelta(microseconds=1))
            uow.workers.remove("ended")
            uow.commit()
        with new_uow() as uow:
            assert list(uow.workers.all()) == [busy]

    def test_the_queue_is_counted_with_its_oldest(self, new_uow: NewUnitOfWork) -> None:
        """Open jobs and recent failures are counted by kind, state and priority; what has ended well is not."""
        _store(new_uow)
        _add_jobs(
            new_uow,
            _job("young", created_at=EVERY_MOMENT),
            _job("old"),
            _job("stat", priority=Priority.STAT),
            _job("infill", kind=JobKind.INFILL, state=JobState.RUNNING),
            _job("failed", state=JobState.FAILED, finished_at=EVERY_MOMENT),
            _job("long ago", state=JobState.FAILED, finished_at=MONDAY),
            _job("done", state=JobState.SUCCEEDED, finished_at=EVERY_MOMENT),
        )
        with new_uow() as uow:
            counted = uow.jobs.census(MONDAY + timedelta(microseconds=1))
            assert [job.id for job in uow.jobs.of_reports(["rep", "none"])][-1] == "young"
        assert [(str(c.kind), str(c.state), str(c.priority), c.number, c.oldest) for c in counted] == [
            ("draft", "failed", "routine", 1, MONDAY),
            ("draft", "queued", "stat", 1, MONDAY),
            ("draft", "queued", "routine", 2, MONDAY),
            ("infill", "running", "routine", 1, MONDAY),
        ]

    def test_senders_are_counted_with_their_last_error(self, new_uow: NewUnitOfWork) -> None:
        """Each sender's messages and refusals, when the last one came, and the code of the last error."""
        taken: dict[str, Any] = {"outcome": MessageOutcome.ACCEPTED, "error_category": None, "error_code": None}
        refused: dict[str, Any] = {
            "outcome": MessageOutcome.REFUSED,
            "error_category": "invalid",
            "error_code": "bad-segment",
        }
        with new_uow() as uow:
            for number, changes in enumerate((taken, refused, taken), start=1):
                at = MONDAY + timedelta(seconds=number)
                message = replace(_message(), id=f"m{number}", sha256=str(number) * 64, received_at=at)
                uow.messages.add(replace(message, **changes))
                _record(uow, (Kind.MESSAGE, f"m{number}"))
            uow.commit()
        with new_uow() as uow:
            (counted,) = uow.messages.senders(MONDAY)
            assert uow.messages.senders(MONDAY + timedelta(minutes=1)) == []
        second, third = (MONDAY + timedelta(seconds=number) for number in (2, 3))
        assert counted == SenderCount("APP", "FAC", 3, 1, third, second, "bad-segment")

    def test_destinations_are_counted_with_what_waits(self, new_uow: NewUnitOfWork) -> None:
        """Each destination's pending and parked items, its last delivery and the newest error that still matters."""
        with new_uow() as uow:
            for item in (
                replace(_item("a", "k1"), state=Delivery.DELIVERED, delivered_at=EVERY_MOMENT, last_error="old"),
                replace(_item("b", "k2"), state=Delivery.DEAD, last_error="refused"),
                replace(_item("c", "k3"), last_error="no-answer"),
                replace(_item("d", "k4")),
                replace(_item("e", "k5"), destination="fhir", state=Delivery.DELIVERED, delivered_at=MONDAY),
            ):
                uow.outbox.add(item)
            uow.commit()
        with new_uow() as uow:
            fhir, oru = uow.outbox.census(100)
        assert fhir == DestinationCount("fhir", 0, 0, None, MONDAY, None)
        assert oru == DestinationCount("oru", 2, 1, _item("c", "k").created_at, EVERY_MOMENT, "no-answer")

    def test_the_last_delivery_is_among_those_due_last(self, new_uow: NewUnitOfWork) -> None:
        """As many delivered items as asked for are looked at, in the order in which they were due, per destination."""
        hours = {number: MONDAY + timedelta(hours=number) for number in range(5)}
        with new_uow() as uow:
            # (destination, due, delivered): the first waited behind another of its key.
            for number, (destination, due, delivered) in enumerate(
                [("oru", 0, 4), ("oru", 2, 2), ("oru", 1, 3), ("oru", 3, None), ("dicom", 0, 1)]
            ):
                state = Delivery.PENDING if delivered is None else Delivery.DELIVERED
                item = replace(_item(f"i{number}", f"k{number}"), destination=destination, next_attempt_at=hours[due])
                at = None if delivered is None else hours[delivered]
                uow.outbox.add(replace(item, state=state, delivered_at=at))
            uow.commit()
        with new_uow() as uow:
            found = [[one.last_delivered for one in uow.outbox.census(newest)] for newest in (1, 2, 3)]
        assert found == [[hours[1], hours[last]] for last in (2, 3, 4)]

    def test_nothing_told_is_no_destination(self, new_uow: NewUnitOfWork) -> None:
        """An empty outbox has no destinations, and so no rows."""
        with new_uow() as uow:
            assert uow.outbox.census(100) == []

    def test_drafts_are_found_by_the_time_they_came(self, new_uow: NewUnitOfWork) -> None:
        """Reports whose draft came in a span, oldest first, in batches, with all their versions."""
        ward = Ward(new_uow())
        reports = []
        for number in (1, 2, 3):
            ward.clock.advance(60)
            reports.append(ward.drafted(str(number)))
        moments = [report.updated_at for report in reports]
        with new_uow() as uow:
            first = uow.reports.drafted(moments[0], moments[2], 1)
            rest = uow.reports.drafted(moments[0], moments[2], 5, first[-1])
            versions = uow.reports.versions_of([reports[0].id, "none"])
            orders = uow.orders.by_ids([reports[1].order_id, "none"])
        assert first == [(moments[0], reports[0].id)]
        assert rest == [(moments[1], reports[1].id)]
        assert [version.version for version in versions[reports[0].id]] == [1, 2, 3]
        assert (list(versions), list(orders)) == ([reports[0].id], [reports[1].order_id])

    def test_reader_studies_keep_what_readers_say(self, new_uow: NewUnitOfWork) -> None:
        """Studies and grades come back as they were; a later grade takes the earlier one's place; names are unique."""
        drafts = ((("findings", ("One. ", DIFFICULT)),), (("findings", ("Two.",)), ("impression", ())))
        study = ReaderStudy("st", "pilot", ("a", "b"), (Case("c1", drafts, "rep"),), "seed", "admin", EVERY_MOMENT)
        empty = Grade("st", 1, "dr", MONDAY, ((None, None), (None,)))
        full = Grade("st", 1, "dr", EVERY_MOMENT, ((Mark.CORRECT, Mark.MAJOR), (None,)), (4, None), Choice.FIRST)
        with new_uow() as uow:
            uow.reader_studies.add(study)
            uow.reader_studies.put_grade(empty)
            uow.reader_studies.put_grade(full)
            uow.reader_studies.put_grade(replace(empty, reader_id="other"))
            _record(uow, (Kind.READER_STUDY, "st"))
            uow.commit()
        with new_uow() as uow:
            assert list(uow.reader_studies.all()) == [study]
            assert list(uow.reader_studies.grades("st", "dr")) == [full]
            assert [grade.reader_id for grade in uow.reader_studies.grades("st")] == ["dr", "other"]
        with pytest.raises(Race), new_uow() as uow:  # noqa: PT012 (the race may be raised by the commit)
            uow.reader_studies.add(replace(study, id="st2"))
            _record(uow, (Kind.READER_STUDY, "st2"))
            uow.commit()
        with new_uow() as uow:
            uow.reader_studies.close("st", MONDAY)
            _record(uow, (Kind.READER_STUDY, "st"))
            uow.commit()
        with new_uow() as uow:
            assert uow.reader_studies.get("st") == replace(study, closed_at=MONDAY)
            with pytest.raises(Race):
                uow.reader_studies.close("st", MONDAY)

    # -------------------------------------------------------------------------------------- races and keys

    def test_a_version_can_be_saved_once(self, new_uow: NewUnitOfWork) -> None:
        """Two savers of the same next version: the second one has lost the race."""
        _store(new_uow)
        second = replace(_report(), version=2)
        _save_report(new_uow, second)
        with pytest.raises(Race):
            _save_report(new_uow, second)
        with pytest.raises(Race), new_uow() as uow:
            uow.patients.save(_patient())
        with pytest.raises(Race), new_uow() as uow:
            uow.orders.save(replace(_order(), version=3))

    def test_identities_are_unique(self, new_uow: NewUnitOfWork) -> None:
        """Patient identity, placer number, accession number, the report of an order and a message exist once."""
        _store(new_uow)
        with new_uow() as uow:
            uow.messages.add(_message())
            _record(uow, (Kind.MESSAGE, "msg"))
            uow.commit()
        with pytest.raises(Race), new_uow() as uow:  # noqa: PT012 (the block is what is tested)
            uow.patients.add(replace(_patient(), id="pat2"))
            uow.commit()
        with pytest.raises(Race), new_uow() as uow:  # noqa: PT012 (the block is what is tested)
            uow.orders.add(replace(_order("ord2"), placer_number="P"))
            uow.commit()
        with pytest.raises(Race), new_uow() as uow:  # noqa: PT012 (the block is what is tested)
            uow.orders.add(replace(_order("ord2"), accession_number="A"))
            uow.commit()
        with pytest.raises(Race), new_uow() as uow:  # noqa: PT012 (the block is what is tested)
            uow.reports.add(replace(_report(), id="rep2"))
            uow.commit()
        with pytest.raises(Race), new_uow() as uow:  # noqa: PT012 (the block is what is tested)
            uow.messages.add(replace(_message(), id="msg2"))
            uow.commit()

    def test_what_was_foreseen_is_answered_as_if_it_were_not(self, new_uow: NewUnitOfWork) -> None:
        """Rows that are there, that are not, that were added or changed since: foreseeing changes no answer."""
        _store(new_uow)
        order, new = _order(), replace(_order("ord2"), placer_number="P2", accession_number="A2")
        sought = Sought(
            messages=[("a", "f", "c")],
            placers=[(order.assigner, "P"), (order.assigner, "P2"), (order.assigner, "P3")],
            accessions=[(order.accession_assigner, "A"), (order.accession_assigner, "A2")],
            patients=[(order.patient.assigner, order.patient.identifier), ("nobody", "x")],
        )
        with new_uow() as uow:
            uow.foresee(sought)
            assert uow.orders.by_placer(order.assigner, "P") == order
            assert uow.orders.by_placer(order.assigner, "P2") is None
            uow.orders.add(new)
            assert uow.orders.by_placer(order.assigner, "P3") is None
            assert uow.orders.by_placer(order.assigner, "P2") == new
            assert uow.orders.by_accession(order.accession_assigner, "A2") == [new]
            changed = replace(order, reason="another", version=order.version + 1)
            uow.orders.save(changed)
            assert uow.orders.by_placer(order.assigner, "P") == changed
            assert uow.patients.find(order.patient.assigner, order.patient.identifier) == [order.patient]
            assert not uow.patients.find("nobody", "x")
            assert not uow.messages.digests("a", "f", "c")

    def test_several_messages_are_stored_together(self, new_uow: NewUnitOfWork) -> None:
        """Orders of one new patient, a repetition and a refusal in one group: each is stored once, with its answer."""
        ward = Ward(new_uow())
        patient = order_command("1").patient
        arrivals = [
            Arrival(envelope("M1"), lambda: (order_command("1"),), ack),
            Arrival(envelope("M2"), lambda: (order_command("2", patient=patient),), ack),
            Arrival(envelope("M1"), lambda: (order_command("1"),), ack),
        ]
        received = intake.receive_messages(*ward.trio, arrivals)
        assert [isinstance(each, Received) and (each.accepted, each.repeated) for each in received] == [
            (True, False),
            (True, False),
            (True, True),
        ]
        with new_uow() as uow:
            orders = [uow.orders.by_placer("RIS", number) for number in ("P1", "P2")]
            assert len({order.patient.id for order in orders if order is not None}) == 1
            assert None not in orders
            recorded = [event.tag for event in uow.audit.unsealed()]
            assert recorded.count(Tag.INTAKE_PATIENT_CREATED) == 1
            assert recorded.count(Tag.INTAKE_MESSAGE_ACCEPTED) == 2
            assert recorded.count(Tag.INTAKE_JOB_QUEUED) == 2

    def test_orders_without_numbers_do_not_collide(self, new_uow: NewUnitOfWork) -> None:
        """A missing placer or accession number is no identity."""
        _store(new_uow)
        with new_uow() as uow:
            for order_id in ("o1", "o2"):
                uow.orders.add(replace(_order(order_id), placer_number=None, accession_number=None))
                _record(uow, (Kind.ORDER, order_id))
            uow.commit()
        with new_uow() as uow:
            assert uow.orders.get("o2") is not None

    def test_orders_are_found_by_each_identity(self, new_uow: NewUnitOfWork) -> None:
        """Placer, filler, accession (of one assigner or of any) and study lead to the order."""
        _store(new_uow)
        with new_uow() as uow:
            assert uow.orders.by_placer("RIS", "P") == _order()
            assert uow.orders.by_placer("OTHER", "P") is None
            assert uow.orders.by_filler("RIS", "F") == _order()
            assert list(uow.orders.by_accession("RIS", "A")) == [_order()]
            assert list(uow.orders.by_accession(None, "A")) == [_order()]
            assert list(uow.orders.by_accession("OTHER", "A")) == []
            assert list(uow.orders.by_study("1.2.3")) == [_order()]
            assert list(uow.patients.find("HOSP", "MRN")) == [_patient()]
            assert list(uow.patients.find(None, "MRN")) == [_patient()]
            assert list(uow.patients.find("OTHER", "MRN")) == []

    # -------------------------------------------------------------------------------------- jobs

    def test_stat_is_claimed_first_then_held_studies_then_age(self, new_uow: NewUnitOfWork) -> None:
        """The order of the queue: priority, then the reports that the worker holds, then age."""
        _store(new_uow)
        _store_second_report(new_uow)
        _add_jobs(
            new_uow,
            _job("old", created_at=MONDAY),
            _job("held", report_id="rep2", created_at=MONDAY + timedelta(seconds=2)),
            _job("urgent", priority=Priority.URGENT, created_at=MONDAY + timedelta(seconds=3)),
            _job("stat", priority=Priority.STAT, created_at=MONDAY + timedelta(seconds=4)),
            _job("young", created_at=MONDAY + timedelta(seconds=1)),
        )
        assert [_claim(new_uow, held=("rep2",)) for _ in range(6)] == ["stat", "urgent", "held", "old", "young", None]

    def test_a_claim_sets_lease_fence_and_attempt(self, new_uow: NewUnitOfWork) -> None:
        """A claimed job is running under a fence that is one higher, and counts the attempt."""
        _store(new_uow)
        _add_jobs(new_uow, _job("j", fence=4, attempts=2))
        with new_uow() as uow:
            job = uow.jobs.claim(MONDAY, EVERY_MOMENT, Allowance(ALL_KINDS))
        assert job is not None
        assert (job.state, job.fence, job.attempts, job.lease_until) == (JobState.RUNNING, 5, 3, EVERY_MOMENT)

    def test_only_due_jobs_of_the_wanted_kinds_are_claimed(self, new_uow: NewUnitOfWork) -> None:
        """Jobs that wait for their next attempt, of another kind, or in another state are left alone."""
        _store(new_uow)
        _add_jobs(
            new_uow,
            _job("later", not_before=MONDAY + timedelta(seconds=1)),
            _job("infill", kind=JobKind.INFILL),
            _job("waiting", state=JobState.WAITING_IMAGES),
            _job("done", state=JobState.SUCCEEDED),
        )
        assert _claim(new_uow, kinds=frozenset()) is None
        assert _claim(new_uow, kinds=frozenset({JobKind.DRAFT})) is None
        assert _claim(new_uow, kinds=frozenset({JobKind.DRAFT}), now=MONDAY + timedelta(seconds=1)) == "later"
        assert _claim(new_uow) == "infill"

    @pytest.mark.parametrize(
        ("stop", "left"),
        [
            (Scope(site="RIS"), None),
            (Scope(site="OTHER"), "draft"),
            (Scope(modality="CT"), "draft"),
            (Scope(site="RIS", modality="CT"), "draft"),
            (Scope(use=JobKind.DRAFT, modality="DX"), "infill"),
            (Scope(use=JobKind.DRAFT, site="NOBODY", modality="DX"), "draft"),
        ],
    )
    def test_what_a_switch_covers_is_neither_claimed_nor_announced(
        self, new_uow: NewUnitOfWork, stop: Scope, left: str | None
    ) -> None:
        """Jobs of a stopped site, modality or use stay in the queue; the others are found behind them."""
        _store(new_uow)
        _add_jobs(new_uow, _job("draft"), _job("infill", kind=JobKind.INFILL, created_at=MONDAY + timedelta(seconds=1)))
        later = MONDAY + timedelta(minutes=5)
        with new_uow() as uow:
            found = [job.id for job in uow.jobs.unwoken(later, later, Allowance(ALL_KINDS, (stop,)), 1)]
        assert found == ([left] if left else [])
        assert _claim(new_uow, stops=(stop,)) == left

    def test_a_moved_fence_refuses_writes(self, new_uow: NewUnitOfWork) -> None:
        """Whoever holds an old fence can neither save the job nor renew its lease."""
        _store(new_uow)
        _add_jobs(new_uow, _job("j"))
        _claim(new_uow)
        with pytest.raises(Race), new_uow() as uow:
            uow.jobs.save(_job("j"), fence=0)
        with pytest.raises(Stale), new_uow() as uow:
            uow.jobs.renew("j", 0, EVERY_MOMENT)
        with new_uow() as uow:
            assert uow.jobs.renew("j", 1, EVERY_MOMENT).lease_until == EVERY_MOMENT
            uow.commit()

    def test_sweepers_find_expired_and_forgotten_jobs(self, new_uow: NewUnitOfWork) -> None:
        """Expired leases, unannounced jobs and jobs per state are found, oldest first and in batches."""
        _store(new_uow)
        later = MONDAY + timedelta(minutes=5)
        _add_jobs(
            new_uow,
            _job("lost", state=JobState.RUNNING, lease_until=MONDAY),
            _job("busy", state=JobState.RUNNING, lease_until=later),
            _job("forgotten"),
            _job("announced", woken_at=later),
            _job("pausing", not_before=later + timedelta(minutes=1)),
        )
        with new_uow() as uow:
            assert [job.id for job in uow.jobs.expired(MONDAY + timedelta(seconds=1), 10)] == ["lost"]
            forgotten = uow.jobs.unwoken(MONDAY + timedelta(seconds=1), later, Allowance(ALL_KINDS), 10)
            assert [job.id for job in forgotten] == ["forgotten"]
            first = uow.jobs.in_state(JobState.QUEUED, 2)
            assert [job.id for job in first] == ["announced", "forgotten"]
            rest = uow.jobs.in_state(JobState.QUEUED, 2, (first[-1].created_at, first[-1].id))
            assert [job.id for job in rest] == ["pausing"]
            uow.jobs.woken(["forgotten"], later)
            uow.commit()
        with new_uow() as uow:
            assert uow.jobs.unwoken(MONDAY + timedelta(seconds=1), later, Allowance(ALL_KINDS), 10) == []
            assert uow.jobs.count(JobState)[JobState.QUEUED, Priority.ROUTINE] == 3

    def test_the_age_of_what_waits_is_that_of_the_oldest(self, new_uow: NewUnitOfWork) -> None:
        """Queued jobs by priority, pending items by destination; what is under way or told waits no longer."""
        minute = timedelta(minutes=1)
        _store(new_uow)
        _add_jobs(
            new_uow,
            _job("done", state=JobState.SUCCEEDED, created_at=MONDAY),
            _job("second", created_at=MONDAY + 2 * minute),
            _job("first", created_at=MONDAY + minute),
            _job("stat", created_at=MONDAY + 3 * minute, priority=Priority.STAT),
        )
        with new_uow() as uow:
            uow.outbox.add(replace(_item("told", "a"), state=Delivery.DELIVERED, created_at=MONDAY))
            uow.outbox.add(replace(_item("late", "b"), created_at=MONDAY + 2 * minute))
            uow.outbox.add(replace(_item("early", "c"), created_at=MONDAY + minute))
            uow.commit()
        with new_uow() as uow:
            assert uow.jobs.queued_since() == {
                Priority.ROUTINE: MONDAY + minute,
                Priority.STAT: MONDAY + 3 * minute,
            }
            assert uow.outbox.pending_since() == {Destination.ORU: MONDAY + minute}
            waiting = [job for job in map(uow.jobs.get, ("stat", "first", "second")) if job is not None]
            assert [uow.jobs.ahead(job, MONDAY) for job in waiting] == [0, 1, 2]

    def test_a_job_that_pauses_is_ahead_of_nobody(self, new_uow: NewUnitOfWork) -> None:
        """Until its pause is over; running jobs do not wait, and none is ahead of itself."""
        minute = timedelta(minutes=1)
        _store(new_uow)
        mine = _job("mine", created_at=MONDAY + minute)
        _add_jobs(
            new_uow,
            mine,
            _job("pausing", created_at=MONDAY, not_before=MONDAY + 5 * minute),
            _job("running", state=JobState.RUNNING, created_at=MONDAY),
        )
        with new_uow() as uow:
            assert uow.jobs.ahead(mine, MONDAY + minute) == 0
            assert uow.jobs.ahead(mine, MONDAY + 6 * minute) == 1

    # -------------------------------------------------------------------------------------- outbox

    def test_items_of_a_key_are_delivered_one_after_the_other(self, new_uow: NewUnitOfWork) -> None:
        """The second item of a key is not given out before the first one is delivered or dead."""
        with new_uow() as uow:
            for item in (_item("a1", "a"), _item("a2", "a"), _item("b1", "b"), _item("a3", "a"), _item("c1", "c", "x")):
                uow.outbox.add(item)
            uow.commit()
        assert _deliver(new_uow, MONDAY) == ["a1", "b1"]
        assert _deliver(new_uow, MONDAY) == []
        _finish(new_uow, "a1", Delivery.DELIVERED)
        assert _deliver(new_uow, MONDAY) == ["a2"]
        _finish(new_uow, "a2", Delivery.DEAD)
        assert _deliver(new_uow, MONDAY) == ["a3"]

    def test_a_lease_that_is_over_gives_the_item_out_again(self, new_uow: NewUnitOfWork) -> None:
        """A relay that died does not keep its items; the attempt is counted and the control id stays."""
        with new_uow() as uow:
            uow.outbox.add(_item("a1", "a"))
            uow.commit()
        assert _deliver(new_uow, MONDAY) == ["a1"]
        assert _deliver(new_uow, MONDAY + timedelta(seconds=61)) == ["a1"]
        with new_uow() as uow:
            item = uow.outbox.get("a1")
        assert item is not None
        assert (item.attempts, item.control_id, item.payload) == (2, "CONTROL", {"report_id": "rep"})

    def test_parked_items_are_listed_and_later_ones_are_known(self, new_uow: NewUnitOfWork) -> None:
        """Wake-ups are not among them; the bytes of an attempt come back; items of other keys are not `after`."""
        first = OutboxItem(
            "i1", "oru:ris", "k", {"version": 1}, MONDAY, MONDAY, "C1", message=b"\x00\xffMSH", traceparent=TRACE
        )
        items = [
            first,
            replace(first, id="i2", message=None),
            replace(first, id="i3", key="other"),
            replace(first, id="i4", destination=Destination.CELERY),
        ]
        with new_uow() as uow:
            for item in items:
                uow.outbox.add(replace(item, state=Delivery.DEAD))
            uow.commit()
        with new_uow() as uow:
            found = uow.outbox.in_state(Delivery.DEAD, 10)
            assert [item.id for item in found] == ["i1", "i2", "i3"]
            assert found[0].message == b"\x00\xffMSH"
            assert [item.id for item in uow.outbox.in_state(Delivery.DEAD, 1, 1)] == ["i2"]
            assert [item.id for item in uow.outbox.after(first)] == ["i2"]

    def test_an_item_waits_for_its_next_attempt(self, new_uow: NewUnitOfWork) -> None:
        """A failed item that is not due holds back the later ones of its key, and no others."""
        with new_uow() as uow:
            uow.outbox.add(replace(_item("a1", "a"), next_attempt_at=MONDAY + timedelta(seconds=5)))
            uow.outbox.add(_item("a2", "a"))
            uow.outbox.add(_item("b1", "b"))
            uow.commit()
        assert _deliver(new_uow, MONDAY) == ["b1"]
        assert _deliver(new_uow, MONDAY + timedelta(seconds=5)) == ["a1"]
        with new_uow() as uow:
            assert uow.outbox.count() == {(Destination.ORU, Delivery.PENDING): 3}
            assert uow.outbox.count([Delivery.DEAD]) == {}

    # -------------------------------------------------------------------------------------- search

    def test_search_restricts_by_each_field(self, ward: Ward) -> None:
        """Every field of the search restricts, alternatives within a field widen, and the total counts all."""
        first = ward.drafted("1")
        ward.clock.advance(60)
        second = ward.order("2")

        def found(**search: object) -> list[str]:
            page = queries.search_reports(ward.uow, RADIOLOGIST, ReportSearch(**search))  # type: ignore[arg-type]
            assert page.total == len(page.rows)
            return [row.report.id for row in page.rows]

        assert found() == [second.id, first.id]
        assert found(ids=(first.id,)) == [first.id]
        assert found(order_ids=(second.order_id, "x")) == [second.id]
        assert found(accessions=((None, "A1"),)) == [first.id]
        assert found(accessions=(("RIS", "A1"), ("OTHER", "A2"))) == [first.id]
        assert found(patient_identifiers=(("HOSP", "MRN2"),)) == [second.id]
        assert found(patient_identifiers=((None, "MRN1"), (None, "MRN2"))) == [second.id, first.id]
        assert found(statuses=(Status.DRAFTED,)) == [first.id]
        assert found(statuses=()) == []
        assert found(study_instance_uids=("1.2.826.0.1.2",)) == [second.id]
        patient = queries.read_order(ward.uow, RADIOLOGIST, first.order_id).patient
        assert found(patient_ids=(patient.id,)) == [first.id]

    def test_search_by_procedure_and_scheduled_time(self, ward: Ward) -> None:
        """A procedure is found by code in its system or in any, orders without one by the empty code."""
        day = MONDAY + timedelta(days=1)
        coded = ward.order("1", scheduled_at=day)
        bare = ward.order("2", procedure_code=None, procedure_system=None)

        def found(**search: object) -> list[str]:
            page = queries.search_reports(ward.uow, RADIOLOGIST, ReportSearch(**search))  # type: ignore[arg-type]
            return [row.report.id for row in page.rows]

        assert found(procedures=(("LN", "36643-5"),)) == [coded.id]
        assert found(procedures=((None, "36643-5"),)) == [coded.id]
        assert found(procedures=(("L", "36643-5"),)) == []
        assert found(procedures=((None, ""),)) == [bare.id]
        assert found(studied=(TimeBound("eq", day, day + timedelta(seconds=1)),)) == [coded.id]
        assert found(studied=(TimeBound("gt", day, day + timedelta(seconds=1)),)) == []

    def test_the_oldest_change_comes_first_when_asked(self, ward: Ward) -> None:
        """`oldest` is the reverse of `newest`."""
        first = ward.order("1")
        ward.clock.advance(1)
        second = ward.order("2")
        page = queries.search_reports(ward.uow, RADIOLOGIST, ReportSearch(), sort=Sort.OLDEST)
        assert [row.report.id for row in page.rows] == [first.id, second.id]

    def test_reports_are_sorted_by_the_study_and_by_the_signature(self, ward: Ward) -> None:
        """The images' time outranks the planned one; reports without such a time come last, in both directions."""
        planned = ward.order("1", scheduled_at=MONDAY)
        ward.draft(studied_at=MONDAY + timedelta(days=2))
        between = ward.order("2", scheduled_at=MONDAY + timedelta(days=1))
        never = ward.order("3")

        def ids(sort: Sort) -> list[str]:
            return [r.report.id for r in queries.search_reports(ward.uow, RADIOLOGIST, ReportSearch(), sort=sort).rows]

        assert ids(Sort.STUDIED_FIRST) == [between.id, planned.id, never.id]
        assert ids(Sort.STUDIED_LAST) == [planned.id, between.id, never.id]
        signing.sign(*ward.trio, RADIOLOGIST, planned.id, expected_version=3)
        assert ids(Sort.SIGNED_FIRST)[0] == ids(Sort.SIGNED_LAST)[0] == planned.id
        late = ReportSearch(studied=(TimeBound("ge", MONDAY + timedelta(days=2), MONDAY + timedelta(days=3)),))
        assert [row.report.id for row in queries.search_reports(ward.uow, RADIOLOGIST, late).rows] == [planned.id]
        assert queries.read_order(ward.uow, RADIOLOGIST, planned.order_id).studied_at == MONDAY + timedelta(days=2)

    def test_the_history_of_all_reports_is_newest_first_in_pages(self, ward: Ward) -> None:
        """Every version of every report is in it once, whichever way the pages cut it."""
        first = ward.order("1")
        ward.clock.advance(1)
        second = ward.order("2")
        ward.clock.advance(1)
        ward.draft()
        page = queries.report_history(ward.uow, RADIOLOGIST)
        stated = [(row.report.id, row.report.version) for row in page.rows]
        assert stated == [(first.id, 3), (first.id, 2), (second.id, 1), (first.id, 1)]
        assert page.total == 4
        pages = [queries.report_history(ward.uow, RADIOLOGIST, offset=n, limit=1).rows[0].report for n in range(4)]
        assert [(report.id, report.version) for report in pages] == stated
        since = queries.report_history(ward.uow, RADIOLOGIST, ward.clock.now)
        assert (since.total, since.rows[0].report.id) == (2, first.id)

    def test_subscriptions_are_kept_and_counted(self, ward: Ward) -> None:
        """What was asked for comes back; a change of state keeps the count of events, and needs its audit event."""
        made = subscribing.subscribe(*ward.trio, EHR, "https://ehr.test/hook", statuses=[Status.SIGNED], ends_at=MONDAY)
        with ward.uow as uow:
            assert uow.subscriptions.get(made.id) == made
            assert uow.subscriptions.active() == []
            assert [uow.subscriptions.count_event(made.id) for _ in range(2)] == [1, 2]
            uow.commit()
        subscribing.settle(*ward.trio, RELAY, made.id, reason=None)
        with ward.uow as uow:
            (found,) = uow.subscriptions.active()
            assert (found.events, found.version, found.state) == (2, 2, SubscriptionState.ACTIVE)
            uow.subscriptions.save(found.to(SubscriptionState.OFF, ward.clock.now))
            with pytest.raises(Fault):
                uow.commit()

    def test_a_run_is_found_by_its_model(self, ward: Ward) -> None:
        """The beginning of a model's digest finds a run record; wildcards of SQL are ordinary characters."""
        ward.order()
        ward.draft(replace(DRAFT, run_record={"model": "m", "model_digest": "ab_12"}))
        assert queries.run_with_model(ward.uow, RADIOLOGIST, "ab_1")["model"] == "m"
        for unknown in ("ab%", "abc", "12"):
            with pytest.raises(NotFound):
                queries.run_with_model(ward.uow, RADIOLOGIST, unknown)

    def test_search_by_last_change_knows_the_prefixes(self, ward: Ward) -> None:
        """The bounds of `_lastUpdated` cut at the period [start, end)."""
        early = ward.order("1")
        ward.clock.advance(3600)
        late = ward.order("2")
        edge = late.updated_at
        start, end = edge, edge + timedelta(seconds=1)
        expected = {
            "eq": [late.id],
            "ne": [early.id],
            "gt": [],
            "ge": [late.id],
            "lt": [early.id],
            "le": [late.id, early.id],
        }
        for op, ids in expected.items():
            search = ReportSearch(last_updated=(TimeBound(op, start, end),))
            page = queries.search_reports(ward.uow, RADIOLOGIST, search)
            assert [row.report.id for row in page.rows] == ids, op

    def test_the_worklist_is_paged_stat_first(self, ward: Ward) -> None:
        """Pages of the worklist join to the whole: STAT first, then the oldest order."""
        ids = {}
        for number, priority in (("1", Priority.ROUTINE), ("2", Priority.STAT), ("3", Priority.URGENT), ("4", None)):
            ids[number] = ward.order(number, priority=priority).id
            ward.clock.advance(1)
        pages = [queries.worklist(ward.uow, RADIOLOGIST, offset=at, limit=3) for at in (0, 3)]
        assert [page.total for page in pages] == [4, 4]
        shown = [row.report.id for page in pages for row in page.rows]
        assert shown == [ids["2"], ids["3"], ids["1"], ids["4"]]
        newest = queries.search_reports(ward.uow, RADIOLOGIST, ReportSearch(), sort=Sort.NEWEST, limit=1)
        assert [row.report.id for row in newest.rows] == [ids["4"]]

    def test_the_worklist_tells_how_many_stand_where_and_who_reads(self, ward: Ward) -> None:
        """Counts are over all reports, not the page; a report in review is with the person who opened it."""
        first, _ = ward.drafted("1"), ward.order("2")
        page = queries.worklist(ward.uow, RADIOLOGIST, limit=1)
        assert queries.attendance(ward.uow, EHR, page) == Attendance({Status.DRAFTED: 1, Status.REGISTERED: 1}, {})
        opened = editing.open_report(*ward.trio, RADIOLOGIST, first.id, expected_version=first.version)
        edits = [SectionEdit("impression", (FragmentEdit(text="Clear."),))]
        editing.put_fragments(*ward.trio, COLLEAGUE, first.id, expected_version=opened.version, edits=edits)
        page = queries.worklist(ward.uow, RADIOLOGIST)
        told = queries.attendance(ward.uow, EHR, page)
        assert told.counts == {Status.IN_REVIEW: 1, Status.REGISTERED: 1}
        assert {report_id: who.name for report_id, who in told.openers.items()} == {first.id: RADIOLOGIST.name}

    def test_reports_are_counted_no_further_than_asked(self, ward: Ward) -> None:
        """Of many reports in a status as many are counted as were asked for, of each status by itself."""
        for number in range(3):
            ward.order(f"{number}")
        ward.draft()
        with ward.uow as uow:
            assert uow.reports.counts(1) == {Status.REGISTERED: 1, Status.DRAFTED: 1}
            assert uow.reports.counts(5) == {Status.REGISTERED: 2, Status.DRAFTED: 1}

    # -------------------------------------------------------------------------------------- trail

    def test_the_trail_seals_and_verifies(self, ward: Ward) -> None:
        """Committed events are chained in batches; the unsealed tail is counted until it is sealed."""
        report = ward.drafted()
        fresh = trail.verify_trail(ward.uow)
        assert fresh.sealed == 0
        assert fresh.unsealed > 8
        assert trail.seal_trail(ward.uow, limit=5) == 5
        half = trail.verify_trail(ward.uow)
        assert (half.holds, half.sealed, half.unsealed) == (True, 5, fresh.unsealed - 5)
        while trail.seal_trail(ward.uow, limit=5):
            pass
        whole = trail.verify_trail(ward.uow)
        assert (whole.holds, whole.sealed, whole.unsealed) == (True, fresh.unsealed, 0)
        assert whole.head != half.head
        events = queries.trail_of_report(ward.uow, RADIOLOGIST, report.id)
        assert [event.tag for event in events][-2:] == [Tag.WORKER_REPORT_DRAFTED, Tag.WORKER_JOB_SUCCEEDED]
        assert queries.read_audit_event(ward.uow, RADIOLOGIST, events[0].id) == events[0]
        assert queries.trail_of_report(ward.uow, RADIOLOGIST, report.id, offset=1, limit=2) == events[1:3]

    def test_a_reading_is_recorded_while_the_report_stands_so(self, ward: Ward) -> None:
        """A version of report, order or patient that has moved on records nothing, and of several each for itself."""
        first, second = ward.drafted("1"), ward.drafted("2")
        rows = [queries.read_report(ward.uow, RADIOLOGIST, report.id) for report in (first, second)]
        standing, other = map(Standing.of, rows)
        moved = (
            replace(standing, version=2),
            replace(standing, order_version=9),
            replace(standing, patient_version=9),
            replace(standing, patient_id=other.patient_id),
            replace(standing, report_id="unknown"),
        )
        readings = [(_reading(f"read{n}", first.id), each) for n, each in enumerate((standing, *moved))]
        readings.append((_reading("of-second", second.id), other))
        assert queries.record_while(ward.uow, readings) == {"read0", "of-second"}
        ids = [event.id for event in queries.trail_of_report(ward.uow, RADIOLOGIST, first.id)]
        assert ids[-1] == "read0"
        assert queries.read_audit_event(ward.uow, RADIOLOGIST, "of-second") == readings[-1][0]
        assert queries.record_while(ward.uow, [(_reading("late", first.id), moved[0])]) == frozenset()

    # -------------------------------------------------------------------------------------- the whole way

    def test_the_whole_way_of_an_order(self, new_uow: NewUnitOfWork) -> None:
        """Order, draft, locks, infill, signature: the locked text comes back, and each version is kept."""
        ward = Ward(new_uow(), site=Site(destinations=(Destination.ORU,)))
        drafted = ward.drafted()
        heart, *_ = drafted.sections[0].fragments
        edits = [
            SectionEdit("findings", (FragmentEdit(heart.id, locked=True), FragmentEdit(text=DIFFICULT, locked=True)))
        ]
        edited = editing.put_fragments(*ward.trio, RADIOLOGIST, drafted.id, expected_version=3, edits=edits)
        typed = edited.sections[0].fragments[1]
        request = InfillRequest((InfillSection("findings", (LockRef(heart.id), Gap(), LockRef(typed.id))),))
        job = drafting.request_infill(
            *ward.trio, RADIOLOGIST, drafted.id, expected_version=edited.version, request=request
        )
        claimed = drafting.claim_next(*ward.trio, WORKER)
        assert claimed is not None
        assert claimed.job.id == job.id
        drafting.start_generation(*ward.trio, WORKER, job.id, fence=1)
        fill = Generated({"model": "test"}, fills=(Fill("findings", 1, "Lungs are clear. "),))
        applied = drafting.apply_result(*ward.trio, WORKER, job.id, fence=1, generated=fill, site=ward.site)
        assert applied.report is not None
        findings = applied.report.sections[0]
        assert findings.text == heart.text + "Lungs are clear. " + DIFFICULT
        signed = signing.sign(
            *ward.trio, RADIOLOGIST, drafted.id, expected_version=applied.report.version, site=ward.site
        )
        assert (signed.status, signed.version) == (Status.SIGNED, 6)
        versions = queries.report_versions(ward.uow, RADIOLOGIST, drafted.id)
        assert [version.version for version in versions] == [1, 2, 3, 4, 5, 6]
        items = publishing.claim_deliveries(ward.uow, ward.clock, Destination.ORU)
        assert [item.payload["status"] for item in items] == ["drafted"]


class ConcurrencyContract:
    """Facts that hold when several processes work on one database; threads with units of work of their own stand in."""

    THREADS = 6

    def test_one_message_from_many_connections_is_one_order(self, new_uow: NewUnitOfWork) -> None:
        """The same bytes arriving at once give one order, one job, and the same acknowledgement to everyone."""
        message, command = envelope("SAME"), order_command("1")

        def receive(number: int) -> bytes:
            ward = Ward(new_uow(), prefix=f"t{number}")
            return intake.receive_message(*ward.trio, message, lambda: (command,), acknowledge=ack).ack

        answers = in_threads(receive, self.THREADS)
        assert len(set(answers)) == 1
        with new_uow() as uow:
            assert sum(uow.jobs.count(JobState).values()) == 1

    def test_one_person_is_active_in_many_requests_at_once(self, new_uow: NewUnitOfWork) -> None:
        """A page that writes and asks at the same time notes its person's activity, and no request fails for it."""
        ward = Ward(new_uow())
        opened = sessions.open_session(*ward.trio, RADIOLOGIST, secret="s", csrf="t", lifetime=timedelta(hours=1))

        def active_at(now: datetime) -> Callable[[int], Session]:
            return lambda _: sessions.note_activity(new_uow(), opened, now)

        for minute in range(1, 9):
            now = opened.seen_at + timedelta(minutes=minute)
            seen = in_threads(active_at(now), self.THREADS)
            assert {session.seen_at for session in seen} == {now}

    def test_one_order_in_many_messages_is_one_order(self, new_uow: NewUnitOfWork) -> None:
        """Different messages about the same new order at once give one order, one report and one draft job."""

        def receive(number: int) -> bool:
            ward = Ward(new_uow(), prefix=f"t{number}")
            return ward.receive(order_command("1"), message=envelope(f"M{number}")).accepted

        assert all(in_threads(receive, self.THREADS))
        with new_uow() as uow:
            assert sum(uow.jobs.count(JobState).values()) == 1

    def test_one_conditional_create_of_many_creates(self, new_uow: NewUnitOfWork) -> None:
        """Of 16 identical requests at once exactly one creates; all others get that very order."""
        condition = OrderCondition((("RIS", "P1"),))

        def place(number: int) -> Placed:
            ward = Ward(new_uow(), prefix=f"t{number}")
            return intake.place_order(*ward.trio, RIS, order_command("1"), condition=condition)

        placed = in_threads(place, 16)
        assert sum(one.created for one in placed) == 1
        assert len({one.order.id for one in placed}) == 1
        with new_uow() as uow:
            assert sum(uow.jobs.count(JobState).values()) == 1

    def test_an_assertion_is_redeemed_once(self, new_uow: NewUnitOfWork) -> None:
        """However many requests bring the same assertion at once, one is served; spent ones that are over go away."""
        clock = StillClock()
        expires = int(clock.now.timestamp()) + 60

        def redeem(_number: int) -> bool:
            try:
                clients.redeem_assertion(new_uow(), clock, "client", "jti-1", expires)
            except Conflict:
                return False
            return True

        assert sum(in_threads(redeem, self.THREADS)) == 1
        clients.redeem_assertion(new_uow(), clock, "other", "jti-1", expires)
        clock.advance(200)
        clients.redeem_assertion(new_uow(), clock, "client", "jti-2", expires + 200)
        with new_uow() as uow:
            assert not uow.assertions.is_used("client", "jti-1")
            assert uow.assertions.is_used("client", "jti-2")

    def test_one_study_joins_one_order(self, new_uow: NewUnitOfWork) -> None:
        """Of 16 identical studies at once one is taken for its order, and the others find it."""
        Ward(new_uow()).order("1", study_instance_uid=None)
        command = order_command("1", study_instance_uid="1.2.3", patient=None, message_time=None)
        condition = OrderCondition(study_instance_uid="1.2.3")

        def place(number: int) -> Placed:
            ward = Ward(new_uow(), prefix=f"t{number}")
            return intake.place_order(*ward.trio, RIS, command, condition=condition, joins=True)

        placed = in_threads(place, 16)
        assert sum(one.created for one in placed) == 1
        assert {one.order.study_instance_uid for one in placed} == {"1.2.3"}

    def test_each_job_is_claimed_once(self, new_uow: NewUnitOfWork) -> None:
        """Workers that claim at once never hold the same job, and leave none behind."""
        ward = Ward(new_uow())
        for number in range(12):
            ward.order(str(number))

        def work(number: int) -> list[str]:
            mine = Ward(new_uow(), prefix=f"t{number}")
            taken = []
            while (claimed := drafting.claim_next(*mine.trio, WORKER)) is not None:
                taken.append(claimed.job.id)
            return taken

        taken = [job_id for ids in in_threads(work, self.THREADS) for job_id in ids]
        assert len(taken) == len(set(taken)) == 12

    def test_a_draft_and_an_edit_cannot_both_win(self, new_uow: NewUnitOfWork) -> None:
        """A result that races with a clinician's edit is applied before it or superseded by it, never over it."""
        ward = Ward(new_uow())
        report = ward.order()
        claimed = drafting.claim_next(*ward.trio, WORKER)
        assert claimed is not None
        drafting.start_generation(*ward.trio, WORKER, claimed.job.id, fence=1)
        text = [SectionEdit("findings", (FragmentEdit(text="Typed by hand."),))]

        def apply() -> str:
            mine = Ward(new_uow(), prefix="a")
            done = drafting.apply_result(
                *mine.trio, WORKER, claimed.job.id, fence=1, generated=Generated({}, (("findings", "AI."),))
            )
            return str(done.job.state)

        def edit() -> str:
            mine = Ward(new_uow(), prefix="e")
            try:
                editing.put_fragments(*mine.trio, RADIOLOGIST, report.id, expected_version=2, edits=text)
            except Stale:
                return "stale"
            return "edited"

        outcome = tuple(in_threads(lambda n: (apply, edit)[n](), 2))
        newest = ward.report(report.id)
        assert outcome in {("succeeded", "stale"), ("superseded", "edited")}
        assert newest.section("findings") is not None
        expected = "AI." if outcome[0] == "succeeded" else "Typed by hand."
        assert [section.text for section in newest.sections] == [expected]

    def test_two_sealers_make_one_chain(self, new_uow: NewUnitOfWork) -> None:
        """Sealers that run at once chain each event exactly once."""
        ward = Ward(new_uow())
        for number in range(5):
            ward.order(str(number))

        def seal(_number: int) -> int:
            uow, total = new_uow(), 0
            while sealed := trail.seal_trail(uow, limit=3):
                total += sealed
            return total

        in_threads(seal, 3)
        found = trail.verify_trail(new_uow())
        assert (found.holds, found.unsealed) == (True, 0)
        assert found.sealed > 15

    def test_an_item_is_delivered_by_one_relay(self, new_uow: NewUnitOfWork) -> None:
        """Relays that claim at once never hold the same item."""
        with new_uow() as uow:
            for number in range(20):
                uow.outbox.add(_item(f"i{number}", f"k{number}"))
            uow.commit()

        def relay(_number: int) -> list[str]:
            uow, taken = new_uow(), []
            while items := publishing.claim_deliveries(uow, lambda: MONDAY, Destination.ORU, limit=3):
                taken += [item.id for item in items]
            return taken

        taken = [item for items in in_threads(relay, 4) for item in items]
        assert len(taken) == len(set(taken)) == 20

    def test_the_kill_switch_holds_for_every_process(self, new_uow: NewUnitOfWork) -> None:
        """Once the switch is on, no other connection claims a job."""
        ward = Ward(new_uow())
        ward.order()
        switching.stop_generation(*ward.trio, ADMIN)
        assert in_threads(lambda _n: drafting.claim_next(*Ward(new_uow()).trio, WORKER), 2) == [None, None]


def in_threads(work: Callable[[int], T], number: int) -> list[T]:
    """Run `work(0)` ... at once, in threads that start together; errors are raised here."""
    results: list[T | BaseException | None] = [None] * number
    gate = threading.Barrier(number)

    def run(index: int) -> None:
        gate.wait()
        try:
            results[index] = work(index)
        except BaseException as error:  # noqa: BLE001 (raised again below, in the thread of the test)
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


def _patient(patient_id: str = "pat") -> Patient:
    return Patient(
        patient_id,
        "HOSP",
        "MRN" if patient_id == "pat" else patient_id,
        name=PersonName("Käfer", "Zoë", "M.", "Dr.", "Jr."),
        birth_date=datetime(1970, 1, 2, tzinfo=UTC).date(),
        sex="female",
        message_time=EVERY_MOMENT,
        updated_at=EVERY_MOMENT,
    )


def _order(order_id: str = "ord") -> Order:
    own = order_id == "ord"
    return Order(
        id=order_id,
        assigner="RIS",
        patient=_patient(),
        placer_number="P" if own else f"P-{order_id}",
        filler_number="F" if own else None,
        accession_number="A" if own else f"A-{order_id}",
        accession_assigner="RIS",
        study_instance_uid="1.2.3",
        requested_procedure_id="RP",
        steps=("S1", "S2"),
        procedure=Procedure("36643-5", "LN", "Thorax p.a."),
        modality="DX",
        reason="Husten, Fieber — seit 3 Tagen",
        priority=Priority.STAT,
        ordering_provider=Provider("17", PersonName("House", "Gregory")),
        scheduled_at=EVERY_MOMENT,
        studied_at=EVERY_MOMENT,
        priors=(PriorStudy("1.2.9", EVERY_MOMENT, "Thorax", ("DX", "SR"), "A9"), PriorStudy("1.2.10", EVERY_MOMENT)),
        status=OrderStatus.IN_PROGRESS,
        message_time=EVERY_MOMENT,
        created_at=MONDAY,
        updated_at=EVERY_MOMENT,
    )


def _report() -> Report:
    return Report.register("rep", "ord", RIS, EVERY_MOMENT)


def _job(job_id: str, **changes: object) -> Job:
    job = Job(job_id, "rep", JobKind.DRAFT, 1, Priority.ROUTINE, MONDAY, traceparent=TRACE)
    return replace(job, **changes)  # type: ignore[arg-type]


def _message() -> StoredMessage:
    return StoredMessage(
        "msg",
        EVERY_MOMENT,
        Envelope(b"\x00\xff\x0b", "APP", "FAC", "C1", "ORM^O01", "8859/1", "iso8859-1", EVERY_MOMENT, "10.0.0.1"),
        "0" * 64,
        MessageOutcome.REFUSED,
        b"\x0bMSA|AE\x1c\r",
        error_category="invalid",
        error_code="c",
        error_place="PID-3",
        flags=("a", "b"),
        order_ids=("ord",),
    )


def _item(item_id: str, key: str, destination: str = Destination.ORU) -> OutboxItem:
    return OutboxItem(item_id, destination, key, {"report_id": "rep"}, MONDAY, MONDAY, "CONTROL")


def _reading(event_id: str, report_id: str) -> AuditEvent:
    """That a version of a report was read, by somebody whose name has quotes."""
    reader = replace(EHR, name='the "EHR" \\ Müller')
    return event_of(event_id, MONDAY, reader, Tag.READER_REPORT_READ, (Kind.REPORT, report_id), report_id=report_id)


def _record(uow: UnitOfWork, subject: tuple[Kind, str]) -> None:
    event_id = f"ev-{next(_NUMBERS)}"
    uow.audit.record(event_of(event_id, MONDAY, RIS, Tag.INTAKE_ORDER_CREATED, subject))


_NUMBERS = iter(range(10**9))


def _store(new_uow: NewUnitOfWork) -> None:
    """A patient, an order and its report."""
    with new_uow() as uow:
        uow.patients.add(_patient())
        uow.orders.add(_order())
        uow.reports.add(_report())
        for subject in ((Kind.PATIENT, "pat"), (Kind.ORDER, "ord"), (Kind.REPORT, "rep")):
            _record(uow, subject)
        uow.commit()


def _store_second_report(new_uow: NewUnitOfWork) -> None:
    with new_uow() as uow:
        uow.orders.add(_order("ord2"))
        uow.reports.add(replace(_report(), id="rep2", order_id="ord2"))
        _record(uow, (Kind.ORDER, "ord2"))
        _record(uow, (Kind.REPORT, "rep2"))
        uow.commit()


def _save_report(new_uow: NewUnitOfWork, report: Report) -> None:
    with new_uow() as uow:
        uow.reports.save(report)
        _record(uow, (Kind.REPORT, report.id))
        uow.commit()


def _add_jobs(new_uow: NewUnitOfWork, *jobs: Job) -> None:
    with new_uow() as uow:
        for job in jobs:
            uow.jobs.add(job)
            _record(uow, (Kind.JOB, job.id))
        uow.commit()


def _claim(
    new_uow: NewUnitOfWork,
    kinds: frozenset[JobKind] = ALL_KINDS,
    now: datetime = MONDAY,
    held: tuple[str, ...] = (),
    stops: tuple[Scope, ...] = (),
) -> str | None:
    with new_uow() as uow:
        job = uow.jobs.claim(now, now + timedelta(minutes=1), Allowance(kinds, stops), held)
        if job is not None:
            _record(uow, (Kind.JOB, job.id))
        uow.commit()
        return job.id if job else None


def _deliver(new_uow: NewUnitOfWork, now: datetime) -> list[str]:
    return [item.id for item in publishing.claim_deliveries(new_uow(), StillClock(now), Destination.ORU)]


def _finish(new_uow: NewUnitOfWork, item_id: str, state: Delivery) -> None:
    with new_uow() as uow:
        item = uow.outbox.get(item_id)
        assert item is not None
        uow.outbox.save(replace(item, state=state))
        uow.commit()
