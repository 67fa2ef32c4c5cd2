import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from inlay_core.application import editing
from inlay_core.application.ports import Action, PatientFields
from inlay_core.domain.audit import Outcome, Tag
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.identity import Actor
from inlay_core.domain.patient import PersonName
from inlay_core.domain.report import Report
from inlay_fhir.http import FhirRequest
from inlay_fhir.router import FhirRouter
from inlay_fhir.store import Access
from inlay_fhir.table import DOCUMENTATION, ROUTES
from inlay_testkit.core import EHR, RADIOLOGIST, Ward, order_command
from inlay_testkit.fhir import BASE, FhirClient, QueryStore, check
from inlay_testkit.memory import Memory


class Desk:
    """A client and one drafted report."""

    def __init__(self) -> None:
        self.ward = Ward(Memory()())
        self.report: Report = self.ward.drafted()
        self.client = FhirClient(self.ward)
        self.path = f"/DiagnosticReport/{self.report.id}"


@pytest.fixture
def desk() -> Desk:
    """A fresh one."""
    return Desk()


@pytest.mark.parametrize("stated", ['W/"3"', '"3"', "3", "*", 'W/"2", W/"3"', "2,3"])
def test_a_client_that_has_the_version_gets_304(desk: Desk, stated: str) -> None:
    """If-None-Match in any usual form that names the version is answered 304 without body but with the ETag."""
    reply = desk.client.ask(desk.path, headers={"if-none-match": stated})
    assert reply.status == 304
    assert reply.response.body == b""
    assert reply.response.headers["ETag"] == 'W/"3"'


@pytest.mark.parametrize("stated", ['W/"2"', "33", '"x"', ""])
def test_a_client_with_another_version_gets_the_report(desk: Desk, stated: str) -> None:
    """Another version in If-None-Match is answered in full."""
    reply = desk.client.ask(desk.path, headers={"If-None-Match": stated})
    assert reply.status == 200
    assert reply.json["id"] == desk.report.id


def test_a_corrected_patient_is_not_hidden_behind_a_version(desk: Desk) -> None:
    """Once patient or order changed after the version, its number proves nothing: 200, read and vread."""
    known = {"If-None-Match": 'W/"3"'}
    paths = (desk.path, f"{desk.path}/_history/3")
    assert [desk.client.ask(path, headers=known).status for path in paths] == [304, 304]
    desk.ward.clock.advance(60)
    corrected = PatientFields("HOSP", "MRN1", name=PersonName("Corrected", "Tina"))
    desk.ward.receive(order_command(action=Action.CHANGE, patient=corrected, message_time=desk.ward.clock.now))
    for path in paths:
        reply = desk.client.ask(path, headers=known)
        assert (reply.status, reply.response.headers["ETag"]) == (200, 'W/"3"')
        assert "Corrected" in base64.b64decode(reply.json["presentedForm"][1]["data"]).decode()
    editing.open_report(*desk.ward.trio, RADIOLOGIST, desk.report.id, expected_version=3)
    assert desk.client.ask(desk.path, headers={"If-None-Match": 'W/"4"'}).status == 304


def test_head_is_get_without_its_body(desk: Desk) -> None:
    """HEAD has the status and headers of GET, and the length that its body would have."""
    get, head = desk.client.ask(desk.path), desk.client.ask(desk.path, method="HEAD")
    assert head.response.body == b""
    assert head.response.headers == {**get.response.headers, "Content-Length": str(len(get.response.body))}
    missing = desk.client.ask("/DiagnosticReport/nothing", method="HEAD")
    assert (missing.status, missing.response.body) == (404, b"")


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [
        ((), None, 200),
        ((), "*/*", 200),
        ((), "application/fhir+json", 200),
        ((), "application/fhir+json; fhirVersion=4.0", 200),
        ((), "text/html, application/json;q=0.5", 200),
        ((), "application/fhir+xml, application/*;q=0.1", 200),
        ((), "application/fhir+xml", 406),
        ((), "application/fhir+json; fhirVersion=5.0", 406),
        ((), "application/json;q=0, text/html", 406),
        ((("_format", "json"),), "text/html", 200),
        ((("_format", "application/fhir json"),), None, 200),
        ((("_format", "xml"),), "application/json", 406),
    ],
)
def test_the_format_is_agreed_or_refused(
    desk: Desk, query: tuple[tuple[str, str], ...], accept: str | None, status: int
) -> None:
    """JSON is given to whoever takes it; `_format` outranks Accept; anything else is 406, told in JSON."""
    reply = desk.client.ask(desk.path, *query, headers={"Accept": accept} if accept else {})
    assert reply.status == status
    assert reply.response.headers["Content-Type"] == "application/fhir+json; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "path", "status", "issue"),
    [
        ("GET", "/DiagnosticReport/unknown", 404, "not-found"),
        ("GET", "/DiagnosticReport/b%20d", 404, "not-found"),
        ("GET", "/DiagnosticReport/" + "x" * 65, 404, "not-found"),
        ("GET", "/Observation/1", 404, "not-found"),
        ("GET", "/", 405, "not-supported"),
        ("GET", "/AuditEvent", 405, "not-supported"),
        ("GET", "/DiagnosticReport/_search", 405, "not-supported"),
        ("PUT", "/DiagnosticReport/1", 405, "not-supported"),
        ("DELETE", "/Patient/1", 405, "not-supported"),
        ("POST", "/DiagnosticReport", 405, "not-supported"),
        ("POST", "/DiagnosticReport/1/$unknown", 404, "not-supported"),
        ("GET", "/DiagnosticReport/1/$sign", 405, "not-supported"),
    ],
)
def test_wrong_addresses_and_methods_are_told_apart(
    desk: Desk, method: str, path: str, status: int, issue: str
) -> None:
    """Unknown records and types are 404, interactions that are not offered 405 with what is allowed."""
    reply = desk.client.ask(path, method=method)
    assert reply.status == status
    assert reply.json["issue"][0]["code"] == issue
    assert ("Allow" in reply.response.headers) == (status == 405)


def test_an_allow_header_tells_the_truth(desk: Desk) -> None:
    """Each method in Allow is answered otherwise than 405."""
    for path in (desk.path, "/DiagnosticReport", "/metadata", "/DiagnosticReport/_search"):
        allowed = desk.client.ask(path, method="PATCH").response.headers["Allow"].split(", ")
        assert allowed
        assert all(desk.client.ask(path, method=method).status == 200 for method in allowed)


def test_every_access_is_in_the_trail(desk: Desk) -> None:
    """Read, vread, history and search record which versions were shown, to whom, and the client's request id."""
    headers = {"X-Request-Id": "req-7"}
    for path in (desk.path, f"{desk.path}/_history/1", f"{desk.path}/_history", "/DiagnosticReport"):
        desk.client.ask(path, headers=headers)
    shown = [(a.tag, a.version, a.detail["interaction"]) for a in desk.client.store.accesses]
    read, searched = Tag.READER_REPORT_READ, Tag.READER_REPORT_SEARCHED
    assert shown == [
        (read, 3, "read"),
        (read, 1, "vread"),
        *((read, version, "history-instance") for version in (3, 2, 1)),
        (searched, None, "search-type"),
        (read, 3, "search"),
    ]
    assert {a.request_id for a in desk.client.store.accesses} == {"req-7"}
    with desk.ward.uow as uow:
        events = [e for e in uow.audit.of_report(desk.report.id) if e.tag is read]
    assert [event.actor_id for event in events] == ["ehr-1"] * 6


def test_a_search_leaves_names_of_parameters_in_the_trail_and_no_values(desk: Desk) -> None:
    """The trail says that somebody searched by a record number, not which, even when nothing was found."""
    desk.client.ask("/DiagnosticReport", ("patient.identifier", "MRN-SECRET"), ("Testperson", "1"))
    (searched,) = desk.client.store.accesses
    assert searched.detail["parameters"] == "patient.identifier"
    assert "SECRET" not in repr(searched)


def test_refusals_are_in_the_trail_without_the_id_that_was_asked_for(desk: Desk) -> None:
    """Who was refused, or asked for what is not here, is recorded; the id may be a name, so it is not."""
    desk.client.ask("/Task/Testperson")
    desk.client.ask("/DiagnosticReport/Testperson")
    refused = desk.client.store.accesses
    assert [a.tag for a in refused] == [Tag.READER_ACCESS_REFUSED] * 2
    assert {a.outcome for a in refused} == {Outcome.REFUSED}
    assert [a.detail["status"] for a in refused] == [403, 404]
    assert "Testperson" not in repr(refused)


class BrokenStore(QueryStore):
    """A store that fails where it is told to, with a patient's name in the error."""

    def __init__(self, ward: Ward, error: Exception, *, in_record: bool) -> None:
        super().__init__(ward)
        self.error, self.in_record = error, in_record

    def report(self, actor: Actor, report_id: str, version: int | None = None) -> Any:
        """Fail, unless the record is to fail."""
        if not self.in_record:
            raise self.error
        return super().report(actor, report_id, version)

    def record(self, actor: Actor, accesses: Sequence[Access]) -> None:
        """Fail, if the record is to fail."""
        if self.in_record:
            raise self.error
        super().record(actor, accesses)


@pytest.mark.parametrize("in_record", [False, True])
def test_a_fault_says_nothing_of_anybody(desk: Desk, in_record: bool) -> None:
    """A defect is a 500 with an OperationOutcome; neither it nor the log repeats the error's words."""
    desk.client.router = FhirRouter(BrokenStore(desk.ward, ValueError("Testperson, Tina"), in_record=in_record))
    with capture_logs() as logs:
        reply = desk.client.ask(desk.path)
    assert reply.status == 500
    assert reply.json["issue"][0]["code"] == "exception"
    assert "Testperson" not in reply.response.body.decode()
    assert logs[0]["error_type"] == "ValueError"
    assert Path(__file__).name in logs[0]["error_at"]
    assert "Testperson" not in json.dumps(logs)


def test_without_a_record_there_is_no_answer(desk: Desk) -> None:
    """When the trail cannot be written, the report is not shown: the failure is answered instead."""
    error = Unavailable("database-unavailable", "The database does not answer or is locked.")
    desk.client.router = FhirRouter(BrokenStore(desk.ward, error, in_record=True))
    with capture_logs():
        reply = desk.client.ask(desk.path)
    assert reply.status == 503
    assert reply.json["issue"][0]["code"] == "transient"


def test_every_route_is_documented() -> None:
    """Each resource of the table has its words, and no words are of a resource without routes."""
    assert {route.resource for route in ROUTES if route.resource} == set(DOCUMENTATION)


_DESK = Desk()
_NAMES = st.sampled_from(["_id", "date", "status", "_count", "_offset", "patient", "code", "identifier", "_sort", "_x"])
_PARTS = st.sampled_from(["DiagnosticReport", "Provenance", "Device", "_history", "_search", "$sign", "1", "metadata"])


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "x"]),
    path=st.lists(_PARTS | st.text(max_size=5), max_size=4).map("/".join),
    query=st.lists(st.tuples(_NAMES | st.text(max_size=5), st.text(st.characters(), max_size=12)), max_size=4),
    headers=st.dictionaries(
        st.sampled_from(["Accept", "If-None-Match", "Prefer", "Content-Type", "X-Request-Id"]), st.text(max_size=20)
    ),
    body=st.binary(max_size=20),
)
def test_nothing_that_a_client_sends_is_our_fault(
    method: str, path: str, query: list[tuple[str, str]], headers: dict[str, str], body: bytes
) -> None:
    """Any method, path, query, headers and body get an answer below 500, and every error is an OperationOutcome."""
    request = FhirRequest(method, path, tuple(query), headers, body, EHR, BASE)
    response = _DESK.client.router.handle(request)
    assert 200 <= response.status < 500
    if response.body:
        resource = json.loads(response.body)
        check(resource)
        assert (resource["resourceType"] == "OperationOutcome") == (response.status >= 400)
