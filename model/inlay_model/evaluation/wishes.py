"""Wishes and single sections on phantoms: Impression from Findings, a hinted gap, a report in another style.

The reference reports are the grammar's, and the grammar reads what was written. Hints, rewriting and Impression without
the image are tried with checkpoints that say they were trained for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inlay_model.backend import Backend
from inlay_model.evaluation.known_findings import read
from inlay_model.evaluation.text_alone import Concluded, concluded
from inlay_model.loading import About
from inlay_model.phantom.findings import Findings
from inlay_model.phantom.grammar import STYLES, PhantomReport, read_sentences, split_sentences, write_report
from inlay_model.phantom.render import Phantom
from inlay_model.request import Filled, Gap, GenerationSettings, Item, Lock, PromptContext, Section
from inlay_model.training.wishes import hint_for

# In so many reports of one phantom every phrasing and every term of a style comes up.
_REPORTS = 96
# How many of the other sentences stand beside a hinted gap: few, so that several things are missing.
_KEPT = 0.4


@dataclass(frozen=True, slots=True)
class Granted:
    """Whether each wish was granted; None where it was not tried.

    `impression`: Impression beside the reference's; `alone`: the same without the image. `hint` and `no_hint`: the gap
    states the facts of the hinted sentence, with the hint and without. `rewritten`: the report states the phantom's
    findings in sentences of the grammar; `in_style`: and all that was not locked is of the style; `locks_kept`: what
    was locked is there.
    """

    impression: Concluded
    alone: Concluded | None = None
    hint: bool | None = None
    no_hint: bool | None = None
    rewritten: bool | None = None
    in_style: bool | None = None
    locks_kept: bool | None = None


def granted(engine: Backend, shown: Phantom, report: PhantomReport, settings: GenerationSettings) -> Granted:
    """Try all of it on one phantom."""
    about: About | None = getattr(getattr(engine, "checkpoint", None), "about", None)
    seen = concluded(engine, shown, report, settings, image=True)
    alone: Concluded | None = None
    if about is not None and about.fills_without_image:
        alone = concluded(engine, shown, report, settings, image=False)
    # A generator of its own, so that the other verdicts do not depend on whether this was tried.
    rng = np.random.default_rng([shown.seed, 6])
    hints: tuple[bool | None, bool | None] = (None, None)
    if about is not None and about.takes_hints:
        hints = _hinted(engine, shown, report, settings, rng)
    rewritten: tuple[bool | None, ...] = (None, None, None)
    if about is not None and about.rewrites:
        rewritten = _rewritten(engine, shown, report.style, settings, rng)
    return Granted(seen, alone, *hints, *rewritten)


def _hinted(
    engine: Backend, shown: Phantom, report: PhantomReport, settings: GenerationSettings, rng: np.random.Generator
) -> tuple[bool, bool]:
    body = dict(report.sections)["findings"]
    at = int(rng.integers(len(body)))
    kept = rng.random(len(body)) < _KEPT
    hint = hint_for(body[at], rng)

    def follows(said: str | None) -> bool:
        gap: Item = Gap(hint=said)
        items = tuple(gap if n == at else Lock(f"{text} ") for n, text in enumerate(body) if n == at or kept[n])
        asked = (Section("findings", items), Section("impression", (Lock(report.text("impression")),)))
        written = _written(engine.infill([shown.image], asked, settings=settings))
        return read_sentences([body[at]]).stated <= read(written).stated

    return follows(hint), follows(None)


def _rewritten(
    engine: Backend, shown: Phantom, style: str, settings: GenerationSettings, rng: np.random.Generator
) -> tuple[bool, bool, bool]:
    others = [other for other in STYLES if other != style]
    source = write_report(shown.findings, others[int(rng.integers(len(others)))], rng)
    body = dict(source.sections)["findings"]
    # In every second phantom one sentence is locked as it stands.
    locked = int(rng.integers(len(body))) if shown.seed % 2 else None
    asked = to_be_rewritten(source, locked)
    answer = engine.infill([shown.image], asked, settings=settings, context=PromptContext(style, rewrite=True))
    whole = [sentence for section in answer.sections for sentence in split_sentences(section.text)]
    reading = read(answer.sections[0].text)
    free = [sentence for sentence in whole if locked is None or sentence != body[locked]]
    same = reading.findings() == shown.findings and not read_sentences(whole).unknown
    return same, same and set(free) <= sentences_of(shown.findings, style), _keeps(asked, answer)


def to_be_rewritten(source: PhantomReport, locked: int | None) -> tuple[Section, ...]:
    """The report with everything free to change but one sentence of Findings, or with nothing locked."""
    body = dict(source.sections)["findings"]
    at = len(body) if locked is None else locked
    parts: Sequence[Item | None] = (
        _free(body[:at]),
        Lock(f"{body[at]} ") if at < len(body) else None,
        _free(body[at + 1 :]),
    )
    items = tuple(part for part in parts if part is not None)
    return Section("findings", items), Section("impression", (Gap(replaces=source.text("impression")),))


def sentences_of(findings: Findings, style: str) -> set[str]:
    """Every sentence that this style has for these findings."""
    reports = [write_report(findings, style, np.random.default_rng(seed)) for seed in range(_REPORTS)]
    return {sentence for report in reports for _, written in report.sections for sentence in written}


def _keeps(asked: Sequence[Section], answer: Filled) -> bool:
    """Whether every lock came back byte for byte in its place, whether or not what stands before it is a sentence."""
    return all(
        [piece.text for piece in there.pieces if piece.item == at] == [item.text]
        for section, there in zip(asked, answer.sections, strict=True)
        for at, item in enumerate(section.items)
        if isinstance(item, Lock)
    )


def _free(sentences: Sequence[str]) -> Gap | None:
    return Gap(replaces=" ".join(sentences)) if sentences else None


def _written(answer: Filled) -> str:
    return " ".join(piece.text for part in answer.sections for piece in part.pieces if piece.kind == "fill")
