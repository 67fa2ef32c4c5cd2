from __future__ import annotations

from collections.abc import Callable

import pytest

from inlay_core.application import editing, signing
from inlay_core.application.ports import Destination, Site
from inlay_core.domain.edits import FragmentEdit, SectionEdit
from inlay_core.domain.errors import Conflict, Forbidden, Invalid, NotFound, Stale
from inlay_core.domain.fragment import Origin
from inlay_core.domain.identity import Actor, ActorKind, Role
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.domain.report import Report
from inlay_testkit.core import ADMIN, COLLEAGUE, EHR, RADIOLOGIST, RIS, WORKER, Ward
from inlay_testkit.memory import Memory

HAND = [SectionEdit("impression", (FragmentEdit(text="Written by hand."),))]


@pytest.fixture
def memory() -> Memory:
    """An empty database in memory."""
    return Memory()


@pytest.fixture
def ward(memory: Memory) -> Ward:
    """A ward whose reports are published."""
    return Ward(memory(), site=Site(destinations=(Destination.ORU,)))


def sign(ward: Ward, report: Report, actor: Actor = RADIOLOGIST) -> Report:
    """Sign the version that is in `report`."""
    return signing.sign(*ward.trio, actor, report.id, expected_version=report.version, site=ward.site)


def test_opening_a_draft_puts_it_in_review_once(ward: Ward) -> None:
    """The first opening is a version; opening again is not."""
    report = ward.drafted()
    opened = editing.open_report(*ward.trio, RADIOLOGIST, report.id, expected_version=3)
    assert (opened.status, opened.version, opened.sections) == (Status.IN_REVIEW, 4, report.sections)
    assert editing.open_report(*ward.trio, COLLEAGUE, report.id, expected_version=4) == opened


def test_an_edit_is_a_version_by_its_clinician(ward: Ward) -> None:
    """Edits make a version in review whose author is the clinician; other sections stay."""
    report = ward.drafted()
    edited = editing.put_fragments(*ward.trio, RADIOLOGIST, report.id, expected_version=3, edits=HAND)
    assert (edited.status, edited.version, edited.author.id) == (Status.IN_REVIEW, 4, "dr-1")
    assert edited.section("findings") == report.section("findings")
    assert [f.origin for f in edited.sections[1].fragments] == [Origin.CLINICIAN]
    assert ward.tags(report.id)[-1] == "clinician:report:edited"


def test_reports_have_their_sections_in_the_sites_order(memory: Memory) -> None:
    """Every version has: that of the draft, of an edit that adds a section, and of an amendment."""
    order = ("indication", "technique", "comparison", "impression", "findings")
    ward = Ward(memory(), site=Site(section_order=order))
    drafted = ward.drafted()
    assert [section.name for section in drafted.sections] == ["impression", "findings"]
    edited = editing.put_fragments(
        *ward.trio,
        RADIOLOGIST,
        drafted.id,
        expected_version=3,
        edits=[SectionEdit("technique", (FragmentEdit(text="PA."),))],
        site=ward.site,
    )
    assert [section.name for section in edited.sections] == ["technique", "impression", "findings"]
    signed = sign(ward, edited)
    amended = signing.amend(
        *ward.trio,
        RADIOLOGIST,
        signed.id,
        expected_version=signed.version,
        kind=Event.AMEND,
        edits=HAND,
        reason="Late finding",
        site=ward.site,
    )
    assert [section.name for section in amended.sections] == ["technique", "impression", "findings"]


@pytest.mark.parametrize("expected_version", [1, 2, 4])
def test_writing_on_another_version_is_refused(ward: Ward, expected_version: int) -> None:
    """Every write needs the newest version, and a refused one changes nothing."""
    report = ward.drafted()
    acts: list[Callable[[], object]] = [
        lambda: editing.put_fragments(
            *ward.trio, RADIOLOGIST, report.id, expected_version=expected_version, edits=HAND
        ),
        lambda: editing.open_report(*ward.trio, RADIOLOGIST, report.id, expected_version=expected_version),
        lambda: signing.sign(*ward.trio, RADIOLOGIST, report.id, expected_version=expected_version),
        lambda: signing.retract(*ward.trio, RADIOLOGIST, report.id, expected_version=expected_version, reason="x"),
    ]
    for act in acts:
        with pytest.raises(Stale):
            act()
    assert ward.report(report.id) == report


def test_a_report_can_be_written_without_any_draft(ward: Ward) -> None:
    """Where the model fails or is switched off, a clinician writes and signs by hand."""
    report = ward.order()
    edited = editing.put_fragments(*ward.trio, RADIOLOGIST, report.id, expected_version=1, edits=HAND)
    assert sign(ward, edited).status is Status.SIGNED


def test_signing_tells_other_systems(ward: Ward, memory: Memory) -> None:
    """The signed version is queued for the RIS in the same transaction, after the draft."""
    report = ward.drafted()
    edited = editing.put_fragments(*ward.trio, RADIOLOGIST, report.id, expected_version=3, edits=HAND)
    signed = sign(ward, edited)
    items = [item for item in memory.world.outbox.values() if item.destination == Destination.ORU]
    assert [(item.payload["version"], item.payload["status"]) for item in items] == [
        (3, "drafted"),
        (signed.version, "signed"),
    ]
    assert {item.key for item in items} == {report.id}
    assert len({item.control_id for item in items}) == 2


def test_signing_an_unopened_draft_opens_it_first(ward: Ward) -> None:
    """Two versions and two events: the trail shows that nobody had opened the draft before."""
    report = ward.drafted()
    signed = sign(ward, report)
    assert signed.version == 5
    assert ward.tags(report.id)[-2:] == ["clinician:report:opened", "clinician:report:signed"]


@pytest.mark.parametrize(
    "actor",
    [WORKER, RIS, EHR, ADMIN, Actor("bot", "Bot", frozenset({Role.RADIOLOGIST}), ActorKind.SYSTEM)],
    ids=lambda actor: actor.id,
)
def test_nobody_but_a_radiologist_signs(ward: Ward, actor: Actor) -> None:
    """Worker, systems and administrators cannot sign, and the attempt changes nothing."""
    report = ward.drafted()
    with pytest.raises(Forbidden):
        sign(ward, report, actor)
    assert ward.report(report.id) == report


@pytest.mark.parametrize("status", [Status.REGISTERED, Status.SIGNED])
def test_only_a_reviewed_text_is_signed(ward: Ward, status: Status) -> None:
    """A report that has no text yet, or is signed already, cannot be signed."""
    report = ward.order()
    if status is Status.SIGNED:
        report = sign(ward, ward.draft())
    with pytest.raises(Conflict):
        sign(ward, report)


def test_a_signed_report_is_not_edited(ward: Ward) -> None:
    """After sign-off text changes only by an amendment."""
    signed = sign(ward, ward.drafted())
    with pytest.raises(Conflict):
        editing.put_fragments(*ward.trio, RADIOLOGIST, signed.id, expected_version=signed.version, edits=HAND)


@pytest.mark.parametrize(
    ("kind", "status"),
    [(Event.AMEND, Status.AMENDED), (Event.CORRECT, Status.CORRECTED)],
)
def test_a_change_after_sign_off_is_signed_with_its_reason(ward: Ward, kind: Event, status: Status) -> None:
    """Amending and correcting make a signed version with the clinician's reason, which stays out of the trail."""
    signed = sign(ward, ward.drafted())
    amended = signing.amend(
        *ward.trio,
        COLLEAGUE,
        signed.id,
        expected_version=signed.version,
        kind=kind,
        edits=HAND,
        reason="Mrs. Testperson called",
        site=ward.site,
    )
    assert (amended.status, amended.signature.signer_id if amended.signature else None) == (status, "dr-2")
    assert amended.reason is not None
    assert amended.reason.text == "Mrs. Testperson called"
    with ward.uow as uow:
        assert all("Testperson" not in event.canonical() for event in uow.audit.of_report(signed.id))
        assert uow.reports.version(signed.id, signed.version) == signed


def test_an_addendum_is_added_at_the_end(ward: Ward) -> None:
    """`append` takes new text after the signed one, and nothing else."""
    signed = sign(ward, ward.drafted())
    kept = tuple(FragmentEdit(f.id) for f in signed.sections[1].fragments)

    def append(*fragments: FragmentEdit) -> Report:
        return signing.amend(
            *ward.trio,
            RADIOLOGIST,
            signed.id,
            expected_version=signed.version,
            kind=Event.APPEND,
            edits=[SectionEdit("impression", fragments)],
            reason="Prior images arrived.",
        )

    with pytest.raises(Invalid):
        append(FragmentEdit(text="Instead."))
    assert append(*kept, FragmentEdit(text=" Addendum.")).sections[1].text == "No acute findings. Addendum."


def test_a_report_is_withdrawn_with_a_reason(ward: Ward, memory: Memory) -> None:
    """Withdrawal needs a reason, is told to the RIS, and is the end."""
    signed = sign(ward, ward.drafted())
    with pytest.raises(Invalid):
        signing.retract(*ward.trio, RADIOLOGIST, signed.id, expected_version=signed.version, reason=" ")
    gone = signing.retract(
        *ward.trio, RADIOLOGIST, signed.id, expected_version=signed.version, reason="Wrong patient", site=ward.site
    )
    assert gone.status is Status.ENTERED_IN_ERROR
    assert [*memory.world.outbox.values()][-1].payload["status"] == "entered-in-error"
    with pytest.raises(Conflict):
        signing.retract(*ward.trio, RADIOLOGIST, signed.id, expected_version=gone.version, reason="again")


def test_unknown_reports_are_not_found(ward: Ward) -> None:
    """An id that nobody knows is an error of its own."""
    with pytest.raises(NotFound):
        signing.sign(*ward.trio, RADIOLOGIST, "nothing", expected_version=1)
