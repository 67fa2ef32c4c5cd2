"""What is kept of what was read: a report that stands as it stood is sent as it was sent, and only then."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from inlay_core.application.ports import Action, PatientFields, PatientUpdate, ReportRow
from inlay_core.domain.audit import Tag
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.identity import Actor
from inlay_core.domain.patient import PersonName
from inlay_fhir.recent import Recent
from inlay_fhir.router import FhirRouter
from inlay_fhir.store import Access
from inlay_testkit.core import EHR, MONDAY, Ward, order_command
from inlay_testkit.fhir import FhirClient, QueryStore
from inlay_testkit.memory import Memory


class CountingStore(QueryStore):
    """Counts how often a report is loaded; `error` is what recording raises."""

    loaded = 0
    error: Exception | None = None

    def report(self, actor: Actor, report_id: str, version: int | None = None) -> ReportRow:
        """See the protocol."""
        self.loaded += 1
        return super().report(actor, report_id, version)

    def read_again(self, actor: Actor, standing: object, access: Access) -> bool:
        """See the protocol."""
        if self.error:
            raise self.error
        return super().read_again(actor, standing, access)  # type: ignore[arg-type]


class Desk:
    """A client of a ward with one draft, and how often its store loads it."""

    def __init__(self) -> None:
        self.ward = Ward(Memory()())
        self.report = self.ward.drafted()
        self.path = f"/DiagnosticReport/{self.report.id}"
        self.client = FhirClient(self.ward)
        self.client.store = self.store = CountingStore(self.ward)
        self.client.router = FhirRouter(self.store)


@pytest.fixture
def desk() -> Desk:
    """A ward with one draft."""
    return Desk()


def test_a_second_read_is_the_same_bytes_without_loading_them(desk: Desk) -> None:
    """While nothing has moved, the report is loaded once, and each of the reads is in the trail with its version."""
    first, second = desk.client.ask(desk.path), desk.client.ask(desk.path, headers={"X-Request-Id": "second"})
    assert first.response == second.response
    assert desk.store.loaded == 1
    tags = desk.ward.tags(desk.report.id)
    assert tags[-2:] == [Tag.READER_REPORT_READ] * 2
    with desk.ward.uow as uow:
        events = uow.audit.of_report(desk.report.id)
    assert (events[-1].version, events[-1].request_id) == (3, "second")


def test_a_new_version_is_shown_at_once(desk: Desk) -> None:
    """What was sent before is not sent again once the report has moved on."""
    before = desk.client.ask(desk.path).json
    desk.ward.receive(replace(order_command("1"), action=Action.CANCEL))
    after = desk.client.ask(desk.path).json
    assert (before["status"], after["status"]) == ("partial", "cancelled")
    assert desk.store.loaded == 2


def test_a_corrected_order_or_patient_is_shown_at_once(desk: Desk) -> None:
    """Both are part of what is shown, and have versions of their own."""
    desk.client.ask(desk.path)
    later = MONDAY + timedelta(hours=1)
    desk.ward.receive(replace(order_command("1"), action=Action.CHANGE, procedure_text="X", message_time=later))
    assert desk.client.ask(desk.path).json["code"]["text"] == "X"
    update = PatientUpdate(PatientFields("HOSP", "MRN1", name=PersonName("Corrected", "Name")), later)
    desk.ward.receive(update)  # type: ignore[arg-type]
    assert desk.client.ask(desk.path).status == 200
    assert desk.store.loaded == 3


def test_what_is_kept_is_for_those_who_may_read_it(desk: Desk) -> None:
    """The right to read is asked for each time."""
    desk.client.ask(desk.path)
    assert desk.client.ask(desk.path, actor=Actor("x", "X")).status == 403


def test_a_part_or_nothing_of_what_is_kept_is_sent_on_request(desk: Desk) -> None:
    """`_summary`, If-None-Match and HEAD mean the same at the second read."""
    whole = desk.client.ask(desk.path)
    summary = desk.client.ask(desk.path, ("_summary", "true"))
    assert "presentedForm" not in summary.json
    assert desk.client.ask(desk.path, headers={"If-None-Match": whole.response.headers["ETag"]}).status == 304
    assert desk.client.ask(desk.path, method="HEAD").response.body == b""
    assert desk.client.ask(desk.path).response == whole.response
    assert desk.store.loaded == 1


def test_without_a_record_nothing_of_what_is_kept_is_sent(desk: Desk) -> None:
    """When the trail cannot be written, the second read is not answered either."""
    desk.client.ask(desk.path)
    desk.store.error = Unavailable("database-unavailable", "The database does not answer or is locked.")
    assert desk.client.ask(desk.path, actor=EHR).status == 503


def test_so_many_values_are_kept_and_the_least_used_go() -> None:
    """A value that was asked for outlives one that was not."""
    recent: Recent[str, int] = Recent(2)
    recent.keep("a", 1)
    recent.keep("b", 2)
    assert recent.get("a") == 1
    recent.keep("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]
