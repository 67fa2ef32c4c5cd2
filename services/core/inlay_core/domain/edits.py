"""A clinician's edits as whole ordered lists: which fragments keep their origin, and which locks forbid a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo

from inlay_core.domain.errors import Invalid, Locked
from inlay_core.domain.fragment import Fragment, Origin, Section, check_section_name, replace_sections
from inlay_core.domain.ids import NewId
from inlay_core.domain.prior import Examination


@dataclass(frozen=True, slots=True)
class FragmentEdit:
    """One fragment as the clinician wants it. Without id it is new; with id and without text it stays as it is."""

    id: str | None = None
    text: str | None = None
    locked: bool = False


@dataclass(frozen=True, slots=True)
class SectionEdit:
    """The whole ordered list of one section. Sections that are not named stay as they are."""

    name: str
    fragments: tuple[FragmentEdit, ...]


def edited(sections: tuple[Section, ...], edits: Sequence[SectionEdit], new_id: NewId) -> tuple[Section, ...]:
    """The sections after the edits.

    Unchanged text keeps its origin, changed text becomes the clinician's. Raises Invalid for unknown or repeated ids,
    Locked where a fragment that is and stays locked would change, or a locked fragment would vanish.
    """
    if len({edit.name for edit in edits}) != len(edits):
        raise Invalid("repeated-section", "A section is named once.", "sections")
    stored = {section.name: section for section in sections}
    new = [
        Section(
            check_section_name(edit.name, f"sections[{n}].name"),
            _edited_section(stored.get(edit.name, Section(edit.name)), edit, new_id, f"sections[{n}]"),
        )
        for n, edit in enumerate(edits)
    ]
    return replace_sections(sections, new)


def _edited_section(stored: Section, edit: SectionEdit, new_id: NewId, place: str) -> tuple[Fragment, ...]:
    unused = {fragment.id: fragment for fragment in stored.fragments}
    named: dict[int, Fragment] = {}
    for number, wanted in enumerate(edit.fragments):
        if wanted.id is None:
            continue
        fragment = unused.pop(wanted.id, None)
        if fragment is None:
            raise Invalid("unknown-fragment", "No such fragment, or named twice.", f"{place}.fragments[{number}].id")
        named[number] = fragment
    result = tuple(
        _edited_fragment(wanted, named.get(number), unused, new_id, f"{place}.fragments[{number}]")
        for number, wanted in enumerate(edit.fragments)
    )
    if any(fragment.locked for fragment in unused.values()):
        raise Locked("locked-fragment-missing", "A locked fragment must be unlocked before it is removed.", place)
    return result


def _edited_fragment(
    wanted: FragmentEdit, known: Fragment | None, unused: dict[str, Fragment], new_id: NewId, place: str
) -> Fragment:
    if known is None:
        if wanted.text is None:
            raise Invalid("text-missing", "A new fragment needs its text.", f"{place}.text")
        # Text that is already in the section keeps its id and origin: pasting the model's words back must not turn
        # them into a clinician's.
        known = next((fragment for fragment in unused.values() if fragment.text == wanted.text), None)
        if known is None:
            return Fragment(new_id(), wanted.text, Origin.CLINICIAN, wanted.locked)
        del unused[known.id]
    if wanted.text is None or wanted.text == known.text:
        return replace(known, locked=wanted.locked)
    if known.locked and wanted.locked:
        raise Locked("fragment-locked", "A locked fragment must be unlocked before its text changes.", place)
    return Fragment(known.id, wanted.text, Origin.CLINICIAN, wanted.locked)


def imported_indication(reason: str | None, new_id: NewId) -> tuple[Section, ...]:
    """The Indication section from the order's free text, if there is any."""
    if not reason:
        return ()
    return (Section("indication", (Fragment(new_id(), reason, Origin.IMPORTED),)),)


def imported_comparison(examinations: Sequence[Examination], zone: tzinfo, new_id: NewId) -> tuple[Section, ...]:
    """The Comparison section: earlier examinations by their date on the spot, each with its impression where known."""
    texts: list[str] = []
    for each in examinations:
        if each.at is None:
            continue
        what = each.description or "/".join(each.modalities) or "Study"
        texts.append(f"{what}, {each.at.astimezone(zone).date().isoformat()}. ")
        if each.impression:
            texts.append(f"Its impression: {each.impression} ")
    return (Section("comparison", tuple(Fragment(new_id(), t, Origin.IMPORTED) for t in texts)),) if texts else ()
