"""Every kind of FHIR resource that leaves Inlay, in every status that it can have: what validators are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from inlay_core.application import drafting, editing, signing
from inlay_core.application.ports import Action, Generated, ReportRow
from inlay_core.domain.audit import AuditEvent, Kind, Outcome, Tag
from inlay_core.domain.edits import FragmentEdit, SectionEdit
from inlay_core.domain.identity import Actor, ActorKind
from inlay_core.domain.infill import Candidate, Choice
from inlay_core.domain.job import Job, JobState, Reason
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.domain.order import Order, OrderStatus, Priority
from inlay_core.domain.subscription import Subscription, SubscriptionState
from inlay_core.printing import Printed, Printer
from inlay_fhir.elements import Json
from inlay_fhir.mapping.audit_event import audit_event
from inlay_fhir.mapping.device import device_reference
from inlay_fhir.mapping.diagnostic_report import diagnostic_report
from inlay_fhir.mapping.imaging_study import imaging_study
from inlay_fhir.mapping.provenance import provenance
from inlay_fhir.mapping.service_request import service_request
from inlay_fhir.mapping.subscription import TOPIC, notification, status_bundle, subscription_resource
from inlay_fhir.mapping.task import task
from inlay_fhir.mapping.writeback import Remote, transaction
from inlay_fhir.site import FhirSite, Pairs
from inlay_testkit.core import AUDITOR, DRAFT, EHR, MONDAY, RADIOLOGIST, RIS, WORKER, Ward, order_command
from inlay_testkit.fhir import BASE, FhirClient
from inlay_testkit.memory import Memory

RUN = {
    "model": "/srv/models/demonstration",
    "model_digest": "ab" * 32,
    "demonstration": True,
    "seed": 7,
    "prompt_digest": "cd" * 32,
    "image_digests": ["ef" * 32],
}
_JSON = {"Content-Type": "application/fhir+json"}


def emitted() -> list[Json]:
    """The resources, those inside of others too."""
    return [part for resource in _Hospital().resources() for part in flattened(resource)]


def flattened(resource: Json) -> Iterator[Json]:
    """A resource and what it contains."""
    yield resource
    inside = [*resource.get("contained", [])]
    for entry in resource.get("entry", []) if resource["resourceType"] == "Bundle" else []:
        inside += [entry["resource"]] if "resource" in entry else []
        inside += [entry["response"]["outcome"]] if "outcome" in entry.get("response", {}) else []
    for each in inside:
        yield from flattened(each)


class _Hospital:
    """Orders with reports, and a client that asks for everything about them."""

    def __init__(self) -> None:
        printer = Printer()

        def pdf(title: str, notice: str, facts: Pairs, sections: Pairs) -> bytes | None:
            return printer.page(Printed(title, notice, facts, sections))

        self.ward = Ward(Memory()())
        self.site = FhirSite(pdf=pdf, origins=("https://ehr.test",))
        self.client = FhirClient(self.ward, self.site)

    def resources(self) -> Iterator[Json]:
        """Lives of reports first, because later parts show what those left."""
        yield from self._whole_life()
        yield from self._little_known()
        yield from self._answers()
        yield from self._statuses()
        yield from self._subscriptions()
        yield from self._trail()

    def _ask(self, path: str, *query: tuple[str, str], actor: Actor = EHR, **more: Any) -> Json:
        """What is answered to a question that has an answer."""
        reply = self.client.ask(path, *query, actor=actor, **more)
        assert reply.status < 400, reply.json
        return reply.json

    def _refused(self, path: str, *query: tuple[str, str], actor: Actor = EHR, **more: Any) -> Json:
        """What is answered to another one."""
        reply = self.client.ask(path, *query, actor=actor, **more)
        assert reply.status >= 400, reply.json
        return reply.json

    def _whole_life(self) -> Iterator[Json]:
        """Draft, edit, infill, signature, amendments, withdrawal: each version and each Provenance, by history."""
        ward, act = self.ward, self.ward.trio
        ward.order("1", scheduled_at=MONDAY, reason="Cough & <fever>")
        report = ward.draft(replace(DRAFT, run_record=RUN))
        report = editing.open_report(*act, RADIOLOGIST, report.id, expected_version=report.version)
        lock = [SectionEdit("impression", (FragmentEdit(text="No acute\tfindings. Größe < 5 mm\n", locked=True),))]
        report = editing.put_fragments(*act, RADIOLOGIST, report.id, expected_version=report.version, edits=lock)
        ward.clock.advance(90.5)
        report = signing.sign(*act, RADIOLOGIST, report.id, expected_version=report.version)
        edits = [SectionEdit("findings", (FragmentEdit(text="Pneumonia."),))]
        for kind in (Event.AMEND, Event.CORRECT, Event.APPEND):
            report = signing.amend(
                *act, RADIOLOGIST, report.id, expected_version=report.version, kind=kind, edits=edits, reason="x"
            )
        signing.retract(*act, RADIOLOGIST, report.id, expected_version=report.version, reason="wrong patient")
        self.report = ward.report(report.id)
        yield self._ask(f"/DiagnosticReport/{report.id}/_history")
        yield self._ask("/Provenance", ("target", f"DiagnosticReport/{report.id}"))
        yield self._ask("/Task", ("focus", f"DiagnosticReport/{report.id}"), actor=RADIOLOGIST)
        yield self._ask("/" + device_reference(RUN)["reference"])
        yield from self._written_back()

    def _written_back(self) -> Iterator[Json]:
        """What another server gets of a draft and of a signed version."""
        with self.ward.uow as uow:
            order, jobs = uow.orders.get(self.report.order_id), tuple(uow.jobs.of_report(self.report.id))
            versions = uow.reports.versions(self.report.id)
        assert order is not None
        for version, remote in ((versions[2], None), (versions[-1], Remote("7", 'W/"2"', 3))):
            yield transaction(self.site, ReportRow(version, order), jobs, remote)

    def _little_known(self) -> Iterator[Json]:
        """An order that states next to nothing, drafted by a model that says nothing of itself."""
        nothing: dict[str, Any] = dict.fromkeys(
            ("accession_number", "procedure_code", "procedure_text", "procedure_system", "modality")
        )
        report = self.ward.order("2", study_instance_uid="not a uid", **nothing)
        self.ward.draft(Generated({"model": "m"}, texts=(("findings", "Normal."),)))
        yield self._ask("/DiagnosticReport", ("_id", report.id), ("_revinclude", "Provenance:target"))
        yield self._ask(f"/ServiceRequest/{report.order_id}")

    def _answers(self) -> Iterator[Json]:
        """Searches with everything that comes along, parts, batches, statements, operations and errors."""
        self.ward.order("3", priority=Priority.STAT)
        self.ward.receive(
            order_command("3", action=Action.CANCEL, order_status=OrderStatus.CANCELLED, message_time=MONDAY)
        )
        includes = [("_include", f"DiagnosticReport:{name}") for name in ("patient", "based-on", "imaging-study")]
        yield self._ask("/DiagnosticReport", *includes, ("_revinclude", "Provenance:target"))
        for part in (("_summary", "true"), ("_summary", "text"), ("_summary", "data"), ("_elements", "status")):
            yield self._ask("/DiagnosticReport", *includes, ("_revinclude", "Provenance:target"), part)
        yield self._ask("/DiagnosticReport", ("_count", "0"))
        yield self._ask("/DiagnosticReport/_history", ("_count", "3"))
        for kind, number in (("ServiceRequest", "P1"), ("Patient", "MRN1"), ("ImagingStudy", "A1")):
            yield self._ask(f"/{kind}", ("identifier", number))
        yield self._ask("/metadata")
        for name in ("infill", "sign"):
            yield self._ask(f"/OperationDefinition/DiagnosticReport-{name}")
        wanted = [f"DiagnosticReport/{self.report.id}", "Patient/nobody", "DiagnosticReport?_count=1"]
        entries = [{"request": {"method": "GET", "url": url}} for url in wanted]
        entries.append({"request": {"method": "DELETE", "url": "Patient/1"}})
        batch = {"resourceType": "Bundle", "type": "batch", "entry": entries}
        yield self._ask("/", method="POST", headers=_JSON, body=json.dumps(batch).encode())
        yield from self._errors()

    def _errors(self) -> Iterator[Json]:
        path = f"/DiagnosticReport/{self.report.id}"
        yield self._refused("/DiagnosticReport/nothing")
        yield self._refused("/DiagnosticReport", ("date", "soon"))
        yield self._refused("/DiagnosticReport", method="PUT")
        yield self._refused("/Task/nothing")
        yield self._refused(path, headers={"Accept": "text/html"})
        yield self._refused("/ServiceRequest", method="POST", actor=RIS, headers={"Content-Type": "text/plain"})
        yield self._refused("/ServiceRequest", method="POST", actor=RIS, headers=_JSON, body=b"{")
        for match in (None, "1"):
            headers = {"If-Match": match} if match else {}
            yield self._refused(f"{path}/$sign", method="POST", actor=RADIOLOGIST, headers=headers)

    def _statuses(self) -> Iterator[Json]:
        """Reports, studies, orders and jobs in each of their statuses, drafts under both names."""
        ward = self.ward
        report = ward.drafted("4")
        with ward.uow as uow:
            order = uow.orders.get(report.order_id)
            (job,) = uow.jobs.of_report(report.id)
        assert order is not None
        for site in (self.site, replace(self.site, draft_status="preliminary")):
            for status in Status:
                row = ReportRow(replace(report, status=status), order)
                yield diagnostic_report(site, row, [job])
                yield provenance(row.report, [job])
                yield imaging_study(site, str(order.study_instance_uid), [row])
        yield from (service_request(self.site, each) for each in _orders(order))
        yield from (task(each) for each in _jobs(job))
        offered = Choice("findings", 0, (Candidate("Clear.", -0.1, 0.9), Candidate("", -0.7)))
        yield task(replace(job, alternatives=(offered.to_json(),)), offers=True)
        claimed = self._failed()
        yield self._ask(f"/Task/{claimed.id}", actor=RADIOLOGIST)

    def _failed(self) -> Job:
        """A job that ended with a reason."""
        self.ward.order("5")
        claimed = drafting.claim_next(*self.ward.trio, WORKER)
        assert claimed is not None
        reason = Reason("no-model", "No model.")
        fence = claimed.job.fence
        drafting.fail_job(*self.ward.trio, WORKER, claimed.job.id, fence=fence, reason=reason, retry=False)
        return claimed.job

    def _subscriptions(self) -> Iterator[Json]:
        body = {
            "resourceType": "Subscription",
            "status": "requested",
            "reason": "To be told",
            "criteria": TOPIC,
            "channel": {
                "type": "rest-hook",
                "endpoint": "https://ehr.test/hook",
                "payload": "application/fhir+json",
            },
        }
        yield self._ask("/Subscription", method="POST", headers=_JSON, body=json.dumps(body).encode())
        made = Subscription("s-1", "ehr-1", "https://ehr.test/hook", MONDAY, MONDAY, ends_at=MONDAY)
        for state in SubscriptionState:
            one = replace(made, state=state, statuses=(Status.SIGNED,), reason="timeout" if state == "error" else None)
            yield subscription_resource(self.site, one)
            yield status_bundle(one, BASE)
            yield notification(one, BASE, MONDAY, None, MONDAY)
        event = {"report_id": self.report.id, "event": 1}
        yield notification(made, BASE, MONDAY, event, MONDAY)

    def _trail(self) -> Iterator[Json]:
        """What the lives above left in the trail, and one event of every tag."""
        with self.ward.uow as uow:
            events = [*uow.audit.unsealed()]
        yield from (self._ask(f"/AuditEvent/{event.id}", actor=AUDITOR) for event in events)
        for number, tag in enumerate(Tag):
            for kind in (ActorKind.PERSON, ActorKind.SYSTEM):
                yield audit_event(
                    AuditEvent(
                        f"a-{number}",
                        MONDAY,
                        tag,
                        "x-1",
                        "Somebody",
                        kind,
                        Kind.REPORT if number % 2 else Kind.ACCESS,
                        "r-1",
                        version=1,
                        outcome=Outcome.REFUSED if number % 3 else Outcome.SUCCESS,
                        detail={"interface": "fhir", "status": 403, "parameters": "code", "patient": "p-1"},
                        request_id="q-1",
                    )
                )


def _orders(order: Order) -> Iterator[Order]:
    for status in OrderStatus:
        for priority in Priority:
            yield replace(order, status=status, priority=priority)


def _jobs(job: Job) -> Iterator[Job]:
    for state in JobState:
        yield replace(job, state=state, reason=Reason("code", "Why.") if state is JobState.FAILED else None)
