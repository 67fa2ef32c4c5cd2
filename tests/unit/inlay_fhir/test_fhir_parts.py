import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest

from inlay_core.application import signing
from inlay_core.domain.audit import Tag
from inlay_core.domain.labels import AI_DRAFT
from inlay_core.domain.report import Report
from inlay_core.printing import Printed, Printer
from inlay_fhir.site import FhirSite, Pairs
from inlay_testkit.core import DRAFT, MONDAY, RADIOLOGIST, Ward
from inlay_testkit.fhir import BASE, FhirClient, Reply
from inlay_testkit.memory import Memory

PRINTER = Printer()
JSON = {"Content-Type": "application/fhir+json"}


def pdf(title: str, notice: str, facts: Pairs, sections: Pairs) -> bytes | None:
    """The form that the site makes."""
    return PRINTER.page(Printed(title, notice, facts, sections))


class Desk:
    """Two reports, the first one drafted, and a client of a site that makes PDFs."""

    def __init__(self) -> None:
        self.ward = Ward(Memory()())
        self.ward.order("1", scheduled_at=MONDAY)
        self.report: Report = self.ward.draft(studied_at=MONDAY - timedelta(hours=3))
        self.ward.clock.advance(60)
        self.other: Report = self.ward.order("2", scheduled_at=MONDAY - timedelta(days=1))
        self.client = FhirClient(self.ward, FhirSite(zone=ZoneInfo("Europe/Berlin"), pdf=pdf))

    def batch(self, *entries: Any, **bundle: Any) -> Reply:
        """The answer to a batch."""
        body = {"resourceType": "Bundle", "type": "batch", "entry": list(entries)} | bundle
        return self.client.ask("/", method="POST", headers=JSON, body=json.dumps(body).encode())


@pytest.fixture
def desk() -> Desk:
    """A fresh one."""
    return Desk()


def forms(resource: dict[str, Any]) -> dict[str, bytes]:
    """The presented forms by their media types; `check` has compared size and hash already."""
    found = {form["contentType"]: base64.b64decode(form["data"]) for form in resource["presentedForm"]}
    assert len(found) == len(resource["presentedForm"])
    return found


def test_a_report_is_presented_as_text_html_and_pdf(desk: Desk) -> None:
    """All three say that it is a draft and whose it is where they have room; the text is exact."""
    shown = forms(desk.client.ask(f"/DiagnosticReport/{desk.report.id}").json)
    assert list(shown) == ["text/plain; charset=utf-8", "text/html; charset=utf-8", "application/pdf"]
    assert b"The heart is normal. No pleural effusion.\nNo pneumothorax. " in shown["text/plain; charset=utf-8"]
    html = shown["text/html; charset=utf-8"].decode()
    assert AI_DRAFT in html
    assert "Tina Testperson, MRN1" in html
    assert "2026-03-02 06:00 CET" in html
    assert "version 3" in html
    assert shown["application/pdf"].startswith(b"%PDF-")


def test_words_cannot_bring_markup_into_the_html(desk: Desk) -> None:
    """Whatever a report says, its HTML form has our elements only."""
    evil = replace(DRAFT, texts=(("findings", "<script>alert(1)</script> & <img src=x>"),))
    report = desk.ward.draft(evil)
    html = forms(desk.client.ask(f"/DiagnosticReport/{report.id}").json)["text/html; charset=utf-8"].decode()
    page = html.removeprefix("<!DOCTYPE html>").replace('"utf-8">', '"utf-8"/>')
    tags = {element.tag for element in ET.fromstring(page).iter()}  # noqa: S314 (our own text, without entities)
    assert tags <= {"html", "head", "meta", "title", "body", "h1", "h2", "p", "strong", "table", "tr", "th", "td"}


def test_a_signed_form_names_its_signer(desk: Desk) -> None:
    """The draft notice goes with the signature, and the name of the clinician comes."""
    signing.sign(*desk.ward.trio, RADIOLOGIST, desk.report.id, expected_version=3)
    html = forms(desk.client.ask(f"/DiagnosticReport/{desk.report.id}").json)["text/html; charset=utf-8"].decode()
    assert AI_DRAFT not in html
    assert f"{RADIOLOGIST.name}, 2026-03-02 09:01 CET" in html


def test_the_effective_time_is_that_of_the_images(desk: Desk) -> None:
    """The study's own time where its header told it, else the one that the order plans; the search agrees."""
    own = desk.client.ask(f"/DiagnosticReport/{desk.report.id}").json
    assert own["effectiveDateTime"] == "2026-03-02T05:00:00Z"
    assert desk.client.ask(f"/DiagnosticReport/{desk.other.id}").json["effectiveDateTime"] == "2026-03-01T08:00:00Z"
    assert desk.client.ask("/DiagnosticReport", ("date", "2026-03-02T05:00")).ids == [desk.report.id]
    assert desk.client.ask("/DiagnosticReport", ("date", "2026-03-02T08:00")).ids == []


@pytest.mark.parametrize(
    ("sort", "first"), [("date", "other"), ("-date", "report"), ("_lastUpdated", "report"), ("-_lastUpdated", "other")]
)
def test_results_are_sorted_as_asked(desk: Desk, sort: str, first: str) -> None:
    """By the study's time or the last change, in both directions, and the self link says so."""
    reply = desk.client.ask("/DiagnosticReport", ("_sort", sort))
    assert reply.ids[0] == getattr(desk, first).id
    assert f"_sort={sort}" in (reply.link("self") or "")


@pytest.mark.parametrize(
    ("query", "present", "absent"),
    [
        (
            ("_summary", "true"),
            {"status", "code", "subject", "effectiveDateTime"},
            {"text", "presentedForm", "conclusion"},
        ),
        (("_summary", "text"), {"text", "status", "code"}, {"presentedForm", "conclusion", "effectiveDateTime"}),
        (("_summary", "data"), {"presentedForm", "conclusion"}, {"text"}),
        (
            ("_elements", "conclusion,DiagnosticReport.issued"),
            {"conclusion", "status", "code"},
            {"text", "presentedForm"},
        ),
    ],
)
def test_parts_of_a_resource_are_tagged(
    desk: Desk, query: tuple[str, str], present: set[str], absent: set[str]
) -> None:
    """`_summary` and `_elements` keep what is mandatory, in reads and in searches, and say that something was cut."""
    one = desk.client.ask(f"/DiagnosticReport/{desk.report.id}", query).json
    found = desk.client.ask("/DiagnosticReport", ("_id", desk.report.id), query).json["entry"][0]["resource"]
    for resource in (one, found):
        assert present <= set(resource)
        assert not absent & set(resource)
        assert resource["meta"]["tag"][0]["code"] == "SUBSETTED"
        assert resource["meta"]["security"][0]["code"] == "AIAST"
    whole = desk.client.ask(f"/DiagnosticReport/{desk.report.id}", ("_summary", "false")).json
    assert "tag" not in whole["meta"]


def test_the_history_of_the_type_has_every_version_of_every_report(desk: Desk) -> None:
    """Newest first, in linked pages, each version with the request that would have made it; each one is recorded."""
    versions: list[str] = []
    reply = desk.client.ask("/DiagnosticReport/_history", ("_count", "3"))
    assert (reply.json["type"], reply.json["total"]) == ("history", 4)
    while True:
        versions += [f"{e['resource']['id']}/{e['resource']['meta']['versionId']}" for e in reply.json["entry"]]
        following = reply.link("next")
        if following is None:
            break
        pairs = parse_qsl(following.partition("?")[2])
        reply = desk.client.ask("/DiagnosticReport/_history", *pairs)
    first, second = desk.report.id, desk.other.id
    assert versions == [f"{second}/1", f"{first}/3", f"{first}/2", f"{first}/1"]
    assert [a.detail["interaction"] for a in desk.client.store.accesses] == ["history-type"] * 4
    since = desk.client.ask("/DiagnosticReport/_history", ("_since", "2026-03-02T08:00:30Z"))
    assert since.json["total"] == 1


def test_a_batch_answers_each_entry_by_itself(desk: Desk) -> None:
    """Reads, searches, conditions and failures stand beside each other, in the order of the questions."""
    path = f"DiagnosticReport/{desk.report.id}"
    reply = desk.batch(
        {"request": {"method": "GET", "url": path}},
        {"request": {"method": "GET", "url": f"/{path}", "ifNoneMatch": 'W/"3"'}},
        {"request": {"method": "GET", "url": f"{BASE}/DiagnosticReport?status=partial&_count=1"}},
        {"request": {"method": "GET", "url": "Patient/unknown"}},
        {"request": {"method": "POST", "url": "ServiceRequest"}},
        {"request": {"method": "GET", "url": "https://elsewhere.test/Patient/1"}},
        {"nothing": 1},
    )
    assert reply.json["type"] == "batch-response"
    statuses = [entry["response"]["status"] for entry in reply.json["entry"]]
    assert statuses == ["200", "304", "200", "404", "405", "400", "400"]
    assert reply.json["entry"][0]["resource"]["id"] == desk.report.id
    assert reply.json["entry"][0]["response"]["etag"] == 'W/"3"'
    assert reply.json["entry"][2]["resource"]["total"] == 1
    assert reply.json["entry"][3]["response"]["outcome"]["issue"][0]["code"] == "not-found"
    recorded = [access.tag for access in desk.client.store.accesses]
    assert recorded.count(Tag.READER_REPORT_READ) == 3
    assert recorded.count(Tag.READER_ACCESS_REFUSED) == 1


def test_what_is_no_batch_is_refused(desk: Desk) -> None:
    """A transaction, too many entries, another resource, other media and broken JSON are told apart."""
    assert desk.batch(type="transaction").status == 400
    assert desk.batch(*[{}] * 51).status == 400
    assert desk.batch(entry=3).status == 400
    for headers, body, status in (
        (JSON, b'{"resourceType":"Patient"}', 400),
        (JSON, b"{", 400),
        (JSON, b'{"a":"\\u0000"}', 400),
        (JSON, b"[" * 100, 400),
        (JSON, b" " * 1_048_577, 413),
        ({"Content-Type": "application/fhir+xml"}, b"<Bundle/>", 415),
        ({}, b"{}", 415),
    ):
        assert desk.client.ask("/", method="POST", headers=headers, body=body).status == status
