from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inlay_core.application import queries, signing
from inlay_core.domain.report import Report
from inlay_fhir import parameters
from inlay_fhir.outcome import Refusal
from inlay_testkit.core import MONDAY, RADIOLOGIST, Ward
from inlay_testkit.fhir import BASE, FhirClient
from inlay_testkit.memory import Memory


class Ehr:
    """Two reports, the first one drafted, the second one not; they are `one` and `two`, newest last."""

    def __init__(self) -> None:
        self.ward = Ward(Memory()())
        self.one: Report = self.ward.order("1", scheduled_at=MONDAY, procedure_system="L", procedure_code="CXR")
        self.ward.draft()
        self.ward.clock.advance(3600)
        self.two: Report = self.ward.order("2", scheduled_at=MONDAY + timedelta(days=1), accession_assigner="1.2.3")
        self.client = FhirClient(self.ward)
        self.order = queries.read_order(self.ward.uow, RADIOLOGIST, self.one.order_id)

    def found(self, *query: tuple[str, str]) -> set[str]:
        """Which of the two a search finds."""
        reply = self.client.ask("/DiagnosticReport", *query)
        assert reply.status == 200, reply.json
        assert reply.json["total"] == len(reply.ids)
        return {"one" if i == self.one.id else "two" for i in reply.ids}


@pytest.fixture(scope="module")
def ehr() -> Ehr:
    """Two reports, shared: nothing here changes them."""
    return Ehr()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("_id", "{one}", "one"),
        ("_id", "{one},{two}", "one two"),
        ("_id", "unknown", ""),
        ("patient", "{patient}", "one"),
        ("patient", "Patient/{patient}", "one"),
        ("patient", f"{BASE}/Patient/{{patient}}", "one"),
        ("patient", "https://elsewhere.test/fhir/Patient/{patient}", ""),
        ("patient", "Group/{patient}", ""),
        ("subject", "Patient/{patient}", "one"),
        ("subject:Patient", "{patient}", "one"),
        ("patient.identifier", "MRN1", "one"),
        ("patient.identifier", "urn:x-inlay:assigner:HOSP|MRN1", "one"),
        ("patient.identifier", "urn:x-inlay:assigner:OTHER|MRN1", ""),
        ("patient.identifier", "|MRN1", ""),
        ("patient:identifier", "MRN1,MRN2", "one two"),
        ("subject:Patient.identifier", "MRN2", "two"),
        ("identifier", "A1", "one"),
        ("identifier", "urn:oid:1.2.3|A2", "two"),
        ("identifier", "urn:x-inlay:assigner:RIS|A2", ""),
        ("based-on", "ServiceRequest/{order}", "one"),
        ("basedOn", "{order}", "one"),
        ("based-on.identifier", "A1", "one"),
        ("basedOn:identifier", "urn:oid:1.2.3|A2", "two"),
        ("based-on:ServiceRequest.identifier", "A2", "two"),
        ("imagingStudy", "ImagingStudy/1.2.826.0.1.1", "one"),
        ("imaging-study.identifier", "urn:dicom:uid|urn:oid:1.2.826.0.1.2", "two"),
        ("status", "partial", "one"),
        ("status", "registered,partial", "one two"),
        ("status", "http://hl7.org/fhir/diagnostic-report-status|registered", "two"),
        ("status", "http://example.org|registered", ""),
        ("status", "no-such-status", ""),
        ("category", "LP29684-5", "one two"),
        ("category", "http://terminology.hl7.org/CodeSystem/v2-0074|RAD", "one two"),
        ("category", "LAB", ""),
        ("category", "http://loinc.org|RAD", ""),
        ("code", "CXR", "one"),
        ("code", "urn:x-inlay:code-system:L|CXR", "one"),
        ("code", "http://loinc.org|36643-5", "two"),
        ("code", "http://loinc.org|CXR", ""),
        ("code", "18748-4", ""),
        ("date", "2026-03-02", "one"),
        ("date", "gt2026-03-02", "two"),
        ("date", "ge2026-03", "one two"),
        ("date", "sa2026-03-02T08:00:00Z", "two"),
        ("date", "2026-03-02T09:00:00 01:00", "one"),
        ("issued", "ge2000", ""),
        ("_lastUpdated", "lt2026-03-02T08:30:00Z", "one"),
        ("_lastUpdated", "ge2026-03-02T08:30Z", "two"),
    ],
)
def test_each_parameter_finds_what_it_should(ehr: Ehr, name: str, value: str, expected: str) -> None:
    """Values in every accepted form find the report, values of others do not."""
    filled = value.format(one=ehr.one.id, two=ehr.two.id, patient=ehr.order.patient.id, order=ehr.order.id)
    assert ehr.found((name, filled)) == set(expected.split())


def test_signed_reports_are_found_by_their_time() -> None:
    """`issued` is the time of sign-off."""
    ehr = Ehr()
    ehr.ward.clock.advance(60)
    signing.sign(*ehr.ward.trio, RADIOLOGIST, ehr.one.id, expected_version=3)
    assert ehr.found(("issued", "ge2026-03-02T09:00:30Z")) == {"one"}
    assert ehr.found(("issued", "lt2026-03-02T09:00:30Z")) == set()
    assert ehr.found(("status", "final")) == {"one"}


def test_parameters_are_all_required(ehr: Ehr) -> None:
    """Several parameters narrow, a repeated one as well: values that exclude each other find nothing."""
    assert ehr.found(("patient.identifier", "MRN1"), ("status", "partial")) == {"one"}
    assert ehr.found(("patient.identifier", "MRN1"), ("status", "registered")) == set()
    assert ehr.found(("status", "registered,partial"), ("status", "partial,final")) == {"one"}
    assert ehr.found(("identifier", "A1"), ("based-on.identifier", "urn:x-inlay:assigner:RIS|A1")) == {"one"}
    assert ehr.found(("identifier", "A1"), ("based-on.identifier", "A2")) == set()
    assert ehr.found(("_lastUpdated", "ge2026"), ("_lastUpdated", "lt2026-03-02T08:30:00Z")) == {"one"}


def test_pages_join_to_the_whole(ehr: Ehr) -> None:
    """Following `next` from the first page shows each match once, and `previous` leads back."""
    seen = []
    reply = ehr.client.ask("/DiagnosticReport", ("_count", "1"), ("category", "RAD"))
    while True:
        seen += reply.ids
        url = reply.link("next")
        if url is None:
            break
        reply = ehr.client.ask("/DiagnosticReport", *parse_qsl(urlsplit(url).query))
    assert seen == [ehr.two.id, ehr.one.id]
    assert reply.link("previous") == f"{BASE}/DiagnosticReport?_count=1&category=RAD"
    assert reply.json["total"] == 2


def test_the_self_link_repeats_what_was_obeyed(ehr: Ehr) -> None:
    """Unknown parameters are ignored and missing from the self link, known ones are in it, encoded."""
    reply = ehr.client.ask(
        "/DiagnosticReport", ("identifier", "A 1"), ("colour", "red"), ("_sort", "colour"), ("status", "")
    )
    assert reply.link("self") == f"{BASE}/DiagnosticReport?identifier=A%201"


def test_strict_handling_refuses_what_is_unknown(ehr: Ehr) -> None:
    """With `Prefer: handling=strict` an unknown parameter or sort is 400, and its value is not repeated."""
    for query in (("colour", "crimson"), ("_sort", "crimson"), ("_include", "crimson")):
        reply = ehr.client.ask("/DiagnosticReport", query, headers={"Prefer": "return=minimal, handling=strict"})
        assert reply.status == 400
        assert "crimson" not in reply.response.body.decode()
    accepted = ehr.client.ask("/DiagnosticReport", ("status", "partial"), headers={"prefer": "handling=strict"})
    assert accepted.status == 200


@pytest.mark.parametrize(
    "query",
    [
        ("date", "last-week"),
        ("date", "2026-13"),
        ("date", "9999"),
        ("date", "ap2026"),
        ("date", "2026,2025"),
        ("_lastUpdated", "2026-02-30"),
        ("_count", "-1"),
        ("_count", "many"),
        ("identifier", "urn:oid:1.2.3|"),
        ("status:not", "final"),
        ("patient:missing", "true"),
        ("identifier", "a\x00b"),
        ("identifier", "a\ud800b"),
    ],
)
def test_values_that_cannot_be_read_are_refused(ehr: Ehr, query: tuple[str, str]) -> None:
    """A known parameter with a value or modifier that we cannot obey is 400 in any handling: never a wider answer."""
    reply = ehr.client.ask("/DiagnosticReport", query)
    assert reply.status == 400
    assert query[1] not in reply.json["issue"][0]["diagnostics"]


def test_a_count_is_bounded_and_zero_gives_the_total(ehr: Ehr) -> None:
    """`_count=0` and `_summary=count` give the total without entries; a huge count is answered with a page."""
    for query in (("_count", "0"), ("_summary", "count")):
        reply = ehr.client.ask("/DiagnosticReport", query)
        assert reply.json["total"] == 2
        assert "entry" not in reply.json
    assert len(ehr.client.ask("/DiagnosticReport", ("_count", "999999")).ids) == 2


def test_the_order_can_be_turned(ehr: Ehr) -> None:
    """Newest change first unless asked for the oldest first."""
    assert ehr.client.ask("/DiagnosticReport", ("_sort", "_lastUpdated")).ids == [ehr.one.id, ehr.two.id]
    assert ehr.client.ask("/DiagnosticReport", ("_sort", "-_lastUpdated")).ids == [ehr.two.id, ehr.one.id]


def test_a_search_can_be_posted(ehr: Ehr) -> None:
    """Identifiers may travel in a form, so that no log of paths can hold them; other media types are 415."""
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    body = b"patient.identifier=MRN1&_count=5"
    posted = ehr.client.ask("/DiagnosticReport/_search", method="POST", headers=form, body=body)
    assert posted.ids == [ehr.one.id]
    both = ehr.client.ask("/DiagnosticReport/_search", ("status", "final"), method="POST", headers=form, body=body)
    assert both.ids == []
    json = {"content-type": "application/json"}
    assert ehr.client.ask("/DiagnosticReport/_search", method="POST", headers=json, body=b"{}").status == 415
    for broken in (b"\xff=1", b"a=%ff", b"&".join([b"a=1"] * 300)):
        assert ehr.client.ask("/DiagnosticReport/_search", method="POST", headers=form, body=broken).status == 400


def test_related_resources_come_along(ehr: Ehr) -> None:
    """Includes add order, patient, study and Provenance once each, marked as such; the total counts matches only."""
    reply = ehr.client.ask(
        "/DiagnosticReport",
        ("_id", ehr.one.id),
        ("_include", "DiagnosticReport:patient"),
        ("_include", "DiagnosticReport:subject"),
        ("_include", "DiagnosticReport:based-on"),
        ("_include", "DiagnosticReport:imaging-study"),
        ("_revinclude", "Provenance:target"),
    )
    included = [e["resource"]["resourceType"] for e in reply.json["entry"] if e["search"]["mode"] == "include"]
    assert sorted(included) == ["ImagingStudy", "Patient", "Provenance", "ServiceRequest"]
    assert reply.json["total"] == 1
    for entry in reply.json["entry"]:
        assert ehr.client.ask(entry["fullUrl"].removeprefix(BASE)).json["id"] == entry["resource"]["id"]


@given(st.datetimes(datetime(1, 1, 2), datetime(9998, 12, 30)), st.sampled_from([4, 7, 10, 16, 19, 23, 26]))  # noqa: DTZ001
def test_a_date_lies_in_the_period_that_its_beginning_names(moment: datetime, length: int) -> None:
    """However few digits of a moment are given, the period they stand for begins at or before it and ends after it."""
    text = moment.isoformat(timespec="microseconds")[:length]
    bound = parameters.bound("date", text)
    assert bound.start <= moment.replace(tzinfo=UTC) < bound.end


@given(st.lists(st.text(min_size=1).filter(lambda t: not t.endswith("\\")), min_size=1), st.text(min_size=1))
@example(values=["0"], system="\\")
def test_escaped_separators_belong_to_the_value(values: list[str], system: str) -> None:
    """Commas, bars and backslashes that were escaped come back as they were, one alternative per value."""

    def escaped(text: str) -> str:
        return "".join("\\" + c if c in "\\,|$" else c for c in text)

    joined = ",".join(f"{escaped(system)}|{escaped(value)}" for value in values)
    tokens = [parameters.token("x", text) for text in parameters.alternatives(joined)]
    assert [(token.system, token.code) for token in tokens] == [(system, value) for value in values]


@given(st.text(max_size=30))
def test_reading_a_date_ends_in_a_bound_or_a_refusal(text: str) -> None:
    """No text makes the reader of dates fail in another way."""
    with suppress(Refusal):
        bound = parameters.bound("date", text)
        assert bound.start < bound.end
