from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from inlay_core.application import queries, trail
from inlay_core.application.ports import ReportSearch
from inlay_core.domain.audit import Kind, Outcome, Tag
from inlay_core.domain.errors import Forbidden, NotFound
from inlay_core.domain.identity import Actor
from inlay_core.domain.lifecycle import Status
from inlay_testkit.core import AUDITOR, EHR, RADIOLOGIST, RIS, Ward
from inlay_testkit.memory import Memory

NOBODY = Actor("x", "X")


@pytest.fixture
def ward() -> Ward:
    """A ward with one draft."""
    ward = Ward(Memory()())
    ward.drafted()
    return ward


def test_a_report_is_read_with_its_order(ward: Ward) -> None:
    """The newest version, each older one, and all of them are read together with order and patient."""
    (row,) = queries.worklist(ward.uow, EHR).rows
    read = queries.read_report(ward.uow, EHR, row.report.id)
    assert (read.report.version, read.order.patient.identifier) == (3, "MRN1")
    assert queries.read_report(ward.uow, EHR, row.report.id, 1).report.status is Status.REGISTERED
    assert [v.version for v in queries.report_versions(ward.uow, EHR, row.report.id)] == [1, 2, 3]


def test_orders_patients_and_jobs_are_found(ward: Ward) -> None:
    """Orders and patients by id, patients by identifier, jobs by id and report."""
    ((report, order),) = ((row.report, row.order) for row in queries.worklist(ward.uow, EHR).rows)
    assert queries.read_order(ward.uow, RIS, order.id) == order
    assert list(queries.patients_by_identifier(ward.uow, RIS, "MRN1", "HOSP")) == [order.patient]
    assert queries.read_patient(ward.uow, RIS, order.patient.id) == order.patient
    (job,) = queries.jobs_of_report(ward.uow, RIS, report.id)
    assert queries.read_job(ward.uow, RADIOLOGIST, job.id) == job


@pytest.mark.parametrize(
    "read",
    [
        lambda uow: queries.read_report(uow, EHR, "no"),
        lambda uow: queries.report_versions(uow, EHR, "no"),
        lambda uow: queries.read_job(uow, RADIOLOGIST, "no"),
        lambda uow: queries.read_order(uow, EHR, "no"),
        lambda uow: queries.read_patient(uow, EHR, "no"),
        lambda uow: queries.trail_of_report(uow, AUDITOR, "no"),
        lambda uow: queries.read_audit_event(uow, AUDITOR, "no"),
    ],
)
def test_what_is_not_there_is_not_found(ward: Ward, read: Callable[[object], object]) -> None:
    """Every read by id says NotFound for an id that nobody knows."""
    with pytest.raises(NotFound):
        read(ward.uow)


def test_a_version_that_never_was_is_not_found(ward: Ward) -> None:
    """A version beyond the newest one does not exist."""
    (row,) = queries.worklist(ward.uow, EHR).rows
    with pytest.raises(NotFound):
        queries.read_report(ward.uow, EHR, row.report.id, 9)


def test_reading_needs_a_role(ward: Ward) -> None:
    """Without a role nothing is read; the trail is for those who may read it."""
    with pytest.raises(Forbidden):
        queries.worklist(ward.uow, NOBODY)
    with pytest.raises(Forbidden):
        queries.search_reports(ward.uow, NOBODY, ReportSearch())
    (row,) = queries.worklist(ward.uow, EHR).rows
    with pytest.raises(Forbidden):
        queries.trail_of_report(ward.uow, EHR, row.report.id)


def test_access_is_recorded(ward: Ward) -> None:
    """Who read what, or was refused, is an event of the report's trail with the request's id."""
    (row,) = queries.worklist(ward.uow, EHR).rows
    queries.record_access(
        *ward.trio,
        EHR,
        Tag.READER_REPORT_READ,
        subject=(Kind.REPORT, row.report.id),
        report_id=row.report.id,
        version=3,
        outcome=Outcome.REFUSED,
        detail={"route": "read"},
        request_id="req-1",
    )
    event = queries.trail_of_report(ward.uow, AUDITOR, row.report.id)[-1]
    assert (event.tag, event.actor_id, event.outcome, event.request_id, event.version) == (
        Tag.READER_REPORT_READ,
        "ehr-1",
        Outcome.REFUSED,
        "req-1",
        3,
    )


def test_the_export_is_the_whole_trail_and_recorded_itself(ward: Ward) -> None:
    """Each line is a link with its event; what is not sealed follows, the export's own event last."""
    sealed = trail.seal_trail(ward.uow)
    lines = [json.loads(line) for line in trail.export_trail(*ward.trio, AUDITOR)]
    assert [line["position"] for line in lines] == [*range(1, sealed + 1), None]
    assert lines[-1]["event"]["tag"] == Tag.ADMIN_AUDIT_EXPORTED
    assert lines[1]["previous"] == lines[0]["hash"]
    with pytest.raises(Forbidden):
        list(trail.export_trail(*ward.trio, EHR))
