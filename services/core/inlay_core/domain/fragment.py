"""Fragments and sections of report text. A section's text is exactly the concatenation of its fragments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from inlay_core.domain.errors import Invalid
from inlay_core.domain.text import refuse_unstorable, sha256_of

SECTION_NAMES: Final = ("indication", "technique", "comparison", "findings", "impression")
"""The sections that a report may have, in their usual order, which is also that in which a model writes them."""


class Origin(StrEnum):
    """Who a fragment's words come from."""

    MODEL = "model"
    CLINICIAN = "clinician"
    IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class FragmentWarning:
    """Where the model disagrees with a locked word: characters [start, end) of the fragment. Shown, never applied."""

    code: str
    message: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """A span of report text, normally a sentence with the blank that follows it.

    `job_id` names the job whose run record made the words, for fragments of origin model.
    """

    id: str
    text: str
    origin: Origin
    locked: bool = False
    warnings: tuple[FragmentWarning, ...] = ()
    job_id: str | None = None

    def __post_init__(self) -> None:
        refuse_unstorable(self.text, "fragment.text")

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the text."""
        return sha256_of(self.text)


@dataclass(frozen=True, slots=True)
class PlacedGap:
    """A gap that a clinician left in the text: before fragment number `at`, at the end for their count.

    It is no part of the text, and goes when it is filled or the report is signed. `hint` is for the model.
    """

    at: int
    hint: str = ""

    def __post_init__(self) -> None:
        refuse_unstorable(self.hint, "gap.hint")


@dataclass(frozen=True, slots=True)
class Section:
    """One named part of a report."""

    name: str
    fragments: tuple[Fragment, ...] = ()
    gaps: tuple[PlacedGap, ...] = ()

    @property
    def text(self) -> str:
        """The concatenation of the fragments, nothing added."""
        return "".join(fragment.text for fragment in self.fragments)

    def fragment(self, fragment_id: str) -> Fragment | None:
        """The fragment with that id, if it is in this section."""
        return next((fragment for fragment in self.fragments if fragment.id == fragment_id), None)


def check_section_name(name: str, place: str) -> str:
    """Return `name` when a report can have such a section; raise Invalid otherwise."""
    if name not in SECTION_NAMES:
        raise Invalid("unknown-section", f"A section is one of {', '.join(SECTION_NAMES)}.", place)
    return name


def without_gaps(sections: Iterable[Section]) -> tuple[Section, ...]:
    """The sections as they are signed: what was not written is not there."""
    return tuple(replace(section, gaps=()) for section in sections)


def order_of_sections(named: Sequence[str], place: str) -> tuple[str, ...]:
    """All names of sections: first those that are not in `named`, as usual, then these. Raises Invalid."""
    for name in named:
        check_section_name(name, place)
    if len(set(named)) < len(named):
        raise Invalid("repeated-section", "A section is named once.", place)
    return (*(name for name in SECTION_NAMES if name not in named), *named)


def in_order(sections: Iterable[Section], order: Sequence[str]) -> tuple[Section, ...]:
    """The sections in this order, which has the names of all that there may be."""
    return tuple(sorted(sections, key=lambda section: order.index(section.name)))


def replace_sections(sections: tuple[Section, ...], new: Iterable[Section]) -> tuple[Section, ...]:
    """`sections` with those of `new` in place of the ones of the same name, or at the end; the others are untouched."""
    by_name = {section.name: section for section in sections} | {section.name: section for section in new}
    return tuple(by_name.values())
