"""Who acts, and what each role may do: the permission table is here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from inlay_core.domain.errors import Forbidden


class Role(StrEnum):
    """What an identity is entitled as."""

    RIS = "ris"
    EHR = "ehr"
    RADIOLOGIST = "radiologist"
    ADMIN = "admin"
    AUDITOR = "auditor"


class ActorKind(StrEnum):
    """A person answers for what is signed; a system never signs."""

    PERSON = "person"
    SYSTEM = "system"


class Permission(StrEnum):
    """Each thing that an actor may be allowed to do."""

    PLACE_ORDERS = "place-orders"
    READ_REPORTS = "read-reports"
    READ_ORDERS = "read-orders"
    READ_JOBS = "read-jobs"
    EDIT_REPORTS = "edit-reports"
    REQUEST_GENERATION = "request-generation"
    CANCEL_JOBS = "cancel-jobs"
    SIGN_REPORTS = "sign-reports"
    READ_AUDIT = "read-audit"
    SUBSCRIBE = "subscribe"
    SWITCH_GENERATION = "switch-generation"
    READ_SWITCHES = "read-switches"
    ADMINISTER = "administer"
    READ_USAGE = "read-usage"
    MANAGE_READER_STUDIES = "manage-reader-studies"
    GRADE_DRAFTS = "grade-drafts"
    GENERATE = "generate"
    DELIVER = "deliver"
    MANAGE_DELIVERIES = "manage-deliveries"
    REPLAY_MESSAGES = "replay-messages"
    KEEP_RECORDS = "keep-records"


@dataclass(frozen=True, slots=True)
class Actor:
    """An authenticated identity. `name` is the person's or system's display name."""

    id: str
    name: str
    roles: frozenset[Role] = frozenset()
    kind: ActorKind = ActorKind.PERSON


_READERS: Final = frozenset({Role.EHR, Role.RADIOLOGIST, Role.ADMIN, Role.AUDITOR, Role.RIS})
_RADIOLOGIST: Final = frozenset({Role.RADIOLOGIST})

PERMISSIONS: Final[Mapping[Permission, frozenset[Role]]] = MappingProxyType(
    {
        Permission.PLACE_ORDERS: frozenset({Role.RIS}),
        Permission.READ_REPORTS: _READERS,
        Permission.READ_ORDERS: _READERS,
        Permission.READ_JOBS: frozenset({Role.RADIOLOGIST, Role.ADMIN, Role.AUDITOR}),
        Permission.EDIT_REPORTS: _RADIOLOGIST,
        Permission.REQUEST_GENERATION: _RADIOLOGIST,
        Permission.CANCEL_JOBS: frozenset({Role.RADIOLOGIST, Role.ADMIN}),
        Permission.SIGN_REPORTS: _RADIOLOGIST,
        Permission.READ_AUDIT: frozenset({Role.AUDITOR, Role.ADMIN, Role.RADIOLOGIST}),
        Permission.SUBSCRIBE: frozenset({Role.EHR, Role.RIS, Role.ADMIN}),
        Permission.SWITCH_GENERATION: frozenset({Role.ADMIN}),
        Permission.READ_SWITCHES: frozenset({Role.RADIOLOGIST, Role.ADMIN, Role.AUDITOR}),
        Permission.ADMINISTER: frozenset({Role.ADMIN}),
        Permission.READ_USAGE: frozenset({Role.ADMIN, Role.AUDITOR}),
        Permission.MANAGE_READER_STUDIES: frozenset({Role.ADMIN}),
        Permission.GRADE_DRAFTS: _RADIOLOGIST,
        Permission.GENERATE: frozenset(),
        Permission.DELIVER: frozenset(),
        Permission.MANAGE_DELIVERIES: frozenset({Role.ADMIN}),
        Permission.REPLAY_MESSAGES: frozenset({Role.ADMIN}),
        Permission.KEEP_RECORDS: frozenset({Role.ADMIN}),
    }
)
"""Permission -> the roles that have it."""

SYSTEM_PERMISSIONS: Final = frozenset(
    {Permission.GENERATE, Permission.DELIVER, Permission.READ_REPORTS, Permission.READ_ORDERS, Permission.READ_JOBS}
)
"""What Inlay's own processes (actors of kind system without any role) may do."""

PERSONAL: Final = frozenset({Permission.EDIT_REPORTS, Permission.SIGN_REPORTS, Permission.GRADE_DRAFTS})
"""What takes a person, whatever roles a system has been given."""


def may(actor: Actor, permission: Permission) -> bool:
    """Whether the table lets `actor` do it."""
    if permission in PERSONAL and actor.kind is not ActorKind.PERSON:
        return False
    if actor.kind is ActorKind.SYSTEM and not actor.roles:
        return permission in SYSTEM_PERMISSIONS
    return bool(actor.roles & PERMISSIONS[permission])


def require(actor: Actor, permission: Permission) -> None:
    """Raise Forbidden unless `actor` may do it."""
    if not may(actor, permission):
        raise Forbidden("not-permitted", f"Your roles do not permit this ({permission}).", "actor.roles")


def system(name: str) -> Actor:
    """The identity of one of Inlay's own processes: `worker`, `relay`, `sweeper`."""
    return Actor(id=f"inlay:{name}", name=f"Inlay {name}", kind=ActorKind.SYSTEM)
