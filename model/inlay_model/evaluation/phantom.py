"""The suite `phantom`: how right drafts and infills are, judged exactly against findings that are known.

For every phantom of a seed range: a draft from the image; a sentence of its reference report masked and filled with a
gap of unknown length between the locked rest; the same sentence written from its left side only; a lock that says the
wrong side; a gap where nothing is missing; and, where the engine reports what it disputes, a lock that is false and a
true one in other words.
Then Impression from locked Findings, and hints, rewriting and Impression without the image with checkpoints trained for
them (`wishes.py`).
The reference reports are the grammar's, and the grammar reads what the model wrote.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inlay_model.backend import Backend
from inlay_model.evaluation.disputes import is_disputed, swapped_side, trials
from inlay_model.evaluation.known_findings import inventions, slots_right
from inlay_model.evaluation.loaded import Placing, diffusion
from inlay_model.evaluation.overlap import first_sentence, token_f1, whole_sentences
from inlay_model.evaluation.statistics import wilson
from inlay_model.evaluation.wishes import granted
from inlay_model.phantom.grammar import STYLES, PhantomReport, read_sentences, split_sentences, write_report
from inlay_model.phantom.render import Phantom, phantom
from inlay_model.request import Filled, Gap, GenerationSettings, Lock, PromptContext, Section


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found for one phantom; scores are shares or F1 values of 0..1.

    `left_empty` is whether nothing was written where nothing is missing; None in results from before that was tried.
    `disputed_true` is whether a lock that contradicts the image (in the way of `false_kind`) was disputed,
    `disputed_false` whether a true one was; None where that was not tried. `alone` is whether an Impression written
    without the image says what the reference says; `..._exact` and `..._f1` compare the words of both Impressions.
    """

    seed: int
    style: str
    exact: bool
    well_formed: bool
    slots: float
    without_invention: bool
    f1_both: float
    f1_left: float
    gap_sentences: bool
    gap_finding: bool
    gap_without_invention: bool
    lock_kept: bool | None
    disputed_true: bool | None
    disputed_false: bool | None
    false_kind: str | None
    draft: str
    masked: str
    filled: str
    filled_left: str
    impression: bool | None = None
    hint: bool | None = None
    no_hint: bool | None = None
    rewritten: bool | None = None
    in_style: bool | None = None
    rewritten_locks_kept: bool | None = None
    impression_exact: bool | None = None
    impression_f1: float | None = None
    alone: bool | None = None
    alone_exact: bool | None = None
    alone_f1: float | None = None
    left_empty: bool | None = None


def judged(model: str, steps: int, placing: Placing, seeds: Sequence[int]) -> Iterator[Verdict]:
    """Verdicts on the phantoms of these seeds, in order, with a diffusion checkpoint as the command line names it."""
    engine = diffusion(model, placing)
    for seed in seeds:
        yield judge(engine, seed, steps)


def judge(engine: Backend, seed: int, steps: int) -> Verdict:
    """Draft, fill and contradict one phantom."""
    shown = phantom(seed)
    rng = np.random.default_rng([seed, 1])
    style = STYLES[seed % len(STYLES)]
    # No style is named where text is locked: the locked text shows it, on whichever side of the gap it stands.
    reference = write_report(shown.findings, style, rng)
    sentences = dict(reference.sections)["findings"]
    masked = int(rng.integers(len(sentences)))
    settings = GenerationSettings(steps=steps, seed=seed)

    drafted = engine.draft([shown.image], settings=settings, context=PromptContext(style=style))
    body, conclusion = (read_sentences(split_sentences(section.text)) for section in drafted.sections)
    stated = body.findings()
    both = engine.infill([shown.image], masked_request(reference, masked), settings=settings)
    filled = fill_of(both)
    left = " ".join(sentences[:masked])
    continued = engine.draft([shown.image], begin=left, settings=settings)
    first = first_sentence(continued.sections[0].text, left)
    filled_reading, masked_reading = read_sentences(split_sentences(filled)), read_sentences([sentences[masked]])
    disputed_true, disputed_false, false_kind = _disputed(engine, shown, reference, settings, both)
    wishes = granted(engine, shown, reference, settings)
    # The words of an Impression are compared with the image and without, or not at all.
    seen, alone = wishes.impression, wishes.alone
    return Verdict(
        seed=seed,
        style=style,
        exact=stated == shown.findings and not body.unknown,
        well_formed=not body.unknown and not conclusion.unknown,
        slots=slots_right(stated, shown.findings),
        without_invention=not inventions(body, shown.findings) and not inventions(conclusion, shown.findings),
        f1_both=token_f1(sentences[masked], filled),
        f1_left=token_f1(sentences[masked], first),
        gap_sentences=whole_sentences(filled),
        gap_finding=masked_reading.stated <= filled_reading.stated,
        gap_without_invention=not inventions(filled_reading, shown.findings),
        lock_kept=_contradicted(engine, shown, reference, masked, settings),
        disputed_true=disputed_true,
        disputed_false=disputed_false,
        false_kind=false_kind,
        draft=drafted.text,
        masked=sentences[masked],
        filled=filled,
        filled_left=first,
        impression=seen.right,
        hint=wishes.hint,
        no_hint=wishes.no_hint,
        rewritten=wishes.rewritten,
        in_style=wishes.in_style,
        rewritten_locks_kept=wishes.locks_kept,
        impression_exact=seen.exact if alone else None,
        impression_f1=seen.f1 if alone else None,
        alone=alone.right if alone else None,
        alone_exact=alone.exact if alone else None,
        alone_f1=alone.f1 if alone else None,
        left_empty=not fill_of(engine.infill([shown.image], complete_request(reference, seed), settings=settings)),
    )


def masked_request(report: PhantomReport, masked: int) -> tuple[Section, ...]:
    """The report as an infill request in which one sentence of Findings is a gap of unknown length."""
    sentences = dict(report.sections)["findings"]
    before, after = " ".join(sentences[:masked]), " ".join(sentences[masked + 1 :])
    around = [Lock(before) if before else None, Gap(), Lock(after) if after else None]
    items = tuple(item for item in around if item is not None)
    return Section("findings", items), Section("impression", (Lock(report.text("impression")),))


def complete_request(report: PhantomReport, seed: int) -> tuple[Section, ...]:
    """The whole report, locked, with a gap of unknown length between two sentences of Findings."""
    sentences = dict(report.sections)["findings"]
    # A generator of its own, so that what the other cases draw stays as it was.
    at = int(np.random.default_rng([seed, 7]).integers(1, len(sentences)))
    items = (Lock(" ".join(sentences[:at])), Gap(), Lock(" ".join(sentences[at:])))
    return Section("findings", items), Section("impression", (Lock(report.text("impression")),))


def fill_of(answer: Filled) -> str:
    """What was written into the gaps of an answer."""
    return "".join(
        piece.text for section in answer.sections for piece in section.pieces if piece.kind == "fill"
    ).strip()


def _contradicted(
    engine: Backend, shown: Phantom, report: PhantomReport, masked: int, settings: GenerationSettings
) -> bool | None:
    """Whether a lock that names the wrong side is kept, byte for byte; None where no sentence names a side."""
    sentences = list(dict(report.sections)["findings"])
    sided = [n for n, text in enumerate(sentences) if n != masked and re.search(r"\b(right|left)\b", text.lower())]
    if not sided:
        return None
    false = swapped_side(sentences[sided[0]])
    items = [Gap() if n == masked else Lock(false if n == sided[0] else text) for n, text in enumerate(sentences)]
    answer = engine.infill(
        [shown.image], (Section("findings", tuple(items)), Section("impression", (Gap(),))), settings=settings
    )
    kept = [piece.text for piece in answer.sections[0].pieces if piece.item == sided[0]]
    return kept == [false] and false in answer.sections[0].text


def _disputed(
    engine: Backend, shown: Phantom, report: PhantomReport, settings: GenerationSettings, answered: Filled
) -> tuple[bool | None, bool | None, str | None]:
    """Whether a false lock is disputed, whether a true one is, and what is wrong with the false one."""
    if getattr(answered, "disputes", None) is None:
        return None, None, None
    false, true = trials(shown, report)
    answers = [
        None if trial is None else is_disputed(engine.infill([shown.image], trial.sections, settings=settings), trial)
        for trial in (false, true)
    ]
    return answers[0], answers[1], false.kind if false else None


def summary(verdicts: Sequence[Verdict], seed: int, steps: int) -> dict[str, float | int]:
    """The figures of a run, rounded to four places; those of disputes only where the engine reports them."""
    contradicted = [verdict.lock_kept for verdict in verdicts if verdict.lock_kept is not None]
    disputed = [verdict.disputed_true for verdict in verdicts if verdict.disputed_true is not None]
    undisputed = [verdict.disputed_false for verdict in verdicts if verdict.disputed_false is not None]
    figures: dict[str, float | int] = {
        "n": len(verdicts),
        "seed": seed,
        "steps": steps,
        "reports_exact": _mean(v.exact for v in verdicts),
        "reports_well_formed": _mean(v.well_formed for v in verdicts),
        "slots_mean": _mean(v.slots for v in verdicts),
        "reports_without_invention": _mean(v.without_invention for v in verdicts),
        "infill_f1_both": _mean(v.f1_both for v in verdicts),
        "infill_f1_left": _mean(v.f1_left for v in verdicts),
        "gap_sentence_rate": _mean(v.gap_sentences for v in verdicts),
        "gap_finding_right": _mean(v.gap_finding for v in verdicts),
        "gap_without_invention": _mean(v.gap_without_invention for v in verdicts),
        "locks_kept": _mean(contradicted),
        "locks_contradicted": len(contradicted),
    }
    if disputed and undisputed:
        figures |= {
            "dispute_true_rate": _mean(disputed),
            "dispute_true_n": len(disputed),
            "dispute_false_rate": _mean(undisputed),
            "dispute_false_n": len(undisputed),
        }
    for key, name in _TRIED.items():
        tried = [float(getattr(verdict, name)) for verdict in verdicts if getattr(verdict, name) is not None]
        if tried:
            figures[key] = _mean(tried)
    return figures


def _mean(values: Iterable[float]) -> float:
    numbers = [float(value) for value in values]
    return round(sum(numbers) / len(numbers), 4) if numbers else math.nan


# Figures of what not every checkpoint was asked for, and the field of a verdict that each is the mean of.
_TRIED = {
    "gap_left_empty": "left_empty",
    "impression_right": "impression",
    "impression_exact": "impression_exact",
    "impression_f1": "impression_f1",
    "impression_right_without": "alone",
    "impression_exact_without": "alone_exact",
    "impression_f1_without": "alone_f1",
    "hint_followed": "hint",
    "hint_followed_without": "no_hint",
    "rewrite_exact": "rewritten",
    "rewrite_in_style": "in_style",
    "rewrite_locks_kept": "rewritten_locks_kept",
}
_TITLES = {
    "reports_exact": "reports with every finding slot right",
    "reports_well_formed": "reports without a garbled sentence",
    "slots_mean": "finding slots right",
    "reports_without_invention": "reports without an invented finding",
    "infill_f1_both": "token-F1 of a masked sentence, both sides",
    "infill_f1_left": "token-F1 of a masked sentence, left side only",
    "gap_sentence_rate": "gaps of unknown length filled with whole sentences",
    "gap_finding_right": "gaps that state the masked finding rightly",
    "gap_without_invention": "gaps without an invented finding",
    "gap_left_empty": "gaps where nothing is missing, left empty",
    "locks_kept": "locks that contradict the image, kept",
    "dispute_true_rate": "locks that contradict the image, disputed",
    "dispute_false_rate": "true locks in another phrasing, disputed",
    "impression_right": "Impressions right, from locked Findings",
    "impression_exact": "and word for word the reference's",
    "impression_f1": "token-F1 of these Impressions",
    "impression_right_without": "Impressions right, from locked Findings without the image",
    "impression_exact_without": "and word for word, without the image",
    "impression_f1_without": "token-F1 of these Impressions, without the image",
    "hint_followed": "gaps that state what was hinted",
    "hint_followed_without": "the same gaps without the hint",
    "rewrite_exact": "rewritten reports that state the same",
    "rewrite_in_style": "and are in the style but for what is locked",
    "rewrite_locks_kept": "rewritten reports that keep what is locked",
}
# Shares of something else than of all phantoms: of how many is said by these keys.
_OF = {
    "locks_kept": "locks_contradicted",
    "dispute_true_rate": "dispute_true_n",
    "dispute_false_rate": "dispute_false_n",
}
# A mean of F1 values or of slots is no share of cases, so it has no interval of Wilson's.
_MEANS = ("infill_f1_both", "infill_f1_left", "slots_mean", "impression_f1", "impression_f1_without")


def rows(figures: Mapping[str, float | int]) -> list[tuple[str, float, tuple[float, float] | None]]:
    """Title and value of each figure that there is, with Wilson's 95 % interval where it is a share of cases."""
    found = []
    for name, title in _TITLES.items():
        n = int(figures.get(_OF.get(name, "n"), 0))
        if name in figures and n:
            value = float(figures[name])
            found.append((title, value, None if name in _MEANS else wilson(value, n)))
    return found


def table(figures: Mapping[str, float | int]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"| {figures['n']} phantoms, seed {figures['seed']}, {figures['steps']} steps | value | 95 % |",
        "|---|---|---|",
    ]
    for title, value, span in rows(figures):
        lines.append(f"| {title} | {value:.4f} | {f'{span[0]:.3f} to {span[1]:.3f}' if span else ''} |")
    return "\n".join(lines)
