import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from inlay_core.application import drafting, signing
from inlay_core.application.ports import Action, Generated, ReportRow
from inlay_core.domain.edits import FragmentEdit, SectionEdit
from inlay_core.domain.identity import Actor
from inlay_core.domain.job import Reason
from inlay_core.domain.labels import AI_DRAFT, PHANTOMS_ONLY
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.domain.order import Order, OrderStatus
from inlay_core.domain.report import Report
from inlay_fhir.mapping.diagnostic_report import diagnostic_report, fhir_status, statuses
from inlay_fhir.site import FhirSite
from inlay_testkit.core import ADMIN, AUDITOR, DRAFT, EHR, MONDAY, RADIOLOGIST, WORKER, Ward, order_command
from inlay_testkit.fhir import BASE, FhirClient, check
from inlay_testkit.memory import Memory

MODEL = "ab" * 32
RUN = {
    "model": "/srv/models/demonstration",
    "model_digest": MODEL,
    "adapter_digest": None,
    "demonstration": True,
    "seed": 7,
    "prompt_digest": "cd" * 32,
    "image_digests": ["ef" * 32],
    "context": {"style": "secret style"},
}


@pytest.fixture
def ward() -> Ward:
    """An empty one."""
    return Ward(Memory()())


@pytest.fixture
def ehr(ward: Ward) -> FhirClient:
    """The client of that ward."""
    return FhirClient(ward)


def signed(ward: Ward, report: Report) -> Report:
    """The report after sign-off, a minute and a half later."""
    ward.clock.advance(90)
    return signing.sign(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version)


def demonstration(ward: Ward) -> Report:
    """A draft by the demonstration model, with a full run record."""
    ward.order("1", scheduled_at=MONDAY - timedelta(hours=2), reason="Cough & <fever>")
    return ward.draft(replace(DRAFT, run_record=RUN))


def form(resource: dict[str, Any]) -> str:
    """The whole text of a report, as it is presented."""
    return base64.b64decode(resource["presentedForm"][0]["data"]).decode()


def test_a_draft_says_that_a_model_wrote_it(ward: Ward, ehr: FhirClient) -> None:
    """An unsigned draft is partial, labelled AIAST, with the notice in narrative and text, and names no performer."""
    report = demonstration(ward)
    resource = ehr.ask(f"/DiagnosticReport/{report.id}").json
    assert resource["status"] == "partial"
    assert [label["code"] for label in resource["meta"]["security"]] == ["AIAST", "PROCESSINLINELABEL"]
    assert f"<p><b>{AI_DRAFT} {PHANTOMS_ONLY}</b></p>" in resource["text"]["div"]
    assert form(resource).startswith(f"{AI_DRAFT} {PHANTOMS_ONLY}\n\n")
    assert "performer" not in resource
    assert "resultsInterpreter" not in resource
    assert "issued" not in resource


def test_a_draft_carries_what_the_order_says(ward: Ward, ehr: FhirClient) -> None:
    """Accession, procedure, categories, study, time and patient stand where US Core and IHE look for them."""
    report = demonstration(ward)
    resource = ehr.ask(f"/DiagnosticReport/{report.id}").json
    (accession,) = resource["identifier"]
    assert accession["type"]["coding"][0]["code"] == "ACSN"
    assert accession["value"] == "A1"
    assert resource["code"]["coding"] == [{"system": "http://loinc.org", "code": "36643-5"}]
    assert {c["coding"][0]["code"] for c in resource["category"]} == {"LP29684-5", "RAD"}
    assert resource["effectiveDateTime"] == "2026-03-02T06:00:00Z"
    assert resource["imagingStudy"] == [{"reference": "ImagingStudy/1.2.826.0.1.1"}]
    assert resource["conclusion"] == "No acute findings."
    for reference in (resource["basedOn"][0], resource["subject"], resource["imagingStudy"][0]):
        assert ehr.ask("/" + reference["reference"]).status == 200


def test_the_presented_form_holds_the_stored_words(ward: Ward, ehr: FhirClient) -> None:
    """Each section's text stands in the presented form exactly as it is stored, line breaks and blanks included."""
    report = demonstration(ward)
    text = form(ehr.ask(f"/DiagnosticReport/{report.id}").json)
    for section in report.sections:
        assert f"\n{section.text}" in text


def test_a_signature_changes_who_answers_for_it(ward: Ward, ehr: FhirClient) -> None:
    """After sign-off: final, the label and the draft notice gone, the signer as interpreter, issued at that instant."""
    report = signed(ward, demonstration(ward))
    resource = ehr.ask(f"/DiagnosticReport/{report.id}").json
    assert resource["status"] == "final"
    assert "security" not in resource["meta"]
    assert resource["issued"] == "2026-03-02T08:01:30Z"
    (signer,) = resource["resultsInterpreter"]
    assert signer["display"] == "Dr. Ada Reader"
    assert {who["type"] for who in resource["performer"]} == {"Practitioner"}
    assert AI_DRAFT not in resource["text"]["div"] + form(resource)
    assert PHANTOMS_ONLY in resource["text"]["div"]
    assert PHANTOMS_ONLY in form(resource)


def test_drafts_of_a_site_may_be_preliminary(ward: Ward) -> None:
    """The setting changes the status of drafts and what a search for it finds, nothing else."""
    report = demonstration(ward)
    client = FhirClient(ward, FhirSite(draft_status="preliminary"))
    assert client.ask(f"/DiagnosticReport/{report.id}").json["status"] == "preliminary"
    assert client.ask("/DiagnosticReport", ("status", "preliminary")).ids == [report.id]
    assert client.ask("/DiagnosticReport", ("status", "partial")).ids == []
    signed(ward, report)
    assert client.ask(f"/DiagnosticReport/{report.id}").json["status"] == "final"


@pytest.mark.parametrize("status", Status)
def test_every_status_has_its_place_and_is_found_again(ward: Ward, status: Status) -> None:
    """A report in any status is valid FHIR, and a search for what it is shown as covers it."""
    site = FhirSite()
    report = replace(ward.drafted(), status=status)
    resource = diagnostic_report(site, ReportRow(report, _order(ward)), ())
    check(resource)
    assert resource["status"] == fhir_status(site, status)
    assert status in statuses(site, resource["status"])
    assert ("security" in resource["meta"]) == (resource["status"] not in ("final", "amended", "corrected", "appended"))


def _order(ward: Ward) -> Order:
    with ward.uow as uow:
        (order,) = uow.orders.by_accession(None, "A1")
    return order


def test_a_report_without_text_yet_is_registered(ward: Ward, ehr: FhirClient) -> None:
    """Before the draft there is nothing to present and nothing to label, and the narrative says so."""
    report = ward.order()
    resource = ehr.ask(f"/DiagnosticReport/{report.id}").json
    assert resource["status"] == "registered"
    assert "presentedForm" not in resource
    assert "security" not in resource["meta"]
    assert "No text yet" in resource["text"]["div"]


def test_an_amendment_and_a_withdrawal_are_told(ward: Ward, ehr: FhirClient) -> None:
    """An amended report is amended, a withdrawn one entered in error; nobody answers for the latter any more."""
    report = signed(ward, demonstration(ward))
    edits = [SectionEdit("impression", (FragmentEdit(text="Pneumonia."),))]
    amended = signing.amend(
        *ward.trio, RADIOLOGIST, report.id, expected_version=report.version, kind=Event.AMEND, edits=edits, reason="x"
    )
    assert ehr.ask(f"/DiagnosticReport/{report.id}").json["status"] == "amended"
    signing.retract(*ward.trio, RADIOLOGIST, report.id, expected_version=amended.version, reason="wrong patient")
    gone = ehr.ask(f"/DiagnosticReport/{report.id}").json
    assert gone["status"] == "entered-in-error"
    assert "resultsInterpreter" not in gone
    assert gone["meta"]["security"][0]["code"] == "AIAST"


def test_every_version_stays_as_it_was(ward: Ward, ehr: FhirClient) -> None:
    """History lists all versions, newest first, each with its ETag; vread gives each of them; others are 404."""
    report = signed(ward, demonstration(ward))
    history = ehr.ask(f"/DiagnosticReport/{report.id}/_history").json
    versions = [entry["resource"]["meta"]["versionId"] for entry in history["entry"]]
    assert versions == [str(n) for n in range(report.version, 0, -1)]
    assert history["type"] == "history"
    assert history["total"] == report.version
    assert history["entry"][-1]["request"]["method"] == "POST"
    for entry in history["entry"]:
        number = entry["resource"]["meta"]["versionId"]
        reply = ehr.ask(f"/DiagnosticReport/{report.id}/_history/{number}")
        assert reply.json == entry["resource"]
        assert reply.response.headers["ETag"] == entry["response"]["etag"] == f'W/"{number}"'
    for wrong in ("0", "99", "x", "9" * 30):
        assert ehr.ask(f"/DiagnosticReport/{report.id}/_history/{wrong}").status == 404


def test_history_is_paged_and_begins_where_asked(ward: Ward, ehr: FhirClient) -> None:
    """Pages of a history join to the whole, and `_since` leaves out what is older."""
    report = signed(ward, demonstration(ward))
    path = f"/DiagnosticReport/{report.id}/_history"
    first = ehr.ask(path, ("_count", "2"))
    assert len(first.json["entry"]) == 2
    assert first.link("next") == f"{BASE}{path}?_count=2&_offset=2"
    rest = ehr.ask(path, ("_count", "200"), ("_offset", "2"))
    assert len(rest.json["entry"]) == report.version - 2
    since = ehr.ask(path, ("_since", "2026-03-02T08:00:01Z"))
    assert since.json["total"] == 2  # opened and signed
    assert ehr.ask(path, ("_since", "yesterday")).status == 400


def agents(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """(type, display) of each agent."""
    return [(a["type"]["coding"][0]["code"], a["who"]["display"]) for a in provenance["agent"]]


def test_provenance_of_a_draft_names_model_and_inputs(ward: Ward, ehr: FhirClient) -> None:
    """The draft's Provenance targets its version, names the Device in the role AI, its inputs by digest and the run."""
    report = demonstration(ward)
    provenance = ehr.ask(f"/Provenance/{report.id}.{report.version}").json
    assert provenance["target"][0] == {"reference": f"DiagnosticReport/{report.id}/_history/{report.version}"}
    assert agents(provenance) == [("assembler", "Inlay worker"), ("author", "demonstration")]
    model = provenance["agent"][1]
    assert model["role"][0]["coding"][0]["code"] == "Artificial-Intelligence"
    known = [e["what"]["identifier"]["value"] for e in provenance["entity"] if "identifier" in e["what"]]
    assert known == ["ef" * 32, "cd" * 32, MODEL]
    assert provenance["entity"][0] == {
        "role": "revision",
        "what": {"reference": f"DiagnosticReport/{report.id}/_history/{report.version - 1}"},
    }
    assert provenance["entity"][-1]["what"]["reference"] == "#run-1"
    run = base64.b64decode(provenance["contained"][0]["content"][0]["attachment"]["data"]).decode()
    assert '"seed": 7' in run
    assert "secret style" not in run
    assert "signature" not in provenance


def test_provenance_of_a_signature_names_the_verifier(ward: Ward, ehr: FhirClient) -> None:
    """The signed version has a verifier with a signature, and still says which model wrote words of it."""
    report = signed(ward, demonstration(ward))
    provenance = ehr.ask(f"/Provenance/{report.id}.{report.version}").json
    assert agents(provenance) == [("verifier", "Dr. Ada Reader"), ("author", "demonstration")]
    (signature,) = provenance["signature"]
    assert signature["when"] == "2026-03-02T08:01:30Z"
    opened = ehr.ask(f"/Provenance/{report.id}.{report.version - 1}").json
    assert "signature" not in opened


def test_every_version_has_a_provenance(ward: Ward, ehr: FhirClient) -> None:
    """From the registration on each version says who made it; the first has no version before it."""
    report = signed(ward, demonstration(ward))
    first = ehr.ask(f"/Provenance/{report.id}.1").json
    assert agents(first) == [("enterer", "RIS|HOSP")]
    assert "entity" not in first
    for version in range(1, report.version + 1):
        assert ehr.ask(f"/Provenance/{report.id}.{version}").status == 200
    for wrong in (f"{report.id}.99", report.id, f"{report.id}.01", f"{report.id}.", "nobody.1"):
        assert ehr.ask(f"/Provenance/{wrong}").status == 404


def test_words_of_an_unknown_model_are_still_a_models(ward: Ward, ehr: FhirClient) -> None:
    """A run record without a digest gives an agent by name: AI is never left out for want of data."""
    report = ward.drafted()
    provenance = ehr.ask(f"/Provenance/{report.id}.{report.version}").json
    assert agents(provenance)[1] == ("author", "test")
    assert "reference" not in provenance["agent"][1]["who"]


def test_the_model_is_a_device(ward: Ward, ehr: FhirClient) -> None:
    """The Device that a Provenance names can be read; it says that the demonstration is about phantoms."""
    report = demonstration(ward)
    provenance = ehr.ask(f"/Provenance/{report.id}.{report.version}").json
    reference = provenance["agent"][1]["who"]["reference"]
    device = ehr.ask("/" + reference).json
    assert device["identifier"][0]["value"] == MODEL
    assert device["deviceName"][0]["name"] == "demonstration"
    assert device["note"] == [{"text": PHANTOMS_ONLY}]
    assert device["type"]["coding"][0]["code"] == "Artificial-Intelligence"
    for wrong in ("ab", "ac" + "ab" * 15, "ab" * 15 + "a." + "cd" * 15 + "c"):
        assert ehr.ask(f"/Device/{wrong}").status == 404


@pytest.mark.parametrize(
    ("action", "status", "expected"),
    [
        (Action.CANCEL, OrderStatus.CANCELLED, "revoked"),
        (Action.DISCONTINUE, OrderStatus.DISCONTINUED, "revoked"),
        (Action.STATUS, OrderStatus.IN_PROGRESS, "active"),
        (Action.STATUS, OrderStatus.COMPLETED, "completed"),
    ],
)
def test_an_order_is_a_service_request(
    ward: Ward, ehr: FhirClient, action: Action, status: OrderStatus, expected: str
) -> None:
    """Cancelled and discontinued orders are revoked, others active or completed; all numbers keep their types."""
    report = ward.order(reason="Cough")
    ward.receive(order_command(action=action, order_status=status, message_time=MONDAY + timedelta(minutes=1)))
    resource = ehr.ask(f"/ServiceRequest/{report.order_id}").json
    assert resource["status"] == expected
    assert resource["intent"] == "order"
    assert {i["type"]["coding"][0]["code"]: i["value"] for i in resource["identifier"]} == {"PLAC": "P1", "ACSN": "A1"}
    assert resource["reasonCode"] == [{"text": "Cough"}]


def test_a_patient_is_as_the_order_said(ward: Ward, ehr: FhirClient) -> None:
    """Record number with its type, name in parts, birth date and gender."""
    ward.order()
    patient = ehr.ask(f"/Patient/{_order(ward).patient.id}").json
    assert patient["identifier"][0]["value"] == "MRN1"
    assert patient["identifier"][0]["type"]["coding"][0]["code"] == "MR"
    assert patient["name"] == [{"text": "Tina Testperson", "family": "Testperson", "given": ["Tina"]}]
    assert (patient["birthDate"], patient["gender"]) == ("1970-01-02", "female")


def test_a_study_is_known_by_its_uid(ward: Ward, ehr: FhirClient) -> None:
    """The study's id is its UID; it is registered until a worker had its images, then available."""
    ward.order("1")
    path = "/ImagingStudy/1.2.826.0.1.1"
    study = ehr.ask(path).json
    assert study["identifier"][0] == {"system": "urn:dicom:uid", "value": "urn:oid:1.2.826.0.1.1"}
    assert study["status"] == "registered"
    ward.draft()
    assert ehr.ask(path).json["status"] == "available"
    assert ehr.ask("/ImagingStudy/1.2.3").status == 404


def test_a_job_is_a_task_for_those_who_may_read_jobs(ward: Ward, ehr: FhirClient) -> None:
    """A radiologist reads the job with its reason; the EHR is refused and learns nothing else."""
    report = ward.order()
    claimed = drafting.claim_next(*ward.trio, WORKER)
    assert claimed is not None
    path = f"/Task/{claimed.job.id}"
    assert ehr.ask(path, actor=RADIOLOGIST).json["status"] == "in-progress"
    drafting.fail_job(
        *ward.trio, WORKER, claimed.job.id, fence=claimed.job.fence, reason=Reason("no-model", "No model."), retry=False
    )
    task = ehr.ask(path, actor=ADMIN).json
    assert (task["status"], task["statusReason"]["text"]) == ("failed", "No model.")
    assert task["focus"]["reference"] == f"DiagnosticReport/{report.id}"
    refused = ehr.ask(path)
    assert refused.status == 403
    assert refused.json["issue"][0]["code"] == "forbidden"


def test_the_whole_trail_is_valid_fhir(ward: Ward, ehr: FhirClient) -> None:
    """Every event from order to signature, reads and refusals included, is a valid AuditEvent for the auditor."""
    report = signed(ward, demonstration(ward))
    ehr.ask(f"/DiagnosticReport/{report.id}", headers={"X-Request-Id": "req-1"})
    ehr.ask("/Task/nothing")
    with ward.uow as uow:
        events = [*uow.audit.unsealed()]
    assert len(events) > 12
    shown = {str(event.tag): ehr.ask(f"/AuditEvent/{event.id}", actor=AUDITOR).json for event in events}
    read = shown["reader:report:read"]
    assert (read["action"], read["outcome"]) == ("R", "0")
    assert read["entity"][0]["what"]["reference"] == f"DiagnosticReport/{report.id}/_history/{report.version}"
    assert read["entity"][-1]["what"]["identifier"]["value"] == "req-1"
    assert shown["reader:access:refused"]["outcome"] == "4"
    assert ehr.ask(f"/AuditEvent/{events[0].id}").status == 403


def test_an_order_with_little_in_it_is_still_valid(ward: Ward, ehr: FhirClient) -> None:
    """Without accession, study, procedure, name or times nothing is empty or null, and a code is still there."""
    report = ward.order(
        accession_number=None,
        study_instance_uid="not a uid",
        procedure_code=None,
        procedure_text=None,
        procedure_system=None,
        modality=None,
    )
    ward.draft(Generated({"model": "m"}, texts=(("findings", "Normal."),)))
    resource = ehr.ask(f"/DiagnosticReport/{report.id}").json
    assert resource["code"]["coding"][0]["code"] == "18748-4"
    assert not {"identifier", "imagingStudy", "effectiveDateTime", "conclusion"} & set(resource)
    assert ehr.ask(f"/ServiceRequest/{report.order_id}").status == 200


def test_the_ehr_reads_as_the_ehr(ward: Ward, ehr: FhirClient) -> None:
    """What the role ehr may read and may not is the core's table: reports yes, jobs and trail no."""
    report = demonstration(ward)
    assert ehr.ask(f"/DiagnosticReport/{report.id}", actor=EHR).status == 200
    nobody = Actor("n-1", "Nobody")
    assert ehr.ask(f"/DiagnosticReport/{report.id}", actor=nobody).status == 403
    assert ehr.ask("/DiagnosticReport", actor=nobody).status == 403
