"""What became of a draft, as the stored versions tell: how much of it was signed, how fast, and how disputes ended.

Sentences are compared as text, whoever cut them into fragments. Nothing here holds a word of a report or a patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from difflib import SequenceMatcher
from enum import StrEnum
from statistics import fmean, median
from typing import Any, Final

from inlay_core.domain.fragment import SECTION_NAMES, Fragment, Origin, Section
from inlay_core.domain.job import Job, JobKind, JobState
from inlay_core.domain.lifecycle import Event
from inlay_core.domain.order import Order
from inlay_core.domain.report import Report
from inlay_core.domain.text import split_sentences

# A sentence of which half of the words are still there, in their order, was edited; with less it was written anew.
EDITED_FROM: Final = 0.5
# Case and points are no words; "1.5" is one.
_WORD: Final = re.compile(r"\w+(?:[.,]\w+)*")
_BEGINS_REVIEW: Final = frozenset({Event.OPEN, Event.EDIT, Event.INFILL})


class Outcome(StrEnum):
    """Where a draft ended, as far as its text matters."""

    SIGNED = "signed"
    OPEN = "open"
    DROPPED = "dropped"
    """The order was cancelled, or the report withdrawn before it was signed."""


@dataclass(frozen=True, slots=True)
class SectionUse:
    """Sentences of a drafted section by their fate, those that were added, and the edit distance.

    The distance counts words inserted, removed or exchanged from draft to signed text, as a share of the longer text.
    """

    name: str
    kept: int
    edited: int
    deleted: int
    added: int
    distance: float


@dataclass(frozen=True, slots=True)
class Disputes:
    """Locked words that the model held to be wrong, and what the signed text says of each."""

    kept: int = 0
    changed: int = 0
    removed: int = 0
    # Of a report that is not signed.
    open: int = 0

    @property
    def raised(self) -> int:
        """All of them."""
        return self.kept + self.changed + self.removed + self.open


@dataclass(frozen=True, slots=True)
class Usage:
    """One draft: which model made it, for which site and modality, when, and what became of it. Times are seconds."""

    report_id: str
    drafted_at: datetime
    model: str
    model_digest: str
    adapter_digest: str
    site: str
    modality: str
    outcome: Outcome
    infills: int
    order_to_draft: float
    draft_to_open: float | None
    open_to_sign: float | None
    sections: tuple[SectionUse, ...]
    disputes: Disputes

    @property
    def is_untouched(self) -> bool:
        """Whether it was signed as it was drafted: figures of care, not only of quality."""
        changes = sum(section.edited + section.deleted + section.added for section in self.sections)
        return self.outcome is Outcome.SIGNED and changes == 0


def usage_of(versions: Sequence[Report], jobs: Sequence[Job], order: Order) -> Usage | None:
    """What became of the draft among these versions (the first one first); None when there is none."""
    drafted = _first(versions, {Event.DRAFT})
    if drafted is None:
        return None
    after = [version for version in versions if version.version > drafted.version]
    opened, signed = _first(after, _BEGINS_REVIEW), _first(after, {Event.SIGN})
    run = next((job.run_record for job in jobs if job.id == drafted.job_id and job.run_record), {})
    infills = sum(job.kind is JobKind.INFILL and job.state is JobState.SUCCEEDED for job in jobs)
    return Usage(
        drafted.id,
        drafted.updated_at,
        model=_text(run, "model"),
        model_digest=_text(run, "model_digest"),
        adapter_digest=_text(run, "adapter_digest"),
        site=order.assigner,
        modality=order.modality or "",
        outcome=_outcome(versions[-1], signed),
        infills=infills,
        order_to_draft=_seconds(drafted.created_at, drafted),
        draft_to_open=_seconds(drafted.updated_at, opened) if opened else None,
        open_to_sign=_seconds(opened.updated_at, signed) if opened and signed else None,
        sections=_sections(drafted, signed) if signed else (),
        disputes=_disputes(after, signed),
    )


def _first(versions: Iterable[Report], events: Iterable[Event]) -> Report | None:
    wanted = frozenset(events)
    return next((version for version in versions if version.event in wanted), None)


def _text(run: Mapping[str, Any], key: str) -> str:
    return str(run.get(key) or "")


def _seconds(since: datetime, version: Report) -> float:
    return max(0.0, (version.updated_at - since).total_seconds())


def _outcome(newest: Report, signed: Report | None) -> Outcome:
    if signed is not None:
        return Outcome.SIGNED
    return Outcome.OPEN if newest.status.is_unsigned else Outcome.DROPPED


# ---------------------------------------------------------------------------------------------- sentences


def _sections(drafted: Report, signed: Report) -> tuple[SectionUse, ...]:
    final = {section.name: _words_of_people(section) for section in signed.sections}
    return tuple(
        section_use(section.name, text, final.get(section.name, ""))
        for section in drafted.sections
        if (text := "".join(f.text for f in section.fragments if f.origin is Origin.MODEL)).strip()
    )


def _words_of_people(section: Section) -> str:
    return "".join(f.text for f in section.fragments if f.origin is not Origin.IMPORTED)


def section_use(name: str, draft: str, final: str) -> SectionUse:
    """What became of a drafted section: each sentence of the draft is kept, edited or deleted."""
    before = [sentence.split() for sentence in split_sentences(draft)]
    left = [sentence.split() for sentence in split_sentences(final)]
    missing = []
    for sentence in before:
        if sentence in left:
            left.remove(sentence)
        else:
            missing.append(sentence)
    edited = 0
    for sentence in missing:
        likest = max(left, key=lambda other: _likeness(sentence, other), default=None)
        if likest is not None and _likeness(sentence, likest) >= EDITED_FROM:
            left.remove(likest)
            edited += 1
    kept = len(before) - len(missing)
    distance = word_distance(_words(draft), _words(final))
    return SectionUse(name, kept, edited, len(missing) - edited, len(left), distance)


def _likeness(first: Sequence[str], second: Sequence[str]) -> float:
    one, other = (_words(" ".join(sentence)) for sentence in (first, second))
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def word_distance(first: Sequence[str], second: Sequence[str]) -> float:
    """The Levenshtein distance of two texts in words, as a share of the longer one: 0 is the same, 1 nothing is."""
    if not first or not second:
        return 0.0 if first == second else 1.0
    row = list(range(len(second) + 1))
    for number, word in enumerate(first, start=1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(second, start=1):
            cost = min(row[place] + 1, row[place - 1] + 1, diagonal + (word != other))
            diagonal, row[place] = row[place], cost
    return row[-1] / max(len(first), len(second))


def _disputes(versions: Sequence[Report], signed: Report | None) -> Disputes:
    """Each disputed span once, by what the signed version has at its fragment."""
    spans: dict[tuple[str, int, int], Fragment] = {}
    for version in versions:
        for section in version.sections:
            for fragment in section.fragments:
                for warning in fragment.warnings:
                    spans.setdefault((fragment.id, warning.start, warning.end), fragment)
    if signed is None:
        return Disputes(open=len(spans))
    kept = changed = removed = 0
    for (fragment_id, start, end), fragment in spans.items():
        now = signed.fragment(fragment_id)
        removed += now is None
        kept += now is not None and now.text[start:end] == fragment.text[start:end]
        changed += now is not None and now.text[start:end] != fragment.text[start:end]
    return Disputes(kept, changed, removed)


# ---------------------------------------------------------------------------------------------- summaries


class Step(StrEnum):
    """How time is cut."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    ALL = "all"

    def of(self, moment: datetime, zone: tzinfo) -> str:
        """The step that a moment falls into: 2026-03-02, 2026-W10, 2026-03, or `all`."""
        local = moment.astimezone(zone)
        year, week, _ = local.isocalendar()
        return {
            Step.DAY: f"{local:%Y-%m-%d}",
            Step.WEEK: f"{year}-W{week:02}",
            Step.MONTH: f"{local:%Y-%m}",
            Step.ALL: "all",
        }[self]


@dataclass(frozen=True, slots=True)
class Spread:
    """Times of several drafts, in seconds: how many, the median, and what nine of ten stay below."""

    number: int
    median: float
    ninth_tenth: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The drafts of one model and adapter in one step of time. Shares of sentences are of signed reports."""

    step: str
    model: str
    model_digest: str
    adapter_digest: str
    drafts: int
    signed: int
    dropped: int
    untouched: int
    infills: int
    kept: int
    edited: int
    deleted: int
    added: int
    # Section -> mean edit distance.
    distances: Mapping[str, float]
    order_to_draft: Spread | None
    draft_to_open: Spread | None
    open_to_sign: Spread | None
    disputes: Disputes

    def share(self, part: int) -> float | None:
        """`part` as a share of the drafted sentences of signed reports; None without any."""
        sentences = self.kept + self.edited + self.deleted
        return part / sentences if sentences else None


def summaries(usages: Iterable[Usage], step: Step, zone: tzinfo) -> list[Summary]:
    """The figures by time, model and adapter."""
    groups: dict[tuple[str, str, str, str], list[Usage]] = {}
    for usage in usages:
        key = (step.of(usage.drafted_at, zone), usage.model, usage.model_digest, usage.adapter_digest)
        groups.setdefault(key, []).append(usage)
    return [_summary(key, group) for key, group in sorted(groups.items())]


def _summary(key: tuple[str, str, str, str], group: Sequence[Usage]) -> Summary:
    sections = [section for usage in group for section in usage.sections]
    distances = {
        name: fmean(section.distance for section in sections if section.name == name)
        for name in SECTION_NAMES
        if any(section.name == name for section in sections)
    }
    return Summary(
        *key,
        drafts=len(group),
        signed=sum(usage.outcome is Outcome.SIGNED for usage in group),
        dropped=sum(usage.outcome is Outcome.DROPPED for usage in group),
        untouched=sum(usage.is_untouched for usage in group),
        infills=sum(usage.infills for usage in group),
        kept=sum(section.kept for section in sections),
        edited=sum(section.edited for section in sections),
        deleted=sum(section.deleted for section in sections),
        added=sum(section.added for section in sections),
        distances=distances,
        order_to_draft=spread(usage.order_to_draft for usage in group),
        draft_to_open=spread(usage.draft_to_open for usage in group),
        open_to_sign=spread(usage.open_to_sign for usage in group),
        disputes=Disputes(
            *(sum(getattr(usage.disputes, name) for usage in group) for name in ("kept", "changed", "removed", "open"))
        ),
    )


def spread(times: Iterable[float | None]) -> Spread | None:
    """The spread of the times that are known."""
    known = sorted(time for time in times if time is not None)
    if not known:
        return None
    # Nearest rank: an observed time, also of few.
    return Spread(len(known), median(known), known[-(-len(known) * 9 // 10) - 1])
