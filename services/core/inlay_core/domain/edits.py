"""A clinician's edits as whole ordered lists: which fragments keep their origin, and which locks forbid a change.

Words that the model wrote stay the model's when a sentence is cut in two, brought back by undo, or exchanged for
another text that the model offered: such edits name where the words are, and the words never make the trip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Any

from inlay_core.domain.errors import Invalid, Locked
from inlay_core.domain.fragment import Fragment, Origin, PlacedGap, Section, check_section_name, replace_sections
from inlay_core.domain.ids import NewId
from inlay_core.domain.prior import Examination, comparison_of
from inlay_core.domain.text import split_sentences


@dataclass(frozen=True, slots=True)
class Offered:
    """Text number `text` of those that job `job_id` offered for the gap that was item `item` of the section."""

    job_id: str
    item: int
    text: int


@dataclass(frozen=True, slots=True)
class FragmentEdit:
    """One fragment as the clinician wants it. Without id it is new; with id and without text it stays as it is.

    `version` means the fragment as it was in that version, `span` the characters [start, end) of it, `offered` a text
    of the model instead of a fragment.
    """

    id: str | None = None
    text: str | None = None
    locked: bool = False
    version: int | None = None
    span: tuple[int, int] | None = None
    offered: Offered | None = None


@dataclass(frozen=True, slots=True)
class SectionEdit:
    """The whole ordered list of one section. Sections that are not named stay as they are.

    The locks of the fragments in `unlocked` are lifted first. The places of `gaps` are numbers of edits.
    """

    name: str
    fragments: tuple[FragmentEdit, ...]
    unlocked: tuple[str, ...] = ()
    gaps: tuple[PlacedGap, ...] = ()


Earlier = Callable[[int], Sequence[Section]]
"""The sections of an earlier version of the report. Raises Invalid where there is none."""

Offers = Callable[[str], Sequence[Mapping[str, Any]]]
"""What a job of this report offered, as `Choice.to_json` writes it. Raises Invalid where there is no such job."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where an edit finds words that the current version of the report does not have."""

    earlier: Earlier
    offers: Offers


def _nothing(_named: object) -> Sequence[Any]:
    return ()


NO_SOURCES = Sources(_nothing, _nothing)


def edited(
    sections: tuple[Section, ...], edits: Sequence[SectionEdit], new_id: NewId, sources: Sources = NO_SOURCES
) -> tuple[Section, ...]:
    """The sections after the edits.

    Unchanged text keeps its origin, changed text becomes the clinician's. Raises Invalid for unknown or repeated ids,
    Locked where a fragment that is and stays locked would change, or a locked fragment would vanish.
    """
    if len({edit.name for edit in edits}) != len(edits):
        raise Invalid("repeated-section", "A section is named once.", "sections")
    stored = {section.name: section for section in sections}
    new = [
        _edited_section(
            stored.get(edit.name, Section(check_section_name(edit.name, f"sections[{n}].name"))),
            edit,
            new_id,
            sources,
            f"sections[{n}]",
        )
        for n, edit in enumerate(edits)
    ]
    return replace_sections(sections, new)


def _edited_section(stored: Section, edit: SectionEdit, new_id: NewId, sources: Sources, place: str) -> Section:
    stored = _unlocked(stored, edit.unlocked, place)
    unused = {fragment.id: fragment for fragment in stored.fragments}
    named = _named(stored, edit, sources, place)
    for number in named:
        unused.pop(edit.fragments[number].id or "", None)
    given: set[str] = set()
    result: list[Fragment] = []
    begins: list[int] = []
    for number, wanted in enumerate(edit.fragments):
        begins.append(len(result))
        where = f"{place}.fragments[{number}]"
        if wanted.offered is not None:
            text = _offered(wanted, wanted.offered, edit.name, sources, where)
            text = _spaced(text, result, last=number + 1 == len(edit.fragments))
            result += [
                Fragment(new_id(), piece, Origin.MODEL, wanted.locked, job_id=wanted.offered.job_id)
                for piece in split_sentences(text)
            ]
            continue
        known = named.get(number)
        if known is not None and wanted.span is None and wanted.version is None:
            fragment = _edited_fragment(wanted, known, unused, new_id, where)
        elif known is not None:
            fragment = _kept_words(wanted, known, stored.fragment(known.id), where)
        else:
            fragment = _edited_fragment(wanted, None, unused, new_id, where)
        # The second piece of a cut sentence is a fragment of its own.
        result.append(replace(fragment, id=new_id()) if fragment.id in given else fragment)
        given.add(fragment.id)
    if any(fragment.locked for fragment in unused.values()):
        raise Locked("locked-fragment-missing", "A locked fragment must be unlocked before it is removed.", place)
    return Section(stored.name, tuple(result), _placed(edit.gaps, [*begins, len(result)], place))


def _placed(gaps: Sequence[PlacedGap], begins: Sequence[int], place: str) -> tuple[PlacedGap, ...]:
    """The gaps between fragments. An edit may stand for several fragments: `begins` says where each one begins."""
    for number, gap in enumerate(gaps):
        if not 0 <= gap.at < len(begins):
            raise Invalid("bad-gap", "A gap stands between the fragments of its section.", f"{place}.gaps[{number}].at")
    return tuple(replace(gap, at=begins[gap.at]) for gap in sorted(gaps, key=lambda gap: gap.at))


def _unlocked(stored: Section, ids: Sequence[str], place: str) -> Section:
    if not all(stored.fragment(fragment_id) for fragment_id in ids):
        raise Invalid("unknown-fragment", "No such fragment in the section.", f"{place}.unlocked")
    free = set(ids)
    return replace(stored, fragments=tuple(replace(f, locked=False) if f.id in free else f for f in stored.fragments))


def _named(stored: Section, edit: SectionEdit, sources: Sources, place: str) -> dict[int, Fragment]:
    """The fragments that the edits name, by the number of the edit. No character of one is named twice."""
    named: dict[int, Fragment] = {}
    taken: dict[tuple[str, int | None], list[tuple[int, int] | None]] = {}
    for number, wanted in enumerate(edit.fragments):
        if wanted.id is None:
            continue
        where = f"{place}.fragments[{number}]"
        fragment = _meant(wanted, wanted.id, stored, sources)
        if fragment is None:
            raise Invalid("unknown-fragment", "No such fragment, or named twice.", f"{where}.id")
        start, end = wanted.span or (0, len(fragment.text))
        if not 0 <= start <= end <= len(fragment.text) or (wanted.span is not None and wanted.text is not None):
            raise Invalid("bad-span", "A span is [start, end) of the fragment, and has no text.", f"{where}.span")
        others = taken.setdefault((wanted.id, wanted.version), [])
        if any(_clash(wanted.span, other) for other in others):
            raise Invalid("unknown-fragment", "No such fragment, or named twice.", f"{where}.id")
        others.append(wanted.span)
        named[number] = fragment
    return named


def _clash(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    """Whether two spans of a fragment share a character. None is the whole, which leaves not even an empty span."""
    return one is None or other is None or max(one[0], other[0]) < min(one[1], other[1])


def _meant(wanted: FragmentEdit, fragment_id: str, stored: Section, sources: Sources) -> Fragment | None:
    if wanted.version is None:
        return stored.fragment(fragment_id)
    then = [section for section in sources.earlier(wanted.version) if section.name == stored.name]
    return then[0].fragment(fragment_id) if then else None


def _kept_words(wanted: FragmentEdit, source: Fragment, current: Fragment | None, place: str) -> Fragment:
    """Words of `source`, whole or in part, with their origin; `current` is the fragment that has this id now."""
    if wanted.text is not None:
        raise Invalid("bad-span", "Words that are brought back have no text.", f"{place}.text")
    start, end = wanted.span or (0, len(source.text))
    text = source.text[start:end]
    if current is not None and current.locked and wanted.locked and text != current.text:
        raise Locked("fragment-locked", "A locked fragment must be unlocked before its text changes.", place)
    warnings = source.warnings if text == source.text else ()
    return replace(source, text=text, locked=wanted.locked, warnings=warnings)


def _offered(wanted: FragmentEdit, offered: Offered, section: str, sources: Sources, place: str) -> str:
    gaps = [one for one in sources.offers(offered.job_id) if (one["section"], one["item"]) == (section, offered.item)]
    texts = gaps[0]["texts"] if gaps else ()
    if not 0 <= offered.text < len(texts) or wanted.id is not None or wanted.text is not None:
        raise Invalid("unknown-offer", "The job offered no such text for the section.", f"{place}.offered")
    text: str = texts[offered.text]["text"]
    return text


def _spaced(text: str, before: Sequence[Fragment], *, last: bool) -> str:
    """The words with a blank where they would touch their neighbours."""
    if text and before and before[-1].text and not before[-1].text[-1].isspace():
        text = " " + text
    return text if last or not text or text[-1].isspace() else text + " "


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
    for each in filter(None, (comparison_of(one, zone) for one in examinations)):
        texts.append(f"{each.what}, {each.on.isoformat()}. ")
        if each.impression:
            texts.append(f"Its impression: {each.impression} ")
    return (Section("comparison", tuple(Fragment(new_id(), t, Origin.IMPORTED) for t in texts)),) if texts else ()
