from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from inlay_core.domain.errors import Fault, Forbidden, Invalid, Stale
from inlay_core.domain.fragment import Fragment, Origin, PlacedGap, Section
from inlay_core.domain.identity import Actor, ActorKind, Role
from inlay_core.domain.job import Reason
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.domain.report import Report
from inlay_testkit.core import ADMIN, COLLEAGUE, EHR, MONDAY, RADIOLOGIST, RIS, WORKER

LATER = MONDAY + timedelta(minutes=5)
WHY = Reason("why", "because")
LOCKED = Fragment("a", "Heart normal. ", Origin.CLINICIAN, locked=True)
TEXT = (Section("findings", (LOCKED, Fragment("b", "Clear.", Origin.MODEL))),)
REPORT = replace(Report.register("r", "o", RIS, MONDAY), status=Status.IN_REVIEW, version=5, sections=TEXT)
SIGNED = REPORT.sign(RADIOLOGIST, LATER)


def test_each_step_is_a_new_version_with_its_author() -> None:
    """A method returns the next version and says who made it when and by which event."""
    started = Report.register("r", "o", RIS, MONDAY).start(WORKER, LATER)
    assert (started.version, started.status, started.event) == (2, Status.DRAFTING, Event.START)
    assert (started.author.id, started.updated_at, started.created_at) == (WORKER.id, LATER, MONDAY)


def test_a_signature_names_clinician_moment_and_version() -> None:
    """Signing records who signed which version when, and keeps the text."""
    assert SIGNED.signature is not None
    assert (SIGNED.signature.signer_id, SIGNED.signature.signed_at, SIGNED.signature.version) == ("dr-1", LATER, 6)
    assert SIGNED.sections == TEXT
    assert SIGNED.is_signed


def test_what_was_not_written_is_not_signed() -> None:
    """Gaps are gone with the signature, of a first text and of an amendment."""
    holed = tuple(replace(section, gaps=(PlacedGap(1, "pleura"),)) for section in TEXT)
    assert replace(REPORT, sections=holed).sign(RADIOLOGIST, LATER).sections == TEXT
    assert SIGNED.amend(Event.CORRECT, holed, WHY, RADIOLOGIST, LATER).sections == TEXT


@pytest.mark.parametrize(
    "actor",
    [WORKER, RIS, EHR, ADMIN, Actor("bot", "Bot", frozenset({Role.RADIOLOGIST}), ActorKind.SYSTEM), Actor("x", "X")],
    ids=lambda actor: actor.id,
)
@pytest.mark.parametrize(
    "act",
    [
        lambda actor: REPORT.sign(actor, LATER),
        lambda actor: SIGNED.amend(Event.CORRECT, TEXT, WHY, actor, LATER),
        lambda actor: SIGNED.retract(WHY, actor, LATER),
        lambda actor: REPORT.edit(TEXT, actor, LATER),
        lambda actor: replace(REPORT, status=Status.DRAFTED).open(actor, LATER),
    ],
    ids=["sign", "amend", "retract", "edit", "open"],
)
def test_only_a_radiologist_in_person_signs_and_edits(act: Callable[[Actor], Report], actor: Actor) -> None:
    """The aggregate itself refuses anybody else, whatever the edge let through."""
    with pytest.raises(Forbidden):
        act(actor)


def test_a_report_without_text_cannot_be_signed() -> None:
    """Blanks are no report."""
    with pytest.raises(Invalid) as refused:
        replace(REPORT, sections=(Section("findings", (Fragment("x", " \n", Origin.CLINICIAN),)),)).sign(
            RADIOLOGIST, LATER
        )
    assert refused.value.code == "empty-report"


@pytest.mark.parametrize(
    "sections",
    [
        (),
        (Section("findings", (replace(LOCKED, text="Heart normal."),)),),
        (Section("findings", (replace(LOCKED, locked=False),)),),
        (Section("impression", (LOCKED,)),),
    ],
    ids=["dropped", "trimmed", "unlocked", "moved"],
)
def test_an_infill_that_breaks_a_lock_is_a_fault(sections: tuple[Section, ...]) -> None:
    """The last guard: a result in which a locked fragment is missing, changed, unlocked or moved is not taken in."""
    with pytest.raises(Fault) as refused:
        REPORT.take_infill(sections, "j", WORKER, LATER)
    assert refused.value.code == "lock-broken"


def test_another_version_is_stale() -> None:
    """If-Match is checked against the newest version."""
    REPORT.check_version(5)
    for other in (4, 6):
        with pytest.raises(Stale) as refused:
            REPORT.check_version(other)
        assert refused.value.code == "version-mismatch"


def test_an_amendment_is_signed_again() -> None:
    """A correction is a new version with a signature of its own and its reason."""
    new = (Section("findings", (replace(LOCKED, text="Heart enlarged. "),)),)
    corrected = SIGNED.amend(Event.CORRECT, new, WHY, COLLEAGUE, LATER)
    assert (corrected.status, corrected.version, corrected.reason) == (Status.CORRECTED, 7, WHY)
    assert corrected.signature is not None
    assert (corrected.signature.signer_id, corrected.signature.version) == ("dr-2", 7)
    with pytest.raises(Invalid):
        SIGNED.amend(Event.EDIT, new, WHY, COLLEAGUE, LATER)


def test_an_addendum_only_adds() -> None:
    """`append` keeps every signed section as the beginning of the new one."""
    findings = TEXT[0]
    added = (replace(findings, fragments=(*findings.fragments, Fragment("n", " Addendum.", Origin.CLINICIAN))),)
    assert SIGNED.amend(Event.APPEND, added, WHY, RADIOLOGIST, LATER).status is Status.APPENDED
    for other in ((), (replace(findings, fragments=findings.fragments[:1]),)):
        with pytest.raises(Invalid) as refused:
            SIGNED.amend(Event.APPEND, other, WHY, RADIOLOGIST, LATER)
        assert refused.value.code == "not-an-addition"


def test_a_withdrawn_report_keeps_its_signature_and_text() -> None:
    """Withdrawal is a status; what was signed, and by whom, stays readable."""
    withdrawn = SIGNED.retract(WHY, RADIOLOGIST, LATER)
    assert (withdrawn.status, withdrawn.signature, withdrawn.sections) == (
        Status.ENTERED_IN_ERROR,
        SIGNED.signature,
        TEXT,
    )
    assert not withdrawn.is_signed


def test_sections_find_their_fragments() -> None:
    """Sections and fragments are found by name and id; model text is recognised."""
    assert REPORT.section("findings") == TEXT[0]
    assert REPORT.section("impression") is None
    assert REPORT.fragment("a") == LOCKED
    assert REPORT.fragment("zz") is None
    assert REPORT.has_model_text
    assert not replace(REPORT, sections=()).has_model_text
