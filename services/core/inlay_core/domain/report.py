"""The aggregate: a report with its sections, version and status. Each method returns the next version.

Only a person with the role can sign (checked here as well as at the edge), and only what lifecycle.py allows happens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from inlay_core.domain import lifecycle
from inlay_core.domain.errors import Fault, Invalid, Stale
from inlay_core.domain.fragment import Fragment, Origin, Section, without_gaps
from inlay_core.domain.identity import Actor, ActorKind, Permission, require
from inlay_core.domain.job import Reason
from inlay_core.domain.lifecycle import Event, Status

_AMENDMENTS: Final = frozenset({Event.AMEND, Event.CORRECT, Event.APPEND})


@dataclass(frozen=True, slots=True)
class Author:
    """Who made a version, as it was known at that time."""

    id: str
    name: str
    kind: ActorKind

    @classmethod
    def of(cls, actor: Actor) -> Author:
        """The author that `actor` is."""
        return cls(actor.id, actor.name, actor.kind)


@dataclass(frozen=True, slots=True)
class Signature:
    """A clinician's attestation of one version."""

    signer_id: str
    signer_name: str
    signed_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class Report:
    """One version of a report. Versions count from 1; `event` and `author` say what made this one.

    `job_id` is the job whose result this version took in; `signature` is the newest one, kept until withdrawn.
    """

    id: str
    order_id: str
    version: int
    status: Status
    sections: tuple[Section, ...]
    created_at: datetime
    updated_at: datetime
    author: Author
    event: Event | None = None
    job_id: str | None = None
    reason: Reason | None = None
    signature: Signature | None = None

    @classmethod
    def register(cls, report_id: str, order_id: str, actor: Actor, now: datetime) -> Report:
        """The report of a new order: version 1, no text yet."""
        return cls(report_id, order_id, 1, Status.REGISTERED, (), now, now, Author.of(actor))

    def section(self, name: str) -> Section | None:
        """The section of that name, if there is one."""
        return next((section for section in self.sections if section.name == name), None)

    def fragment(self, fragment_id: str) -> Fragment | None:
        """The fragment with that id in whichever section it is."""
        found = (section.fragment(fragment_id) for section in self.sections)
        return next((fragment for fragment in found if fragment is not None), None)

    @property
    def is_signed(self) -> bool:
        """Whether a named clinician answers for this version."""
        return self.status in lifecycle.SIGNED_STATUSES

    @property
    def has_model_text(self) -> bool:
        """Whether any word of this version comes from the model."""
        return any(f.origin is Origin.MODEL for section in self.sections for f in section.fragments)

    def check_version(self, expected: int) -> None:
        """Raise Stale unless `expected` is the newest version (If-Match, checked inside the transaction)."""
        if self.version != expected:
            raise Stale("version-mismatch", f"The report is at version {self.version}.", "report.version")

    def start(self, actor: Actor, now: datetime) -> Report:
        """A worker begins the draft."""
        return self._next(Event.START, actor, now)

    def take_draft(self, sections: tuple[Section, ...], job_id: str, actor: Actor, now: datetime) -> Report:
        """The draft arrives; it replaces nothing that a clinician wrote, because no clinician has been here."""
        return replace(self._next(Event.DRAFT, actor, now), sections=sections, job_id=job_id)

    def take_infill(self, sections: tuple[Section, ...], job_id: str, actor: Actor, now: datetime) -> Report:
        """The model's text for the gaps arrives. Locked fragments must come back as they are."""
        after = replace(self._next(Event.INFILL, actor, now), sections=sections, job_id=job_id)
        _check_locks_kept(self, after)
        return after

    def fail(self, reason: Reason, actor: Actor, now: datetime) -> Report:
        """The draft cannot be made."""
        return replace(self._next(Event.FAIL, actor, now), reason=reason)

    def retry(self, actor: Actor, now: datetime) -> Report:
        """A failed draft is asked for again."""
        return self._next(Event.RETRY, actor, now)

    def open(self, actor: Actor, now: datetime) -> Report:
        """A clinician begins to read."""
        require(actor, Permission.EDIT_REPORTS)
        return self._next(Event.OPEN, actor, now)

    def edit(self, sections: tuple[Section, ...], actor: Actor, now: datetime) -> Report:
        """A clinician's text and locks."""
        require(actor, Permission.EDIT_REPORTS)
        return replace(self._next(Event.EDIT, actor, now), sections=sections)

    def sign(self, actor: Actor, now: datetime) -> Report:
        """A named clinician makes this version final, without the gaps in it; an empty report cannot be signed."""
        require(actor, Permission.SIGN_REPORTS)
        return _signed(self._next(Event.SIGN, actor, now), actor)

    def amend(self, kind: Event, sections: tuple[Section, ...], reason: Reason, actor: Actor, now: datetime) -> Report:
        """New text after sign-off, signed in the same act. `append` only adds at the end of sections."""
        require(actor, Permission.SIGN_REPORTS)
        if kind not in _AMENDMENTS:
            raise Invalid("unknown-amendment", "An amendment is one of amend, correct, append.", "kind")
        after = replace(self._next(kind, actor, now), sections=sections, reason=reason)
        if kind is Event.APPEND:
            _check_only_added(self, after)
        return _signed(after, actor)

    def cancel(self, reason: Reason, actor: Actor, now: datetime) -> Report:
        """The order was cancelled before a signature."""
        return replace(self._next(Event.CANCEL, actor, now), reason=reason)

    def retract(self, reason: Reason, actor: Actor, now: datetime) -> Report:
        """Withdraw a signed report."""
        require(actor, Permission.SIGN_REPORTS)
        return replace(self._next(Event.RETRACT, actor, now), reason=reason)

    def _next(self, event: Event, actor: Actor, now: datetime) -> Report:
        status = lifecycle.follow(self.status, event)
        return replace(
            self,
            version=self.version + 1,
            status=status,
            updated_at=now,
            author=Author.of(actor),
            event=event,
            job_id=None,
            reason=None,
        )


def _signed(report: Report, actor: Actor) -> Report:
    if not any(section.text.strip() for section in report.sections):
        raise Invalid("empty-report", "A report without text cannot be signed.", "report.sections")
    signature = Signature(actor.id, actor.name, report.updated_at, report.version)
    return replace(report, sections=without_gaps(report.sections), signature=signature)


def _locked(report: Report) -> dict[str, tuple[str, str]]:
    return {f.id: (section.name, f.text) for section in report.sections for f in section.fragments if f.locked}


def _check_locks_kept(before: Report, after: Report) -> None:
    """The last guard of rule 2: a result that lost or changed a locked fragment is a defect, not a draft."""
    kept = _locked(after)
    if any(kept.get(fragment_id) != where for fragment_id, where in _locked(before).items()):
        raise Fault("lock-broken", "The result would have changed locked text.", "report.sections")


def _check_only_added(before: Report, after: Report) -> None:
    texts = {section.name: section.text for section in after.sections}
    for section in before.sections:
        if not texts.get(section.name, "").startswith(section.text):
            raise Invalid("not-an-addition", "An addendum only adds at the end of a section.", section.name)
