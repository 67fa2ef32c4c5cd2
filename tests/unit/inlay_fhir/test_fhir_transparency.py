import base64
from dataclasses import replace
from typing import Any

import pytest

from inlay_core.application import editing, signing
from inlay_core.domain.audit import Tag
from inlay_core.domain.edits import FragmentEdit, SectionEdit
from inlay_core.domain.report import Report
from inlay_testkit.core import AUDITOR, EHR, RADIOLOGIST, Ward
from inlay_testkit.fhir import FhirClient
from inlay_testkit.memory import Memory

INLINE = "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-inline-sec-label"


@pytest.fixture
def ward() -> Ward:
    """An empty one."""
    return Ward(Memory()())


@pytest.fixture
def ehr(ward: Ward) -> FhirClient:
    """Its client."""
    return FhirClient(ward)


def labels(resource: dict[str, Any]) -> tuple[set[str], set[str]]:
    """(security codes of the whole, elements with an inline label of AIAST)."""
    whole = {label["code"] for label in resource["meta"].get("security", [])}
    parts = {
        "text": resource.get("text"),
        "conclusion": resource.get("_conclusion"),
        "presentedForm": resource.get("presentedForm", [None])[0],
    }
    marked = set()
    for name, element in parts.items():
        for extension in (element or {}).get("extension", []):
            assert extension["url"] == INLINE
            assert extension["valueCoding"]["code"] == "AIAST"
            marked.add(name)
    return whole, marked


def paths(ehr: FhirClient, report: Report) -> list[str]:
    """The elements that the Provenance of a version says the model answers for."""
    provenance = ehr.ask(f"/Provenance/{report.id}.{report.version}").json
    references = {target["reference"] for target in provenance["target"]}
    assert references == {f"DiagnosticReport/{report.id}/_history/{report.version}"}
    return [target["extension"][0]["valueString"] for target in provenance["target"] if "extension" in target]


def edited(ward: Ward, report: Report, *names: str) -> Report:
    """The report after a clinician locked every fragment of these sections."""
    sections = [section for section in report.sections if section.name in names]
    edits = [SectionEdit(s.name, tuple(FragmentEdit(f.id, None, True) for f in s.fragments)) for s in sections]
    return editing.put_fragments(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version, edits=edits)


def test_labels_shrink_as_a_clinician_verifies(ward: Ward, ehr: FhirClient) -> None:
    """Draft: everything; impression locked: no more the conclusion; all locked: no element; signed: no label at all."""
    drafted = ward.drafted()
    opened = editing.open_report(*ward.trio, RADIOLOGIST, drafted.id, expected_version=3)

    def shown(report: Report) -> tuple[set[str], set[str]]:
        return labels(ehr.ask(f"/DiagnosticReport/{report.id}").json)

    everything = {"text", "conclusion", "presentedForm"}
    assert shown(opened) == ({"AIAST", "PROCESSINLINELABEL"}, everything)
    assert paths(ehr, opened) == [f"DiagnosticReport.{name}" for name in ("text", "conclusion", "presentedForm")]
    concluded = edited(ward, opened, "impression")
    assert shown(concluded) == ({"AIAST", "PROCESSINLINELABEL"}, everything - {"conclusion"})
    assert paths(ehr, concluded) == ["DiagnosticReport.text", "DiagnosticReport.presentedForm"]
    verified = edited(ward, concluded, "findings")
    assert shown(verified) == ({"AIAST"}, set())
    assert paths(ehr, verified) == []
    signed = signing.sign(*ward.trio, RADIOLOGIST, verified.id, expected_version=verified.version)
    assert shown(signed) == (set(), set())


def test_each_version_keeps_the_labels_that_it_had(ward: Ward, ehr: FhirClient) -> None:
    """A signature does not reach back: the draft's version is labelled for ever."""
    drafted = ward.drafted()
    signing.sign(*ward.trio, RADIOLOGIST, drafted.id, expected_version=3)
    old = ehr.ask(f"/DiagnosticReport/{drafted.id}/_history/3").json
    assert labels(old) == ({"AIAST", "PROCESSINLINELABEL"}, {"text", "conclusion", "presentedForm"})


def events(ward: Ward, ehr: FhirClient, tag: Tag) -> list[dict[str, Any]]:
    """The AuditEvents with that tag, as an auditor reads them."""
    with ward.uow as uow:
        found = [event.id for event in uow.audit.unsealed() if event.tag is tag]
    return [ehr.ask(f"/AuditEvent/{identity}", actor=AUDITOR).json for identity in found]


def test_a_reading_has_both_ends_the_record_and_one_patient(ward: Ward, ehr: FhirClient) -> None:
    """BALP: the server is the source of a read and the client its destination; the patient stands there once."""
    report = ward.drafted()
    ehr.ask(f"/DiagnosticReport/{report.id}", headers={"X-Request-Id": "r-1"})
    (event,) = events(ward, ehr, Tag.READER_REPORT_READ)
    assert (event["subtype"][0]["code"], event["action"], event["outcome"]) == ("read", "R", "0")
    ends = {agent["type"]["coding"][0]["code"]: agent["who"]["identifier"]["value"] for agent in event["agent"]}
    assert ends == {"110152": EHR.id, "110153": "inlay"}
    assert [agent["requestor"] for agent in event["agent"]] == [True, False]
    targets = [entity["what"].get("reference") for entity in event["entity"]]
    with ward.uow as uow:
        order = uow.orders.get(report.order_id)
    assert order is not None
    assert targets == [f"DiagnosticReport/{report.id}/_history/3", f"Patient/{order.patient.id}", None]
    assert event["entity"][2]["what"]["identifier"]["value"] == "r-1"


def test_a_person_is_an_agent_of_their_own(ward: Ward, ehr: FhirClient) -> None:
    """Who sits at the screen is the requestor, beside the two ends."""
    report = ward.drafted()
    ehr.ask(f"/DiagnosticReport/{report.id}", actor=RADIOLOGIST)
    (event,) = events(ward, ehr, Tag.READER_REPORT_READ)
    assert [agent["requestor"] for agent in event["agent"]] == [False, False, True]
    assert event["agent"][2]["who"]["display"] == RADIOLOGIST.name


def test_a_search_is_kept_without_its_values(ward: Ward, ehr: FhirClient) -> None:
    """The query entity has the names of the parameters in base64; what was looked for is nobody's business."""
    ward.drafted()
    ehr.ask("/DiagnosticReport", ("patient.identifier", "MRN1"), ("status", "partial"))
    (event,) = events(ward, ehr, Tag.READER_REPORT_SEARCHED)
    (query,) = [entity["query"] for entity in event["entity"] if "query" in entity]
    assert base64.b64decode(query) == b"DiagnosticReport?patient.identifier=&status="
    assert event["entity"][0]["role"]["code"] == "24"


@pytest.mark.parametrize(
    ("path", "query", "headers", "status"),
    [
        ("/DiagnosticReport/unknown", (), {}, 404),
        ("/AuditEvent/unknown", (), {}, 403),
        ("/DiagnosticReport", (("date", "soon"),), {}, 400),
        ("/DiagnosticReport", (), {"Accept": "application/fhir+xml"}, 406),
        ("/Patient", (), {}, 400),
    ],
)
def test_every_failure_is_recorded(
    ward: Ward,
    ehr: FhirClient,
    path: str,
    query: tuple[tuple[str, str], ...],
    headers: dict[str, str],
    status: int,
) -> None:
    """What was asked for in vain is in the trail with its status and who asked, and not what the id was."""
    assert ehr.ask(path, *query, headers=headers).status == status
    (event,) = events(ward, ehr, Tag.READER_ACCESS_REFUSED)
    assert event["outcome"] == "4"
    assert event["agent"][0]["who"]["identifier"]["value"] == EHR.id
    details = {detail["type"]: detail["valueString"] for detail in event["entity"][0]["detail"]}
    assert details["status"] == str(status)
    assert "unknown" not in str(event)


def test_a_fault_of_ours_is_a_serious_failure(ward: Ward, ehr: FhirClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcome 8 is what an auditor looks for first."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    report = ward.drafted()
    monkeypatch.setattr(ehr.store, "report", broken)
    assert ehr.ask(f"/DiagnosticReport/{report.id}").status == 500
    (event,) = events(ward, ehr, Tag.READER_ACCESS_REFUSED)
    assert event["outcome"] == "8"


def test_a_create_turns_the_ends_round(ward: Ward, ehr: FhirClient) -> None:
    """Data come from the client then: it is the source."""
    access = replace(ehr_access(), detail={"interface": "fhir", "interaction": "create", "resource": "ServiceRequest"})
    ehr.store.record(EHR, [access])
    (event,) = events(ward, ehr, Tag.READER_ORDER_READ)
    ends = {agent["type"]["coding"][0]["code"]: agent["who"]["identifier"]["value"] for agent in event["agent"]}
    assert ends == {"110153": EHR.id, "110152": "inlay"}
    assert (event["subtype"][0]["code"], event["action"]) == ("create", "C")


def ehr_access() -> Any:
    """An access as the router records it."""
    from inlay_core.domain.audit import Kind
    from inlay_fhir.store import Access

    return Access(Tag.READER_ORDER_READ, (Kind.ORDER, "order-1"))
