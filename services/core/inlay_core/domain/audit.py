"""The audit trail: events, their tags, and the hash chain that makes tampering visible.

An event carries no patient data; its canonical bytes are what is stored, hashed and exported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from inlay_core.domain.identity import Actor, ActorKind, Role

GENESIS: Final = "0" * 64
"""What the first link of the chain follows."""

Detail = str | int | bool | None


class Kind(StrEnum):
    """What an event is about."""

    REPORT = "report"
    ORDER = "order"
    PATIENT = "patient"
    PRIOR = "prior"
    JOB = "job"
    MESSAGE = "message"
    SUBSCRIPTION = "subscription"
    CLIENT = "client"
    SWITCH = "switch"
    SESSION = "session"
    READER_STUDY = "reader-study"
    AUDIT = "audit"
    ACCESS = "access"
    PROGRESS = "progress"
    DELIVERY = "delivery"
    IMAGE = "image"


class Tag(StrEnum):
    """Every event that can be recorded, as `source:subject:action`."""

    INTAKE_MESSAGE_ACCEPTED = "intake:message:accepted"
    INTAKE_MESSAGE_REFUSED = "intake:message:refused"
    INTAKE_ACCESS_REFUSED = "intake:access:refused"
    INTAKE_ORDER_CREATED = "intake:order:created"
    INTAKE_ORDER_CHANGED = "intake:order:changed"
    INTAKE_ORDER_CANCELLED = "intake:order:cancelled"
    INTAKE_ORDER_DISCONTINUED = "intake:order:discontinued"
    INTAKE_ORDER_OUTDATED = "intake:order:outdated"
    INTAKE_PATIENT_CREATED = "intake:patient:created"
    INTAKE_PATIENT_CHANGED = "intake:patient:changed"
    INTAKE_PATIENT_MERGED = "intake:patient:merged"
    INTAKE_PRIOR_CREATED = "intake:prior:created"
    INTAKE_PRIOR_CHANGED = "intake:prior:changed"
    INTAKE_ORDER_REPLACED = "intake:order:replaced"
    INTAKE_REPORT_PATIENT_CHANGED = "intake:report:patient-changed"
    INTAKE_REPORT_REGISTERED = "intake:report:registered"
    INTAKE_REPORT_CANCELLED = "intake:report:cancelled"
    INTAKE_JOB_QUEUED = "intake:job:queued"
    INTAKE_JOB_CANCELLED = "intake:job:cancelled"
    WORKER_JOB_CLAIMED = "worker:job:claimed"
    WORKER_JOB_WAITING = "worker:job:waiting"
    WORKER_JOB_SUCCEEDED = "worker:job:succeeded"
    WORKER_JOB_RETRIED = "worker:job:retried"
    WORKER_JOB_RELEASED = "worker:job:released"
    WORKER_JOB_FAILED = "worker:job:failed"
    WORKER_JOB_CANCELLED = "worker:job:cancelled"
    WORKER_JOB_SUPERSEDED = "worker:job:superseded"
    WORKER_ORDER_STUDIED = "worker:order:studied"
    WORKER_PATIENT_CONTRADICTED = "worker:patient:contradicted"
    WORKER_REPORT_DRAFTING = "worker:report:drafting"
    WORKER_REPORT_DRAFTED = "worker:report:drafted"
    WORKER_REPORT_INFILLED = "worker:report:infilled"
    WORKER_REPORT_FAILED = "worker:report:failed"
    SWEEPER_JOB_QUEUED = "sweeper:job:queued"
    SWEEPER_JOB_RECLAIMED = "sweeper:job:reclaimed"
    SWEEPER_JOB_FAILED = "sweeper:job:failed"
    SWEEPER_JOB_CANCELLED = "sweeper:job:cancelled"
    CLINICIAN_REPORT_OPENED = "clinician:report:opened"
    CLINICIAN_REPORT_EDITED = "clinician:report:edited"
    CLINICIAN_REPORT_SIGNED = "clinician:report:signed"
    CLINICIAN_REPORT_AMENDED = "clinician:report:amended"
    CLINICIAN_REPORT_CORRECTED = "clinician:report:corrected"
    CLINICIAN_REPORT_APPENDED = "clinician:report:appended"
    CLINICIAN_REPORT_RETRACTED = "clinician:report:retracted"
    CLINICIAN_REPORT_RETRIED = "clinician:report:retried"
    CLINICIAN_REPORT_FAILED = "clinician:report:failed"
    CLINICIAN_JOB_QUEUED = "clinician:job:queued"
    CLINICIAN_JOB_CANCELLED = "clinician:job:cancelled"
    RELAY_ORDER_COMPARED = "relay:order:compared"
    RELAY_REPORT_SENT = "relay:report:sent"
    RELAY_REPORT_UNDELIVERABLE = "relay:report:undeliverable"
    READER_REPORT_READ = "reader:report:read"
    READER_REPORT_SEARCHED = "reader:report:searched"
    READER_PRIOR_READ = "reader:prior:read"
    READER_ORDER_READ = "reader:order:read"
    READER_PATIENT_READ = "reader:patient:read"
    READER_JOB_READ = "reader:job:read"
    READER_AUDIT_READ = "reader:audit:read"
    ISSUER_CLIENT_ADMITTED = "issuer:client:admitted"
    ISSUER_CLIENT_REFUSED = "issuer:client:refused"
    SUBSCRIBER_SUBSCRIPTION_CREATED = "subscriber:subscription:created"
    SUBSCRIBER_SUBSCRIPTION_ENDED = "subscriber:subscription:ended"
    RELAY_SUBSCRIPTION_ACTIVATED = "relay:subscription:activated"
    RELAY_SUBSCRIPTION_FAILED = "relay:subscription:failed"
    READER_SUBSCRIPTION_READ = "reader:subscription:read"
    READER_ACCESS_REFUSED = "reader:access:refused"
    ADMIN_SWITCH_STOPPED = "admin:switch:stopped"
    ADMIN_SWITCH_STARTED = "admin:switch:started"
    ADMIN_REPORT_RESENT = "admin:report:resent"
    ADMIN_MESSAGE_REPLAYED = "admin:message:replayed"
    ADMIN_AUDIT_EXPORTED = "admin:audit:exported"
    ADMIN_AUDIT_PURGED = "admin:audit:purged"
    ADMIN_MESSAGE_PURGED = "admin:message:purged"
    ADMIN_MESSAGE_REENCRYPTED = "admin:message:reencrypted"
    ADMIN_JOB_PURGED = "admin:job:purged"
    ADMIN_PROGRESS_PURGED = "admin:progress:purged"
    ADMIN_DELIVERY_PURGED = "admin:delivery:purged"
    ADMIN_IMAGE_PURGED = "admin:image:purged"
    ADMIN_STUDY_CREATED = "admin:reader-study:created"
    ADMIN_STUDY_CLOSED = "admin:reader-study:closed"
    CLINICIAN_STUDY_GRADED = "clinician:reader-study:graded"
    READER_STUDY_READ = "reader:reader-study:read"
    READER_ACCESS_USAGE = "reader:access:usage"
    READER_ACCESS_STATE = "reader:access:state"
    LOGIN_SESSION_OPENED = "login:session:opened"
    LOGIN_SESSION_CLOSED = "login:session:closed"
    LOGIN_SESSION_REFUSED = "login:session:refused"


class Outcome(StrEnum):
    """Whether what the event names was done."""

    SUCCESS = "success"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that happened: when, who, what, to which record. `detail` holds codes and counts, never values."""

    id: str
    at: datetime
    tag: Tag
    actor_id: str
    actor_name: str
    actor_kind: ActorKind
    subject_kind: Kind
    subject_id: str
    roles: tuple[Role, ...] = ()
    report_id: str | None = None
    version: int | None = None
    outcome: Outcome = Outcome.SUCCESS
    detail: Mapping[str, Detail] = field(default_factory=dict)
    request_id: str | None = None

    def canonical(self) -> str:
        """The one JSON text of this event: sorted keys, no blanks, ASCII only, time in UTC with microseconds."""
        return json.dumps(
            {
                "actor": {"id": self.actor_id, "kind": self.actor_kind, "name": self.actor_name, "roles": self.roles},
                "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
                "detail": dict(self.detail),
                "id": self.id,
                "outcome": self.outcome,
                "report_id": self.report_id,
                "request_id": self.request_id,
                "subject": {"id": self.subject_id, "kind": self.subject_kind, "version": self.version},
                "tag": self.tag,
            },
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=True,
        )

    @classmethod
    def from_canonical(cls, text: str) -> AuditEvent:
        """The event that `canonical` wrote; raise ValueError or KeyError when it was tampered with beyond reading."""
        body = json.loads(text)
        actor, subject = body["actor"], body["subject"]
        return cls(
            id=body["id"],
            at=datetime.fromisoformat(body["at"]),
            tag=Tag(body["tag"]),
            actor_id=actor["id"],
            actor_name=actor["name"],
            actor_kind=ActorKind(actor["kind"]),
            subject_kind=Kind(subject["kind"]),
            subject_id=subject["id"],
            roles=tuple(Role(role) for role in actor["roles"]),
            report_id=body["report_id"],
            version=subject["version"],
            outcome=Outcome(body["outcome"]),
            detail=body["detail"],
            request_id=body["request_id"],
        )


def event_of(
    event_id: str,
    at: datetime,
    actor: Actor,
    tag: Tag,
    subject: tuple[Kind, str],
    *,
    report_id: str | None = None,
    version: int | None = None,
    outcome: Outcome = Outcome.SUCCESS,
    detail: Mapping[str, Detail] | None = None,
    request_id: str | None = None,
) -> AuditEvent:
    """The event that `actor` caused."""
    return AuditEvent(
        id=event_id,
        at=at,
        tag=tag,
        actor_id=actor.id,
        actor_name=actor.name,
        actor_kind=actor.kind,
        subject_kind=subject[0],
        subject_id=subject[1],
        roles=tuple(sorted(actor.roles)),
        report_id=report_id,
        version=version,
        outcome=outcome,
        detail=detail or {},
        request_id=request_id,
    )


@dataclass(frozen=True, slots=True)
class Link:
    """One sealed event: its place in the chain, and the hashes before and after it."""

    position: int
    event_id: str
    previous: str
    hash: str


def link_hash(previous: str, canonical: str) -> str:
    """Hex SHA-256 of the previous hash followed by the canonical JSON of the event."""
    return hashlib.sha256(previous.encode("ascii") + canonical.encode("ascii", "surrogatepass")).hexdigest()


def seal(events: Iterable[tuple[str, str]], position: int = 0, previous: str = GENESIS) -> list[Link]:
    """Chain (event id, canonical JSON) pairs after the link at `position` whose hash is `previous`."""
    links: list[Link] = []
    for event_id, canonical in events:
        position += 1
        links.append(Link(position, event_id, previous, link_hash(previous, canonical)))
        previous = links[-1].hash
    return links


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where the chain does not hold, and why."""

    position: int
    event_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a walk along the chain found. `unsealed` events are recorded but not yet chained.

    `purged` ones were taken away after a signed cut, where the walk begins; `checkpoints` are those it was held to.
    """

    sealed: int
    unsealed: int
    head: str
    first_break: Break | None = None
    purged: int = 0
    checkpoints: int = 0

    @property
    def holds(self) -> bool:
        """Whether every link fits."""
        return self.first_break is None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the chain's head was at a moment, to be signed and kept elsewhere. At a cut, what came before was purged."""

    position: int
    hash: str
    at: datetime
    is_cut: bool = False


def start_of(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """The last cut, after which the walk begins; None where nothing was purged."""
    return max((each for each in checkpoints if each.is_cut), key=lambda each: each.position, default=None)


def first_break(
    links: Iterable[tuple[Link, str | None]], checkpoints: Collection[Checkpoint] = ()
) -> tuple[int, str, Break | None]:
    """Walk (link, stored canonical JSON or None when the event is gone) in order of position, from the last cut on.

    The chain must have, at the position of each checkpoint, the hash that was signed: a chain that was rewritten as a
    whole, or whose end was cut off, fits in itself but not to them. Return (last position, head hash, the first break).
    """
    cut = start_of(checkpoints)
    walked, previous = (cut.position, cut.hash) if cut else (0, GENESIS)
    signed: dict[int, set[str]] = {}
    for each in checkpoints:
        signed.setdefault(each.position, set()).add(each.hash)
    for link, canonical in links:
        reason = _misfit(link, canonical, walked, previous)
        if reason is None and signed.get(link.position, {link.hash}) != {link.hash}:
            reason = "checkpoint-differs"
        if reason is not None:
            return walked, previous, Break(walked + 1, link.event_id, reason)
        walked, previous = walked + 1, link.hash
    if any(position > walked for position in signed):
        return walked, previous, Break(walked + 1, None, "end-missing")
    return walked, previous, None


def _misfit(link: Link, canonical: str | None, walked: int, previous: str) -> str | None:
    if link.position != walked + 1:
        return "link-missing"
    if canonical is None:
        return "event-missing"
    if link.previous != previous:
        return "previous-hash-differs"
    if link.hash != link_hash(previous, canonical):
        return "event-changed"
    return None
