"""Domain objects to rows and back, written out: the domain knows nothing of tables."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from inlay_core.application.ports import (
    Delivery,
    Envelope,
    MessageOutcome,
    OutboxItem,
    StepProgress,
    StoredMessage,
)
from inlay_core.domain.fragment import Fragment, FragmentWarning, Origin, PlacedGap, Section
from inlay_core.domain.identity import ActorKind
from inlay_core.domain.job import Job, JobKind, JobState, Reason
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.domain.order import Order, OrderStatus, Priority, PriorStudy, Procedure
from inlay_core.domain.patient import Patient, PersonName, Provider
from inlay_core.domain.prior import PriorReport, PriorSection, PriorStatus
from inlay_core.domain.report import Author, Report, Signature
from inlay_core.domain.subscription import Subscription, SubscriptionState
from inlay_core.persistence.encryption import KeyRing, opened

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Values = dict[str, Any]
_PRIORITIES = tuple(Priority)


def _flat(value: DataclassInstance) -> Values:
    """Its fields as they are: `asdict` copies what is in them deeply, which takes most of the time of a row."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def patient_values(patient: Patient) -> Values:
    """Columns of `patients`."""
    return {
        "id": patient.id,
        "assigner": patient.assigner,
        "identifier": patient.identifier,
        "name": _flat(patient.name) if patient.name else None,
        "birth_date": patient.birth_date,
        "sex": patient.sex,
        "merged_into": patient.merged_into,
        "message_time": patient.message_time,
        "version": patient.version,
        "updated_at": patient.updated_at,
    }


def patient_of(row: Row[Any]) -> Patient:
    """The patient in a row of `patients`."""
    return Patient(
        id=row.id,
        assigner=row.assigner,
        identifier=row.identifier,
        name=PersonName(**row.name) if row.name else None,
        birth_date=row.birth_date,
        sex=row.sex,
        merged_into=row.merged_into,
        message_time=row.message_time,
        version=row.version,
        updated_at=row.updated_at,
    )


def order_values(order: Order) -> Values:
    """Columns of `orders`."""
    return {
        "id": order.id,
        "assigner": order.assigner,
        "placer_number": order.placer_number,
        "filler_number": order.filler_number,
        "accession_number": order.accession_number,
        "accession_assigner": order.accession_assigner,
        "study_instance_uid": order.study_instance_uid,
        "requested_procedure_id": order.requested_procedure_id,
        "steps": list(order.steps) or None,
        "patient_id": order.patient.id,
        "procedure_code": order.procedure.code,
        "procedure_system": order.procedure.system,
        "procedure_text": order.procedure.text,
        "modality": order.modality,
        "reason": order.reason,
        "priority": order.priority.rank,
        "ordering_provider": asdict(order.ordering_provider) if order.ordering_provider else None,
        "scheduled_at": order.scheduled_at,
        "studied_at": order.studied_at,
        "priors": None if order.priors is None else [_prior_body(prior) for prior in order.priors],
        "status": order.status.value,
        "message_time": order.message_time,
        "version": order.version,
        "created_at": order.created_at,
        "updated_at": order.updated_at,
    }


def order_of(row: Row[Any], patient: Patient) -> Order:
    """The order in a row of `orders`."""
    return Order(
        id=row.id,
        assigner=row.assigner,
        patient=patient,
        placer_number=row.placer_number,
        filler_number=row.filler_number,
        accession_number=row.accession_number,
        accession_assigner=row.accession_assigner,
        study_instance_uid=row.study_instance_uid,
        requested_procedure_id=row.requested_procedure_id,
        steps=tuple(row.steps or ()),
        procedure=Procedure(row.procedure_code, row.procedure_system, row.procedure_text),
        modality=row.modality,
        reason=row.reason,
        priority=_PRIORITIES[row.priority],
        ordering_provider=_provider_of(row.ordering_provider),
        scheduled_at=row.scheduled_at,
        studied_at=row.studied_at,
        priors=None if row.priors is None else tuple(_prior_of(body) for body in row.priors),
        status=OrderStatus(row.status),
        message_time=row.message_time,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _prior_body(prior: PriorStudy) -> Values:
    return asdict(prior) | {"studied_at": prior.studied_at.isoformat()}


def _prior_of(body: Mapping[str, Any]) -> PriorStudy:
    at = datetime.fromisoformat(body["studied_at"])
    return PriorStudy(
        body["study_instance_uid"], at, body["description"], tuple(body["modalities"]), body["accession_number"]
    )


def _provider_of(body: Mapping[str, Any] | None) -> Provider | None:
    if body is None:
        return None
    return Provider(body["identifier"], PersonName(**body["name"]) if body["name"] else None)


_SAME_COLUMNS = (
    "id",
    "assigner",
    "number",
    "accession_number",
    "procedure_code",
    "procedure_system",
    "procedure_text",
    "modality",
    "performed_at",
    "reported_at",
    "message_time",
    "version",
    "created_at",
    "updated_at",
)


def prior_values(prior: PriorReport) -> Values:
    """Columns of `prior_reports`."""
    same = {name: getattr(prior, name) for name in _SAME_COLUMNS}
    return same | {
        "patient_id": prior.patient.id,
        "status": prior.status.value,
        "sections": [[section.code, section.title, section.text] for section in prior.sections],
    }


def prior_of(row: Row[Any], patient: Patient) -> PriorReport:
    """The prior report in a row of `prior_reports`."""
    return PriorReport(
        patient=patient,
        status=PriorStatus(row.status),
        sections=tuple(PriorSection(*section) for section in row.sections),
        **{name: getattr(row, name) for name in _SAME_COLUMNS},
    )


def report_values(report: Report) -> Values:
    """Columns of `reports`: the newest version's."""
    return {
        "id": report.id,
        "order_id": report.order_id,
        "version": report.version,
        "status": report.status.value,
        "created_at": report.created_at,
        "updated_at": report.updated_at,
        "signed_at": report.signature.signed_at if report.signature else None,
    }


def version_values(report: Report) -> Values:
    """Columns of `report_versions`."""
    return {
        "report_id": report.id,
        "version": report.version,
        "status": report.status.value,
        "updated_at": report.updated_at,
        "body": {
            "sections": [_section_body(section) for section in report.sections],
            "author": _flat(report.author),
            "event": report.event,
            "job_id": report.job_id,
            "reason": asdict(report.reason) if report.reason else None,
            "signature": _signature_body(report.signature),
        },
    }


def report_of(report_id: str, order_id: str, created_at: datetime, row: Row[Any]) -> Report:
    """The report in a row of `report_versions`."""
    body = row.body
    author = body["author"]
    return Report(
        id=report_id,
        order_id=order_id,
        version=row.version,
        status=Status(row.status),
        sections=tuple(_section_of(section) for section in body["sections"]),
        created_at=created_at,
        updated_at=row.updated_at,
        author=Author(author["id"], author["name"], ActorKind(author["kind"])),
        event=Event(body["event"]) if body["event"] else None,
        job_id=body["job_id"],
        reason=Reason(**body["reason"]) if body["reason"] else None,
        signature=_signature_of(body["signature"]),
    )


def _signature_body(signature: Signature | None) -> Values | None:
    return asdict(signature) | {"signed_at": signature.signed_at.isoformat()} if signature else None


def _signature_of(body: Mapping[str, Any] | None) -> Signature | None:
    if body is None:
        return None
    return Signature(body["signer_id"], body["signer_name"], datetime.fromisoformat(body["signed_at"]), body["version"])


def _section_body(section: Section) -> Values:
    body: Values = {"name": section.name, "fragments": [asdict(fragment) for fragment in section.fragments]}
    # A release that does not know gaps reads past them.
    return body | ({"gaps": [asdict(gap) for gap in section.gaps]} if section.gaps else {})


def _section_of(body: Mapping[str, Any]) -> Section:
    gaps = tuple(PlacedGap(**gap) for gap in body.get("gaps", ()))
    return Section(body["name"], tuple(_fragment_of(fragment) for fragment in body["fragments"]), gaps)


def _fragment_of(body: Mapping[str, Any]) -> Fragment:
    return Fragment(
        id=body["id"],
        text=body["text"],
        origin=Origin(body["origin"]),
        locked=body["locked"],
        warnings=tuple(FragmentWarning(**warning) for warning in body["warnings"]),
        job_id=body["job_id"],
    )


def job_values(job: Job) -> Values:
    """Columns of `jobs`."""
    return {
        "id": job.id,
        "report_id": job.report_id,
        "kind": job.kind.value,
        "base_version": job.base_version,
        "priority": job.priority.rank,
        "state": job.state.value,
        "request": dict(job.request),
        "attempts": job.attempts,
        "fence": job.fence,
        "lease_until": job.lease_until,
        "not_before": job.not_before,
        "woken_at": job.woken_at,
        "reason_code": job.reason.code if job.reason else None,
        "reason_text": job.reason.text if job.reason else None,
        "run_record": dict(job.run_record) if job.run_record is not None else None,
        "alternatives": [dict(choice) for choice in job.alternatives] or None,
        "cancel_requested": job.cancel_requested,
        "requested_by": job.requested_by,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "traceparent": job.traceparent,
    }


def job_of(row: Row[Any]) -> Job:
    """The job in a row of `jobs`."""
    return Job(
        id=row.id,
        report_id=row.report_id,
        kind=JobKind(row.kind),
        base_version=row.base_version,
        priority=_PRIORITIES[row.priority],
        created_at=row.created_at,
        state=JobState(row.state),
        request=row.request,
        attempts=row.attempts,
        fence=row.fence,
        lease_until=row.lease_until,
        not_before=row.not_before,
        woken_at=row.woken_at,
        reason=Reason(row.reason_code, row.reason_text or "") if row.reason_code else None,
        run_record=row.run_record,
        alternatives=tuple(row.alternatives or ()),
        cancel_requested=row.cancel_requested,
        requested_by=row.requested_by,
        started_at=row.started_at,
        finished_at=row.finished_at,
        traceparent=row.traceparent,
    )


def message_values(message: StoredMessage, ring: KeyRing | None = None) -> Values:
    """Columns of `messages`; the bytes are encrypted where there is a key ring."""
    envelope = message.envelope
    raw_key, raw = ring.encrypt(envelope.raw, message.id) if ring else (None, envelope.raw)
    return {
        "id": message.id,
        "received_at": message.received_at,
        "peer": envelope.peer,
        "sending_application": envelope.sending_application,
        "sending_facility": envelope.sending_facility,
        "control_id": envelope.control_id,
        "sha256": message.sha256,
        "message_type": envelope.message_type,
        "message_time": envelope.message_time,
        "declared_charset": envelope.declared_charset,
        "used_charset": envelope.used_charset,
        "raw": raw,
        "raw_key": raw_key,
        "ack": message.ack,
        "outcome": message.outcome.value,
        "error_category": message.error_category,
        "error_code": message.error_code,
        "error_place": message.error_place,
        "flags": list(message.flags),
        "order_ids": list(message.order_ids),
    }


def message_of(row: Row[Any], ring: KeyRing | None = None) -> StoredMessage:
    """The message in a row of `messages`. Raises Unavailable for one whose key is not in the ring."""
    return StoredMessage(
        id=row.id,
        received_at=row.received_at,
        envelope=Envelope(
            raw=opened(row.raw, row.raw_key, row.id, ring),
            sending_application=row.sending_application,
            sending_facility=row.sending_facility,
            control_id=row.control_id,
            message_type=row.message_type,
            declared_charset=row.declared_charset,
            used_charset=row.used_charset,
            message_time=row.message_time,
            peer=row.peer,
        ),
        sha256=row.sha256,
        outcome=MessageOutcome(row.outcome),
        ack=row.ack,
        error_category=row.error_category,
        error_code=row.error_code,
        error_place=row.error_place,
        flags=tuple(row.flags),
        order_ids=tuple(row.order_ids),
    )


def item_values(item: OutboxItem) -> Values:
    """Columns of `outbox`, but for the sequence number, which the database gives."""
    return _flat(item) | {"payload": dict(item.payload), "state": item.state.value}


def item_of(row: Row[Any]) -> OutboxItem:
    """The item in a row of `outbox`."""
    return OutboxItem(
        id=row.id,
        destination=row.destination,
        key=row.key,
        payload=row.payload,
        created_at=row.created_at,
        next_attempt_at=row.next_attempt_at,
        control_id=row.control_id,
        state=Delivery(row.state),
        attempts=row.attempts,
        lease_until=row.lease_until,
        last_error=row.last_error,
        delivered_at=row.delivered_at,
        message=row.message,
        traceparent=row.traceparent,
    )


def progress_of(row: Row[Any]) -> StepProgress:
    """The canvas in a row of `progress`."""
    accepted = tuple((start, end) for start, end in row.accepted)
    return StepProgress(row.job_id, row.step, row.steps, row.text, accepted, row.sequence)


def canvases_body(canvases: Iterable[StepProgress]) -> bytes:
    """The column of `canvases`."""
    rows = [[one.sequence, one.step, one.steps, one.text, one.accepted] for one in canvases]
    return zlib.compress(json.dumps(rows, separators=(",", ":")).encode())


def canvases_of(job_id: str, body: bytes) -> tuple[StepProgress, ...]:
    """The canvases in a row of `canvases`."""
    return tuple(
        StepProgress(job_id, step, steps, text, tuple((start, end) for start, end in accepted), sequence)
        for sequence, step, steps, text, accepted in json.loads(zlib.decompress(body))
    )


def subscription_values(subscription: Subscription) -> Values:
    """Columns of `subscriptions`."""
    return {
        "id": subscription.id,
        "owner": subscription.owner,
        "state": subscription.state.value,
        "endpoint": subscription.endpoint,
        "filters": dict(subscription.filters),
        "events": subscription.events,
        "reason": subscription.reason,
        "ends_at": subscription.ends_at,
        "created_at": subscription.created_at,
        "updated_at": subscription.updated_at,
        "version": subscription.version,
    }


def subscription_of(row: Row[Any]) -> Subscription:
    """The subscription in a row of `subscriptions`."""
    statuses = row.filters["statuses"]
    return Subscription(
        id=row.id,
        owner=row.owner,
        endpoint=row.endpoint,
        created_at=row.created_at,
        updated_at=row.updated_at,
        state=SubscriptionState(row.state),
        statuses=None if statuses is None else tuple(Status(status) for status in statuses),
        events=row.events,
        reason=row.reason,
        ends_at=row.ends_at,
        version=row.version,
    )
