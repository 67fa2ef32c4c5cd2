"""Reports of which a part is written: whether what is missing is said, each thing once, and nothing is garbled.

Of a phantom's reference report a few sentences of Findings are locked, or one; whatever stands between them is a gap of
unknown length, of one sentence or of several. Impression is open in every second case. Or Findings stand as they are
with these few sentences, and Impression alone is open. The grammar reads what was written.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from inlay_model.backend import Backend
from inlay_model.engine import Engine
from inlay_model.evaluation.known_findings import inventions, states_the_same
from inlay_model.evaluation.own_command import measured
from inlay_model.phantom.findings import Findings
from inlay_model.phantom.grammar import STYLES, read_sentences, split_sentences, write_report
from inlay_model.phantom.render import phantom
from inlay_model.request import Filled, Gap, GenerationSettings, Lock, Section


class Written(StrEnum):
    """How much of Findings stands: two or three sentences or one, with gaps around, or a few that are all there is."""

    FEW = "few"
    ONE = "one"
    FEW_AND_NO_GAP = "few-and-no-gap"


_COLUMNS = {
    Written.FEW: "two or three sentences stand, gaps around them",
    Written.ONE: "one sentence stands, gaps around it",
    Written.FEW_AND_NO_GAP: "two or three sentences stand and nothing is missing",
}
_ROWS = {
    "n": "reports",
    "gaps_right": "gaps that state all that is missing in them",
    "missing_stated": "reports in which all that is missing is stated somewhere",
    "reports_exact": "reports whose Findings read as the phantom's",
    "sentences_well_formed": "well-formed sentences",
    "reports_without_doubles": "reports in which nothing is said twice",
    "reports_without_invention": "reports without an invented finding",
    "impressions_right": "open Impressions that say what the reference's does",
}
# Shares of something else than of reports or sentences, and what is counted.
_COUNTED = {"gaps_right": "gaps", "impressions_right": "impressions"}
# What can be said of Findings that nothing is written into.
_WITHOUT_GAPS = {"n", "impressions_right"}


@dataclass(frozen=True, slots=True)
class Sparse:
    """A request of which `missing` has the sentences of each gap of Findings, in reading order.

    `conclusion` is the reference's Impression where it is open.
    """

    sections: tuple[Section, ...]
    missing: tuple[tuple[str, ...], ...]
    conclusion: str | None
    truth: Findings


@dataclass(frozen=True, slots=True)
class Judged:
    """Per gap of Findings whether all that is missing in it is stated, and how the whole of Findings reads.

    `stated` is whether everything missing stands in some gap, `garbled` how many sentences are none of the grammar's,
    `doubled` whether two sentences speak of the same thing. An open Impression is `concluded` where it states what the
    reference's does, in sentences of the grammar; None where it is locked.
    """

    gaps: tuple[bool, ...]
    stated: bool
    exact: bool
    sentences: int
    garbled: int
    doubled: bool
    without_invention: bool
    concluded: bool | None = None


def sparse(seed: int, written: Written = Written.FEW) -> Sparse:
    """The request for a phantom: so much of Findings locked, all else missing."""
    shown = phantom(seed)
    rng = np.random.default_rng([seed, 5])
    report = write_report(shown.findings, STYLES[seed % len(STYLES)], rng)
    body = dict(report.sections)["findings"]
    standing = 1 if written is Written.ONE else min(len(body) - 1, 2 + seed % 2)
    kept = set(rng.choice(len(body), size=standing, replace=False).tolist())
    items: list[Gap | Lock] = []
    missing: list[tuple[str, ...]] = []
    for number, sentence in enumerate(body):
        if number in kept:
            items.append(Lock(f"{sentence} "))
        elif written is Written.FEW_AND_NO_GAP:
            continue
        elif items and isinstance(items[-1], Gap):
            missing[-1] = (*missing[-1], sentence)
        else:
            items.append(Gap())
            missing.append((sentence,))
    is_open = bool(seed % 2) or written is Written.FEW_AND_NO_GAP
    conclusion = report.text("impression")
    sections = (Section("findings", tuple(items)), Section("impression", (Gap() if is_open else Lock(conclusion),)))
    return Sparse(sections, tuple(missing), conclusion if is_open else None, shown.findings)


def judge(answer: Filled, case: Sparse) -> Judged:
    """What was written, compared with what is missing."""
    fills = [piece.text for piece in answer.sections[0].pieces if piece.kind == "fill"]
    wanted = [read_sentences(sentences).stated for sentences in case.missing]
    found = [read_sentences(split_sentences(text)) for text in fills]
    said = split_sentences(answer.sections[0].text)
    reading = read_sentences(said)
    topics = [{name for name, _ in read_sentences([sentence]).stated} for sentence in said]
    return Judged(
        gaps=tuple(a <= b.stated and not b.unknown for a, b in zip(wanted, found, strict=True)),
        stated=frozenset().union(*wanted) <= reading.stated,
        exact=reading.findings() == case.truth and not reading.unknown,
        sentences=len(said),
        garbled=len(reading.unknown),
        doubled=any(one & other for at, one in enumerate(topics) for other in topics[at + 1 :]),
        without_invention=not inventions(reading, case.truth),
        concluded=None if case.conclusion is None else states_the_same(answer.sections[1].text, case.conclusion),
    )


def judged(backend: Backend, seeds: Sequence[int], written: Written = Written.FEW, steps: int = 16) -> Iterator[Judged]:
    """Fill and judge the requests of these phantoms, in order."""
    for seed in seeds:
        case = sparse(seed, written)
        settings = GenerationSettings(steps=steps, seed=seed)
        yield judge(backend.infill([phantom(seed).image], case.sections, settings=settings), case)


def summary(verdicts: Sequence[Judged]) -> dict[str, float | int]:
    """Counts, and shares of gaps, of sentences and of reports, rounded to four places."""
    return {
        "n": len(verdicts),
        "gaps": sum(len(verdict.gaps) for verdict in verdicts),
        "gaps_right": _share(right for verdict in verdicts for right in verdict.gaps),
        "impressions": sum(verdict.concluded is not None for verdict in verdicts),
        "impressions_right": _share(verdict.concluded for verdict in verdicts if verdict.concluded is not None),
        "missing_stated": _share(verdict.stated for verdict in verdicts),
        "reports_exact": _share(verdict.exact for verdict in verdicts),
        "sentences_well_formed": round(
            1 - sum(verdict.garbled for verdict in verdicts) / sum(verdict.sentences for verdict in verdicts), 4
        ),
        "reports_without_doubles": _share(not verdict.doubled for verdict in verdicts),
        "reports_without_invention": _share(verdict.without_invention for verdict in verdicts),
    }


def _share(values: Iterable[bool]) -> float:
    found = list(values)
    return round(sum(found) / len(found), 4) if found else 0.0


def table(figures: Mapping[Written, dict[str, float | int]]) -> str:
    """The figures, a column for each amount that was written, as a Markdown table."""
    lines = [f"| {' | '.join(('of Findings', *_COLUMNS.values()))} |", f"|{'---|' * (1 + len(_COLUMNS))}"]
    for name, told in _ROWS.items():
        cells = [_cell(figures[written], name) for written in _COLUMNS]
        lines.append(f"| {told} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figures: Mapping[str, float | int], name: str) -> str:
    if not figures["gaps"] and name not in _WITHOUT_GAPS:
        return "–"
    value, counted = figures[name], _COUNTED.get(name)
    share = f"{value:.3f}" if isinstance(value, float) else str(value)
    return share if counted is None else f"{share} of {figures[counted]}"


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m inlay_model.evaluation.several_gaps`: measure all three and print the table."""

    def measure(engine: Engine, seed: int) -> dict[str, Any]:
        return {written: asdict(next(judged(engine, [seed], written))) for written in Written}

    found = measured("several_gaps", __doc__, measure, argv)
    print(table({written: summary([Judged(**one[written]) for one in found]) for written in Written}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
