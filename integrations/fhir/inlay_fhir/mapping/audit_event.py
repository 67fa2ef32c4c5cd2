"""An event of the trail as an AuditEvent, after IHE's Basic Audit Log Patterns where they fit.

https://hl7.org/fhir/R4/auditevent.html, https://profiles.ihe.net/ITI/BALP/
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from inlay_core.domain.audit import AuditEvent, Kind, Outcome
from inlay_core.domain.identity import ActorKind
from inlay_fhir.elements import Json, coding, concept, filled, instant, string
from inlay_fhir.mapping.naming import ACTOR_SYSTEM, DICOM

TAG_SYSTEM: Final = "urn:x-inlay:audit-tag"
_REQUESTS: Final = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
_TYPES: Final = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_INTERACTIONS: Final = "http://hl7.org/fhir/restful-interaction"
# The last word of a tag -> (restful interaction or None, AuditEvent.action). What is not here is an update.
_VERBS: Final[Mapping[str, tuple[str | None, str]]] = MappingProxyType(
    {
        "read": ("read", "R"),
        "searched": ("search", "E"),
        "created": ("create", "C"),
        "registered": ("create", "C"),
        "queued": ("create", "C"),
        "accepted": (None, "C"),
        "refused": (None, "E"),
        "sent": (None, "E"),
        "exported": (None, "R"),
        "ended": ("delete", "D"),
    }
)
_RESOURCES: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.REPORT: "DiagnosticReport",
        Kind.ORDER: "ServiceRequest",
        Kind.PATIENT: "Patient",
        Kind.JOB: "Task",
        Kind.AUDIT: "AuditEvent",
        Kind.SUBSCRIPTION: "Subscription",
    }
)


def audit_event(event: AuditEvent) -> Json:
    """One event. It holds codes and counts, so nothing here names a patient."""
    interaction, action = _VERBS.get(event.tag.rpartition(":")[2], ("update", "U"))
    restful = coding(_INTERACTIONS, interaction) if interaction else None
    refused = event.outcome is Outcome.REFUSED
    return filled(
        resourceType="AuditEvent",
        id=event.id,
        meta=filled(versionId="1", lastUpdated=instant(event.at)),
        type_=coding(_TYPES, "rest", "Restful Operation"),
        subtype=[each for each in (restful, coding(TAG_SYSTEM, str(event.tag))) if each],
        action=action,
        recorded=instant(event.at),
        outcome="4" if refused else "0",
        agent=[_agent(event)],
        source={"site": "Inlay", "observer": {"type": "Device", "display": "Inlay"}},
        entity=_entities(event),
    )


def _agent(event: AuditEvent) -> Json:
    person = event.actor_kind is ActorKind.PERSON
    code, display = ("humanuser", "human user") if person else ("110150", "Application")
    system = "http://terminology.hl7.org/CodeSystem/extra-security-role-type" if person else DICOM
    return filled(
        type_=concept(coding(system, code, display)),
        role=[concept(text=str(role)) for role in event.roles],
        who=filled(
            type_="Practitioner" if person else "Device",
            identifier=filled(system=ACTOR_SYSTEM, value=string(event.actor_id)),
            display=string(event.actor_name),
        ),
        requestor=True,
    )


def _entities(event: AuditEvent) -> list[Json]:
    resource = _RESOURCES.get(event.subject_kind)
    version = f"/_history/{event.version}" if event.version and event.subject_kind is Kind.REPORT else ""
    subject = {"reference": f"{resource}/{event.subject_id}{version}"} if resource else None
    details = [{"type": key, "valueString": string(str(value)) or "-"} for key, value in sorted(event.detail.items())]
    entities = [filled(what=subject, name=None if subject else str(event.subject_kind), detail=details)]
    if event.report_id and event.subject_kind is not Kind.REPORT:
        entities.append({"what": {"reference": f"DiagnosticReport/{event.report_id}"}})
    if request := string(event.request_id):
        entities.append({"what": {"identifier": {"value": request}}, "type": coding(_REQUESTS, "XrequestId")})
    return entities
