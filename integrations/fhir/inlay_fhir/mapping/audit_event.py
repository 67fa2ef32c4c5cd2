"""An event of the trail as an AuditEvent, after IHE's Basic Audit Log Patterns where they fit.

https://hl7.org/fhir/R4/auditevent.html, https://profiles.ihe.net/ITI/BALP/
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from inlay_core.domain.audit import AuditEvent, Kind, Outcome, Tag
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
        "searched": ("search-type", "E"),
        "created": ("create", "C"),
        "registered": ("create", "C"),
        "queued": ("create", "C"),
        "accepted": (None, "C"),
        "refused": (None, "E"),
        "sent": (None, "E"),
        "exported": (None, "R"),
        "ended": ("delete", "D"),
        "purged": (None, "D"),
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


# Interaction of the endpoint -> (restful interaction, AuditEvent.action).
_INTERACTION_ACTIONS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "read": ("read", "R"),
        "vread": ("vread", "R"),
        "history-instance": ("history-instance", "R"),
        "history-type": ("history-type", "R"),
        "search": ("search-type", "E"),
        "search-type": ("search-type", "E"),
        "create": ("create", "C"),
        "delete": ("delete", "D"),
        "operation": ("operation", "E"),
        "batch": ("batch", "E"),
    }
)
# DICOM PS3.15, A.5.3.12: User Authentication.
_AUTHENTICATION: Final = ("110114", "User Authentication")
_LOGINS: Final[Mapping[Tag, tuple[str, str]]] = MappingProxyType(
    {
        Tag.LOGIN_SESSION_OPENED: ("110122", "Login"),
        Tag.LOGIN_SESSION_REFUSED: ("110122", "Login"),
        Tag.LOGIN_SESSION_CLOSED: ("110123", "Logout"),
    }
)
_SOURCE, _DESTINATION = ("110153", "Source Role ID"), ("110152", "Destination Role ID")
_OBJECT: Final = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ROLE: Final = "http://terminology.hl7.org/CodeSystem/object-role"


def audit_event(event: AuditEvent) -> Json:
    """One event. It holds codes, counts and Inlay's own ids, so nothing here names a patient to anybody else."""
    interaction, action = interaction_of(event)
    restful = coding(_INTERACTIONS, interaction) if interaction else None
    login = coding(DICOM, *_LOGINS[event.tag]) if event.tag in _LOGINS else None
    return filled(
        resourceType="AuditEvent",
        id=event.id,
        meta=filled(versionId="1", lastUpdated=instant(event.at)),
        type_=coding(DICOM, *_AUTHENTICATION) if login else coding(_TYPES, "rest", "RESTful Operation"),
        subtype=[each for each in (restful, login, coding(TAG_SYSTEM, str(event.tag))) if each],
        action="E" if login else action,
        recorded=instant(event.at),
        outcome=outcome_of(event),
        agent=_agents(event, action),
        source={"site": "Inlay", "observer": _SERVER},
        entity=_entities(event),
    )


def interaction_of(event: AuditEvent) -> tuple[str | None, str]:
    """The restful interaction, where it was one, and the action: C, R, U, D or E."""
    stated = _INTERACTION_ACTIONS.get(str(event.detail.get("interaction")))
    return stated or _VERBS.get(event.tag.rpartition(":")[2], ("update", "U"))


def outcome_of(event: AuditEvent) -> str:
    """0 success; 4 what was refused; 8 what failed for a fault of ours."""
    if event.outcome is not Outcome.REFUSED:
        return "0"
    status = event.detail.get("status")
    return "8" if isinstance(status, int) and status >= 500 else "4"


_SERVER: Final[Json] = {"type": "Device", "identifier": {"system": ACTOR_SYSTEM, "value": "inlay"}, "display": "Inlay"}


def _agents(event: AuditEvent, action: str) -> list[Json]:
    """Who asked, and for what came over FHIR both ends of the wire: data go from source to destination."""
    user = _agent(event)
    if event.detail.get("interface") != "fhir":
        return [user]
    # On a create the client is the source of the data, otherwise it gets them.
    ends = (_SOURCE, _DESTINATION) if action == "C" else (_DESTINATION, _SOURCE)
    client, server = (concept(coding(DICOM, *end)) for end in ends)
    is_person = event.actor_kind is ActorKind.PERSON
    return [
        {"type": client, "who": user["who"], "requestor": not is_person},
        {"type": server, "who": _SERVER, "requestor": False},
        *([user] if is_person else []),
    ]


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
    """The record; its patient, exactly once; the question of a search; the request's id."""
    resource = _RESOURCES.get(event.subject_kind)
    version = f"/_history/{event.version}" if event.version and event.subject_kind is Kind.REPORT else ""
    subject = {"reference": f"{resource}/{event.subject_id}{version}"} if resource else None
    known = {key: value for key, value in event.detail.items() if key not in ("patient", "parameters")}
    details = [{"type": key, "valueString": string(str(value)) or "-"} for key, value in sorted(known.items())]
    is_query = "parameters" in event.detail
    entities = [
        filled(
            what=subject,
            type_=coding(_OBJECT, "2", "System Object"),
            role=coding(_ROLE, "24", "Query") if is_query else coding(_ROLE, "4", "Domain Resource"),
            name=None if subject or is_query else str(event.subject_kind),
            query=_query(event) if is_query else None,
            detail=details,
        )
    ]
    if event.report_id and event.subject_kind is not Kind.REPORT:
        entities.append({"what": {"reference": f"DiagnosticReport/{event.report_id}"}})
    patient = event.subject_id if event.subject_kind is Kind.PATIENT else event.detail.get("patient")
    if patient and event.subject_kind is not Kind.PATIENT:
        entities.append(
            {
                "what": {"reference": f"Patient/{patient}"},
                "type": coding(_OBJECT, "1", "Person"),
                "role": coding(_ROLE, "1", "Patient"),
            }
        )
    if request := string(event.request_id):
        entities.append({"what": {"identifier": {"value": request}}, "type": coding(_REQUESTS, "XrequestId")})
    return entities


def _query(event: AuditEvent) -> str:
    """The question without its values, which may name a patient; BALP asks for the whole one."""
    names = [name for name in str(event.detail["parameters"]).split(",") if name]
    asked = f"{event.subject_id}?{'&'.join(f'{name}=' for name in names)}"
    return base64.b64encode(asked.encode("utf-8")).decode("ascii")
