import json
from typing import Any

import pytest

from inlay_core.application import drafting
from inlay_core.application.ports import Generated
from inlay_core.domain.identity import Actor
from inlay_core.domain.infill import (
    Candidate,
    Choice,
    Fill,
    FreeText,
    Gap,
    InfillRequest,
    InfillSection,
    LockRef,
    LockText,
)
from inlay_core.domain.job import JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import OrderStatus, Priority
from inlay_core.domain.report import Report
from inlay_fhir.http import FhirRequest
from inlay_fhir.scopes import Scopes
from inlay_testkit.core import EHR, MONDAY, RADIOLOGIST, RIS, WORKER, Ward
from inlay_testkit.fhir import BASE, FhirClient, Reply
from inlay_testkit.memory import Memory

JSON = {"Content-Type": "application/fhir+json"}
PLACER = "urn:x-inlay:assigner:RIS"
MRN = "urn:oid:1.2.3.4"
UID = "1.2.826.0.1.77"


def typed(code: str, system: str, value: str) -> dict[str, Any]:
    """An identifier of a type of table 0203."""
    kind = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": code}]}
    return {"type": kind, "system": system, "value": value}


def request(**changes: Any) -> dict[str, Any]:
    """A whole ServiceRequest."""
    body: dict[str, Any] = {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "identifier": [typed("PLAC", PLACER, "P9"), typed("ACSN", PLACER, "A9")],
        "priority": "asap",
        "code": {"coding": [{"system": "http://loinc.org", "code": "36643-5"}], "text": "Chest X-ray"},
        "subject": {"reference": "#p"},
        "occurrenceDateTime": "2026-03-02T10:00:00+01:00",
        "requester": {"identifier": {"value": "DOC7"}, "display": "Dr. Grey"},
        "reasonCode": [{"text": "Cough"}],
        "orderDetail": [{"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "DX"}]}],
        "contained": [
            {
                "resourceType": "Patient",
                "id": "p",
                "identifier": [typed("MR", MRN, "77")],
                "name": [{"family": "Sample", "given": ["Sam", "B."]}],
                "gender": "other",
                "birthDate": "1980-02-29",
            }
        ],
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


def study(**changes: Any) -> dict[str, Any]:
    """A whole ImagingStudy."""
    body: dict[str, Any] = {
        "resourceType": "ImagingStudy",
        "status": "available",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{UID}"}, typed("ACSN", PLACER, "A9")],
        "subject": {"identifier": {"system": MRN, "value": "77"}},
        "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "DX"}],
        "started": "2026-03-02T09:30:00Z",
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


class Desk:
    """An empty ward, and its clients."""

    def __init__(self) -> None:
        self.ward = Ward(Memory()())
        self.client = FhirClient(self.ward)

    def post(self, path: str, body: Any, actor: Actor = RIS, **headers: str) -> Reply:
        """Send a body; `If_None_Exist="..."` becomes that header."""
        sent = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.ask(path, method="POST", headers=sent, body=json.dumps(body).encode(), actor=actor)

    def create(self, body: Any, actor: Actor = RIS, **headers: str) -> Reply:
        """Create what the body is."""
        return self.post(f"/{body['resourceType']}", body, actor, **headers)

    def order_of(self, reply: Reply) -> Any:
        """The order that a reply is about."""
        with self.ward.uow as uow:
            return uow.orders.get(reply.json["id"])

    def job_count(self) -> int:
        """How many jobs there are."""
        with self.ward.uow as uow:
            return sum(uow.jobs.count(JobState).values())


@pytest.fixture
def desk() -> Desk:
    """A fresh one."""
    return Desk()


def test_a_service_request_becomes_an_order_with_a_draft_job(desk: Desk) -> None:
    """Everything that the resource states stands in the order; the answer is 201 with its place and version."""
    reply = desk.create(request())
    assert reply.status == 201
    order = desk.order_of(reply)
    assert reply.response.headers["Location"] == f"{BASE}/ServiceRequest/{order.id}/_history/1"
    assert reply.response.headers["ETag"] == 'W/"1"'
    assert (order.assigner, order.placer_number, order.accession_assigner, order.accession_number) == (
        "RIS",
        "P9",
        "RIS",
        "A9",
    )
    assert (order.procedure.code, order.procedure.system, order.procedure.text) == ("36643-5", "LN", "Chest X-ray")
    assert (order.priority, order.modality, order.reason) == (Priority.STAT, "DX", "Cough")
    assert order.scheduled_at == MONDAY.replace(hour=9)
    assert order.status is OrderStatus.SCHEDULED
    assert (order.ordering_provider.identifier, order.ordering_provider.name.text) == ("DOC7", "Dr. Grey")
    patient = order.patient
    assert (patient.assigner, patient.identifier, patient.sex) == ("1.2.3.4", "77", "other")
    assert (patient.name.family, patient.name.given, patient.name.middle) == ("Sample", "Sam", "B.")
    assert str(patient.birth_date) == "1980-02-29"
    assert desk.job_count() == 1
    vread = desk.client.ask(f"/ServiceRequest/{order.id}/_history/1")
    assert vread.json == reply.json
    assert desk.client.ask(f"/ServiceRequest/{order.id}/_history/2").status == 404


def test_a_condition_finds_what_is_there(desk: Desk) -> None:
    """If-None-Exist: nothing found creates (201), one found is the answer (200) and is recorded as shown."""
    condition = f"identifier={PLACER}%7CP9"
    first = desk.create(request(), If_None_Exist=condition)
    again = desk.create(request(), If_None_Exist=condition)
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json
    assert desk.job_count() == 1
    assert [access.detail["interaction"] for access in desk.client.store.accesses] == ["create"]


def test_a_condition_that_several_fit_is_412(desk: Desk) -> None:
    """More than one match is refused, and nothing is created."""
    desk.create(request())
    other = request(identifier=[typed("PLAC", PLACER, "A9")])
    assert desk.create(other).status == 201
    third = request(identifier=[typed("PLAC", PLACER, "P10")])
    assert desk.create(third, If_None_Exist=f"identifier={PLACER}|A9").status == 412
    assert desk.job_count() == 2


@pytest.mark.parametrize("condition", ["identifier=P9", "status=active", "identifier=a|b&status=active", "%ff"])
def test_a_condition_that_cannot_be_kept_is_refused(desk: Desk, condition: str) -> None:
    """Only identifiers with their system are unique here: a promise about anything else would be empty."""
    assert desk.create(request(), If_None_Exist=condition).status == 400
    assert desk.job_count() == 0


def test_a_second_create_of_a_number_is_a_conflict(desk: Desk) -> None:
    """Without a condition a create does not turn into a silent change of the order that is there."""
    desk.create(request())
    assert desk.create(request(priority="routine")).status == 409
    assert desk.job_count() == 1


def test_what_comes_back_is_what_is_kept(desk: Desk) -> None:
    """A created order is shown as one by HL7 v2 would be: no notes or contained records, the patient by reference."""
    body = request(note=[{"text": "Bring the old films"}], extension=[{"url": "urn:x", "valueString": "y"}])
    reply = desk.create(body)
    assert not {"note", "contained", "extension"} & set(reply.json)
    assert reply.json["subject"] == {"reference": f"Patient/{desk.order_of(reply).patient.id}"}
    assert desk.client.ask(f"/ServiceRequest/{reply.json['id']}").json == reply.json


def test_versions_that_are_not_kept_are_not_offered(desk: Desk) -> None:
    """A study has no history; of order and patient the newest version can be read by its number, an older one not."""
    desk.create(request())
    desk.create(study())
    order = desk.client.ask("/ServiceRequest", ("identifier", f"{PLACER}|P9")).json["entry"][0]["resource"]
    for path in (
        f"/ImagingStudy/{UID}/_history",
        f"/ImagingStudy/{UID}/_history/1",
        f"/ServiceRequest/{order['id']}/_history",
    ):
        assert desk.client.ask(path).status == 404, path
    for path in (f"/ServiceRequest/{order['id']}", f"/{order['subject']['reference']}"):
        newest = int(desk.client.ask(path).json["meta"]["versionId"])
        found = [desk.client.ask(f"{path}/_history/{version}").status for version in (newest - 1, newest, newest + 1)]
        assert found == [404, 200, 404], path


@pytest.mark.parametrize(("prefer", "status"), [("minimal", 201), ("OperationOutcome", 201), ("representation", 201)])
def test_what_comes_back_is_what_the_client_prefers(desk: Desk, prefer: str, status: int) -> None:
    """Prefer: return= shapes the body; status, Location and ETag are the same."""
    reply = desk.create(request(), Prefer=f"return={prefer}")
    assert reply.status == status
    assert "Location" in reply.response.headers
    kinds = {"minimal": None, "OperationOutcome": "OperationOutcome", "representation": "ServiceRequest"}
    assert (reply.json["resourceType"] if reply.response.body else None) == kinds[prefer]


def test_a_patient_that_is_known_is_named_by_reference_or_identifier(desk: Desk) -> None:
    """`Patient/<id>` and an identifier both lead to the record that is there, and leave it as it is."""
    patient = desk.order_of(desk.create(request())).patient
    for number, subject in (
        ("P10", {"reference": f"Patient/{patient.id}"}),
        ("P11", {"reference": f"{BASE}/Patient/{patient.id}"}),
        ("P12", {"identifier": {"system": MRN, "value": "77"}}),
    ):
        reply = desk.create(request(identifier=[typed("PLAC", PLACER, number)], subject=subject, contained=None))
        assert desk.order_of(reply).patient == patient


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"status": "draft"}, "ServiceRequest.status"),
        ({"intent": "plan"}, "ServiceRequest.intent"),
        ({"identifier": None}, "ServiceRequest.identifier"),
        ({"identifier": [{"value": "1"}]}, "ServiceRequest.identifier[0]"),
        ({"identifier": [typed("PLAC", PLACER, "1"), typed("PLAC", PLACER, "2")]}, "ServiceRequest.identifier[1]"),
        ({"identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.02"}]}, "ServiceRequest.identifier"),
        ({"subject": None}, "ServiceRequest.subject"),
        ({"subject": {"reference": "Patient/unknown"}}, "ServiceRequest.subject"),
        ({"subject": {"reference": "#nobody"}}, "ServiceRequest.subject.reference"),
        ({"priority": "soon"}, "ServiceRequest.priority"),
        ({"occurrenceDateTime": "2026-03-02"}, "ServiceRequest.occurrenceDateTime"),
        ({"occurrenceDateTime": "2026-02-31T10:00:00Z"}, "ServiceRequest.occurrenceDateTime"),
        ({"code": "X-ray"}, "ServiceRequest.code"),
        ({"reasonCode": [{"text": 7}]}, "ServiceRequest.reasonCode"),
        ({"reasonCode": "Cough"}, "ServiceRequest.reasonCode"),
        ({"resourceType": "Patient"}, "ServiceRequest"),
    ],
)
def test_what_is_wrong_is_told_by_its_place(desk: Desk, changes: dict[str, Any], place: str) -> None:
    """A body that is no order is 400, names the element and quotes nothing, and nothing is stored."""
    reply = desk.post("/ServiceRequest", request(**changes))
    assert reply.status == 400
    told = reply.json["issue"][0]["diagnostics"]
    assert place in told
    assert "Cough" not in told
    assert desk.job_count() == 0


def test_only_who_may_order_creates(desk: Desk) -> None:
    """An EHR and a clinician are refused (403), and the refusal is recorded."""
    for actor in (EHR, RADIOLOGIST):
        assert desk.create(request(), actor).status == 403
    assert desk.job_count() == 0
    assert [str(access.tag) for access in desk.client.store.accesses] == ["reader:access:refused"] * 2


def test_a_study_joins_its_order(desk: Desk) -> None:
    """By accession number or by basedOn, the study becomes the order's; no second order comes of it."""
    order = desk.order_of(desk.create(request()))
    reply = desk.create(study())
    assert reply.status == 201
    assert reply.response.headers["Location"] == f"{BASE}/ImagingStudy/{UID}"
    assert reply.json["basedOn"] == [{"reference": f"ServiceRequest/{order.id}"}]
    assert desk.job_count() == 1
    assert desk.create(study()).status == 409
    assert desk.create(study(), If_None_Exist=f"identifier=urn:dicom:uid|urn:oid:{UID}").status == 200


def test_a_study_names_its_order_by_reference(desk: Desk) -> None:
    """basedOn is enough; an order that is unknown is refused."""
    order = desk.order_of(desk.create(request()))
    uid_only = [{"system": "urn:dicom:uid", "value": f"urn:oid:{UID}"}]
    unknown = study(identifier=uid_only, basedOn=[{"reference": "ServiceRequest/unknown"}])
    assert desk.create(unknown).status == 400
    assert desk.create(study(identifier=uid_only)).status == 400
    known = study(identifier=uid_only, basedOn=[{"reference": f"ServiceRequest/{order.id}"}])
    assert desk.create(known).status == 201


def test_a_study_without_a_known_order_makes_one(desk: Desk) -> None:
    """Where no order came, the study's accession number, patient and procedure are the order."""
    assert desk.create(study()).status == 201
    assert desk.job_count() == 1


def test_a_study_of_another_patient_is_refused(desk: Desk) -> None:
    """An accession number that belongs to somebody else's order is a mistake: nothing is changed by it."""
    order = desk.order_of(desk.create(request()))
    reply = desk.create(study(subject={"identifier": {"system": MRN, "value": "78"}}))
    assert reply.status == 409
    with desk.ward.uow as uow:
        assert uow.orders.get(order.id) == order


def signed(desk: Desk, report: Report, match: str | None, body: Any = None, actor: Actor = RADIOLOGIST) -> Reply:
    """The answer to $sign."""
    headers = {} if match is None else {"If_Match": match}
    path = f"/DiagnosticReport/{report.id}/$sign"
    return desk.post(path, {"resourceType": "Parameters"} if body is None else body, actor, **headers)


@pytest.mark.parametrize("match", ['W/"3"', '"3"', "3"])
def test_a_clinician_signs_the_version_that_they_saw(desk: Desk, match: str) -> None:
    """$sign with the version in If-Match makes it final; the answer is the signed report."""
    report = desk.ward.drafted()
    reply = signed(desk, report, match)
    assert (reply.status, reply.json["status"]) == (200, "final")
    assert reply.response.headers["ETag"] == 'W/"5"'
    assert desk.ward.report(report.id).status is Status.SIGNED


@pytest.mark.parametrize(
    ("match", "status"), [(None, 428), ("*", 428), ('W/"2"', 412), ('W/"4"', 412), ("x", 412), ('W/"1", W/"3"', 412)]
)
def test_nobody_signs_another_version(desk: Desk, match: str | None, status: int) -> None:
    """Without the newest version in If-Match nothing is signed."""
    report = desk.ward.drafted()
    assert signed(desk, report, match).status == status
    assert desk.ward.report(report.id) == report


def test_only_a_clinician_signs(desk: Desk) -> None:
    """Neither the EHR nor the RIS nor a parameter that nobody knows leads to a signature."""
    report = desk.ward.drafted()
    assert signed(desk, report, "3", actor=EHR).status == 403
    assert signed(desk, report, "3", actor=RIS).status == 403
    assert signed(desk, report, "3", {"resourceType": "Parameters", "parameter": [{"name": "x"}]}).status == 400
    assert desk.ward.report(report.id) == report


def infill(desk: Desk, report: Report, *parameters: Any, match: str = "3") -> Reply:
    """The answer to $infill."""
    body = {"resourceType": "Parameters", "parameter": list(parameters)}
    return desk.post(f"/DiagnosticReport/{report.id}/$infill", body, RADIOLOGIST, If_Match=match)


def test_an_infill_is_a_task(desk: Desk) -> None:
    """$infill queues the same request as the workstation API would, and answers 202 with the Task that can be read."""
    report = desk.ward.drafted()
    kept = report.sections[0].fragments[0]
    parts = [
        {"name": "name", "valueCode": "findings"},
        {"name": "lock", "valueString": kept.id},
        {
            "name": "gap",
            "part": [{"name": "max-tokens", "valueInteger": 40}, {"name": "hint", "valueString": "pleura"}],
        },
        {"name": "locked-text", "valueString": " kept  blanks\u0301\r\n"},
    ]
    reply = infill(desk, report, {"name": "section", "part": parts}, {"name": "seed", "valueInteger": 5})
    assert (reply.status, reply.json["status"]) == (202, "requested")
    assert reply.response.headers["Location"] == f"{BASE}/Task/{reply.json['id']}"
    with desk.ward.uow as uow:
        job = uow.jobs.get(reply.json["id"])
    assert job is not None
    items = (LockRef(kept.id), Gap(max_tokens=40, hint="pleura"), LockText(" kept  blanks\u0301\r\n"))
    expected = InfillRequest((InfillSection("findings", items),), seed=5)
    assert InfillRequest.from_json(job.request) == expected
    tasks = desk.client.ask("/Task", ("focus", f"DiagnosticReport/{report.id}"), actor=RADIOLOGIST)
    assert reply.json["id"] in tasks.ids
    assert infill(desk, report, {"name": "section", "part": parts}, match="2").status == 412


def test_free_text_can_be_asked_for_in_the_sites_style(desk: Desk) -> None:
    """The parameter rewrite is the request's flag."""
    report = desk.ward.drafted()
    parts = [{"name": "name", "valueCode": "impression"}, {"name": "free-text", "valueString": "Normal."}]
    reply = infill(desk, report, {"name": "section", "part": parts}, {"name": "rewrite", "valueBoolean": True})
    with desk.ward.uow as uow:
        job = uow.jobs.get(reply.json["id"])
    assert job is not None
    expected = InfillRequest((InfillSection("impression", (FreeText("Normal."),)),), rewrite=True)
    assert InfillRequest.from_json(job.request) == expected


def test_the_texts_that_a_gap_might_hold_are_the_tasks_output(desk: Desk) -> None:
    """With alternatives asked for, the completed Task has each text, its score, and its probability where known.

    A search shows none of them, nor does a read by a system that may read jobs and no reports.
    """
    report = desk.ward.drafted()
    gap = [{"name": "max-tokens", "valueInteger": 9}]
    parts = [{"name": "name", "valueCode": "impression"}, {"name": "gap", "part": gap}]
    reply = infill(
        desk, report, {"name": "section", "part": parts}, {"name": "alternatives", "valueInteger": 3}, match="3"
    )
    found = (Candidate("Normal.", -0.1, 0.9), Candidate("", -0.7))
    claimed = drafting.claim_next(*desk.ward.trio, WORKER)
    assert claimed is not None
    job = claimed.job
    assert (job.id, job.request["alternatives"]) == (reply.json["id"], 3)
    drafting.start_generation(*desk.ward.trio, WORKER, job.id, fence=job.fence)
    fills, choices = (Fill("impression", 0, "Normal."),), (Choice("impression", 0, found),)
    written = Generated({"seed": 7}, fills=fills, alternatives=choices)
    drafting.apply_result(*desk.ward.trio, WORKER, job.id, fence=job.fence, generated=written)
    shown = desk.client.ask(f"/Task/{job.id}", actor=RADIOLOGIST).json
    (output,) = shown["output"]
    (offered,) = shown["contained"]
    assert output["valueReference"]["reference"] == f"#{offered['id']}"
    known = [
        {"name": "value", "valueString": "Normal."},
        {"name": "score", "valueDecimal": -0.1},
        {"name": "probability", "valueDecimal": 0.9},
    ]
    texts = [
        {"name": "text", "part": known},
        {"name": "text", "part": [{"name": "score", "valueDecimal": -0.7}]},
    ]
    place = [{"name": "section", "valueCode": "impression"}, {"name": "item", "valueInteger": 0}]
    assert offered["parameter"] == [{"name": "gap", "part": [*place, *texts]}]
    searched = desk.client.ask("/Task", ("focus", f"DiagnosticReport/{report.id}"), actor=RADIOLOGIST)
    assert "Normal." not in json.dumps(searched.json)
    jobs_only = FhirRequest(
        "GET", f"/Task/{job.id}", (), {}, b"", RADIOLOGIST, BASE, scopes=Scopes.parsed("system/Task.rs")
    )
    unseen = Reply(desk.client.router.handle(jobs_only))
    assert (unseen.status, "output" in unseen.json) == (200, False)


@pytest.mark.parametrize(
    "parameter",
    [
        {"name": "colour", "valueString": "red"},
        {"name": "seed", "valueString": "5"},
        {"name": "seed", "valueInteger": True},
        {"name": "rewrite", "valueInteger": 1},
        {"name": "section", "part": [{"name": "name", "valueCode": "nowhere"}]},
        {
            "name": "section",
            "part": [{"name": "name", "valueCode": "findings"}, {"name": "gap", "part": [{"name": "x"}]}],
        },
        {"name": "section", "part": [{"name": "text", "valueString": "x"}]},
        {"name": "section", "part": "findings"},
    ],
)
def test_a_malformed_infill_is_refused(desk: Desk, parameter: Any) -> None:
    """What cannot be read is 400 with the place; no job is queued."""
    report = desk.ward.drafted()
    assert infill(desk, report, parameter).status == 400
    assert desk.job_count() == 1


def test_other_resources_are_found_by_identifier(desk: Desk) -> None:
    """Orders, patients and studies by their numbers, Provenances by their target; everything shown is recorded."""
    report = desk.ward.drafted()
    order_id = desk.client.ask("/ServiceRequest", ("identifier", f"{PLACER}|P1")).ids
    assert order_id == [report.order_id]
    assert desk.client.ask("/ServiceRequest", ("identifier", "A1")).ids == order_id
    assert desk.client.ask("/ServiceRequest", ("identifier", "other|A1")).ids == []
    assert len(desk.client.ask("/Patient", ("identifier", "MRN1")).ids) == 1
    assert desk.client.ask("/ImagingStudy", ("identifier", "urn:dicom:uid|urn:oid:1.2.826.0.1.1")).ids == [
        "1.2.826.0.1.1"
    ]
    assert desk.client.ask("/ImagingStudy", ("identifier", "A1")).ids == ["1.2.826.0.1.1"]
    assert len(desk.client.ask("/Provenance", ("target", f"DiagnosticReport/{report.id}")).ids) == 3
    one = desk.client.ask("/Provenance", ("target", f"DiagnosticReport/{report.id}/_history/2"))
    assert one.ids == [f"{report.id}.2"]
    found = [str(access.tag) for access in desk.client.store.accesses]
    assert found.count("reader:report:searched") == 8
    assert found.count("reader:order:read") == 4
    assert desk.client.ask("/Task", ("focus", f"DiagnosticReport/{report.id}"), actor=EHR).status == 403
    assert desk.client.ask("/Task", ("focus", "DiagnosticReport/unknown"), actor=RADIOLOGIST).ids == []


@pytest.mark.parametrize(
    "query", [(), (("name", "x"),), (("identifier", ""),), (("identifier", "a"), ("identifier", "b"))]
)
def test_a_search_for_everybody_is_refused(desk: Desk, query: tuple[tuple[str, str], ...]) -> None:
    """Patients are found by one number and never listed."""
    assert desk.client.ask("/Patient", *query).status == 400
