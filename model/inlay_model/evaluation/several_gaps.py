"""Several gaps in one report, each of unknown length: whether what is missing is written, each thing once.

Of a phantom's reference report only a few sentences of Findings are locked; whatever stands between them is a gap, of
one sentence or of several. Impression is open in every second case. The grammar reads what was written.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from inlay_model.backend import Backend
from inlay_model.evaluation.known_findings import inventions
from inlay_model.phantom.findings import Findings
from inlay_model.phantom.grammar import STYLES, read_sentences, split_sentences, write_report
from inlay_model.phantom.render import phantom
from inlay_model.request import Filled, Gap, GenerationSettings, Lock, Section


@dataclass(frozen=True, slots=True)
class Sparse:
    """A request of which `missing` has the sentences of each gap of Findings, in reading order."""

    sections: tuple[Section, ...]
    missing: tuple[tuple[str, ...], ...]
    truth: Findings


@dataclass(frozen=True, slots=True)
class Judged:
    """Per gap whether all that is missing in it is stated, and how the whole of Findings reads.

    `stated` is whether everything missing stands in some gap, `garbled` how many sentences are none of the grammar's,
    `doubled` whether two sentences speak of the same thing.
    """

    gaps: tuple[bool, ...]
    stated: bool
    exact: bool
    sentences: int
    garbled: int
    doubled: bool
    without_invention: bool


def sparse(seed: int) -> Sparse:
    """The request for a phantom: two or three sentences of Findings locked, all others missing."""
    shown = phantom(seed)
    rng = np.random.default_rng([seed, 5])
    report = write_report(shown.findings, STYLES[seed % len(STYLES)], rng)
    body = dict(report.sections)["findings"]
    kept = set(rng.choice(len(body), size=min(len(body) - 1, 2 + seed % 2), replace=False).tolist())
    items: list[Gap | Lock] = []
    missing: list[tuple[str, ...]] = []
    for number, sentence in enumerate(body):
        if number in kept:
            items.append(Lock(f"{sentence} "))
        elif items and isinstance(items[-1], Gap):
            missing[-1] = (*missing[-1], sentence)
        else:
            items.append(Gap())
            missing.append((sentence,))
    end = Gap() if seed % 2 else Lock(report.text("impression"))
    return Sparse((Section("findings", tuple(items)), Section("impression", (end,))), tuple(missing), shown.findings)


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
    )


def judged(backend: Backend, seeds: Sequence[int], steps: int = 16) -> Iterator[Judged]:
    """Fill and judge the requests of these phantoms, in order."""
    for seed in seeds:
        case = sparse(seed)
        settings = GenerationSettings(steps=steps, seed=seed)
        yield judge(backend.infill([phantom(seed).image], case.sections, settings=settings), case)


def summary(verdicts: Sequence[Judged]) -> dict[str, float | int]:
    """Counts, and shares of gaps, of sentences and of reports, rounded to four places."""
    return {
        "n": len(verdicts),
        "gaps": sum(len(verdict.gaps) for verdict in verdicts),
        "gaps_right": _share(right for verdict in verdicts for right in verdict.gaps),
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
    return round(sum(found) / len(found), 4)
