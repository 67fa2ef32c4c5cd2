"""Resubmissions: whether a gap that begins from the previous version's text ends sooner, and as right as from noise.

The previous version is a report of which one sentence is false. In the trial `corrected` a clinician has said that
sentence rightly and locked it; in `overlooked` it stands in the open part, and a true sentence is locked instead. All
else is open, Impression (which concludes what is false) included. The grammar reads the whole report.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from inlay_model.backend import Backend
from inlay_model.engine import Engine
from inlay_model.evaluation.known_findings import inventions, slots_right
from inlay_model.evaluation.own_command import measured
from inlay_model.phantom.contradiction import false_report
from inlay_model.phantom.findings import Findings, findings_of
from inlay_model.phantom.grammar import STYLES, read_sentences, split_sentences
from inlay_model.phantom.render import phantom
from inlay_model.request import Filled, Gap, GenerationSettings, Item, Lock, Section

TRIALS = ("corrected", "overlooked")
# Shares of noise with which a gap begins from the previous version.
_SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Judged:
    """How Findings read (`exact`: as the phantom's, nothing garbled), whether Impression invents nothing, the cost."""

    trial: str
    warm_start: float | None
    exact: bool
    slots: float
    conclusion: bool
    steps: int
    passes: int


def resubmission(seed: int, trial: str) -> tuple[Section, ...] | None:
    """The request of a trial; None for a phantom of which no such false report can be made."""
    made = false_report(findings_of(seed), STYLES[seed % len(STYLES)], np.random.default_rng([seed, 6]))
    if made is None or len(made.body) < 2 or not made.corrected:
        return None
    true = [number for number in range(len(made.body)) if number != made.position]
    at = made.position if trial == "corrected" else true[seed % len(true)]
    locked = " ".join(made.corrected) if trial == "corrected" else made.body[at]
    parts: Sequence[Item | None] = (_open(made.body[:at]), Lock(f"{locked} "), _open(made.body[at + 1 :]))
    items = tuple(part for part in parts if part is not None)
    return Section("findings", items), Section("impression", (Gap(replaces=made.report.text("impression")),))


def _open(sentences: Sequence[str]) -> Gap | None:
    return Gap(replaces=" ".join(sentences)) if sentences else None


def judge(answer: Filled, truth: Findings, trial: str, share: float | None) -> Judged:
    """What the report says after the resubmission."""
    body, conclusion = (read_sentences(split_sentences(section.text)) for section in answer.sections)
    stated = body.findings()
    return Judged(
        trial=trial,
        warm_start=share,
        exact=stated == truth and not body.unknown,
        slots=slots_right(stated, truth),
        conclusion=not inventions(conclusion, truth) and not conclusion.unknown,
        steps=answer.run.steps_taken,
        passes=answer.run.forward_passes,
    )


def judged(engine: Backend, seed: int, shares: Sequence[float | None], steps: int = 16) -> Iterator[Judged]:
    """Both trials of one phantom, begun from noise (None) and from the previous version with these shares of noise."""
    shown = phantom(seed)
    for trial in TRIALS:
        sections = resubmission(seed, trial)
        if sections is None:
            continue
        for share in shares:
            settings = GenerationSettings(steps=steps, seed=seed, warm_start=share, disputes=False)
            yield judge(engine.infill([shown.image], sections, settings=settings), shown.findings, trial, share)


def table(found: Iterable[Judged]) -> str:
    """The figures by trial and share, as a Markdown table."""
    groups: dict[tuple[str, float | None], list[Judged]] = {}
    for one in found:
        groups.setdefault((one.trial, one.warm_start), []).append(one)
    heads = ("trial", "begun from", "n", "Findings exact", "slots right", "Impression true", "steps", "passes")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for (trial, share), all_of in groups.items():
        start = "noise" if share is None else f"previous version, {share:.0%} noise".replace("%", " %")
        means = [
            sum(getattr(one, name) for one in all_of) / len(all_of)
            for name in ("exact", "slots", "conclusion", "steps", "passes")
        ]
        shares, costs = [f"{mean:.3f}" for mean in means[:3]], [f"{mean:.1f}" for mean in means[3:]]
        cells = [trial, start, str(len(all_of)), *shares, *costs]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m inlay_model.evaluation.warm_start`: measure and print the table."""

    def measure(engine: Engine, seed: int) -> dict[str, Any]:
        return {"trials": [asdict(one) for one in judged(engine, seed, [None, *_SHARES])]}

    found = measured("warm_start", __doc__, measure, argv)
    print(table([Judged(**one) for each in found for one in each["trials"]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
