"""Evaluation on phantoms: how right drafts and infills are, judged exactly against findings that are known.

For every phantom of a seed range: a draft from the image; a sentence of its reference report masked and filled with a
gap of unknown length between the locked rest; the same sentence written from its left side only; and a lock that says
the wrong side. The reference reports are the grammar's, and the grammar reads what the model wrote.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inlay_model.phantom.anatomy import side_of
from inlay_model.phantom.findings import NAMES, SLOTS, Findings
from inlay_model.phantom.grammar import (
    STYLES,
    PhantomReport,
    Reading,
    read_sentences,
    split_sentences,
    write_report,
)
from inlay_model.phantom.render import Phantom, phantom
from inlay_model.request import Filled, Gap, GenerationSettings, Lock, PromptContext, Section

if TYPE_CHECKING:
    from inlay_model.engine import Engine

# Seeds of evaluation phantoms: one number each, where training draws whole batches from sequences of two numbers.
_SEEDS_APART = 1_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found for one phantom; scores are shares or F1 values of 0..1."""

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
    draft: str
    masked: str
    filled: str
    filled_left: str


def judge(engine: Engine, seed: int, steps: int) -> Verdict:
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
    both = engine.infill([shown.image], _masked(reference, masked), settings=settings)
    filled = _fill_of(both)
    left = " ".join(sentences[:masked])
    continued = engine.draft([shown.image], begin=left, settings=settings)
    first = _first_sentence(continued, left)
    filled_reading, masked_reading = read_sentences(split_sentences(filled)), read_sentences([sentences[masked]])
    return Verdict(
        seed=seed,
        style=style,
        exact=stated == shown.findings and not body.unknown,
        well_formed=not body.unknown and not conclusion.unknown,
        slots=_slots_right(stated, shown.findings),
        without_invention=not _inventions(body, shown.findings) and not _inventions(conclusion, shown.findings),
        f1_both=token_f1(sentences[masked], filled),
        f1_left=token_f1(sentences[masked], first),
        gap_sentences=_whole_sentences(filled),
        gap_finding=masked_reading.stated <= filled_reading.stated,
        gap_without_invention=not _inventions(filled_reading, shown.findings),
        lock_kept=_contradicted(engine, shown, reference, masked, settings),
        draft=drafted.text,
        masked=sentences[masked],
        filled=filled,
        filled_left=first,
    )


def token_f1(reference: str, candidate: str) -> float:
    """F1 of the bags of words and punctuation marks of two texts; two empty texts agree."""
    left, right = (Counter(re.findall(r"\w+|[^\w\s]", text.lower())) for text in (reference, candidate))
    shared = sum((left & right).values())
    if not left and not right:
        return 1.0
    return 2 * shared / (left.total() + right.total())


def _masked(report: PhantomReport, masked: int) -> tuple[Section, ...]:
    """The report as an infill request in which one sentence of Findings is a gap of unknown length."""
    sentences = dict(report.sections)["findings"]
    before, after = " ".join(sentences[:masked]), " ".join(sentences[masked + 1 :])
    around = [Lock(before) if before else None, Gap(), Lock(after) if after else None]
    items = tuple(item for item in around if item is not None)
    return Section("findings", items), Section("impression", (Lock(report.text("impression")),))


def _fill_of(answer: Filled) -> str:
    return "".join(
        piece.text for section in answer.sections for piece in section.pieces if piece.kind == "fill"
    ).strip()


def _first_sentence(continued: Filled, left: str) -> str:
    written = continued.sections[0].text[len(left) :]
    return next(iter(split_sentences(written)), "")


def _whole_sentences(text: str) -> bool:
    return bool(re.fullmatch(r"([A-Z][^.]*\. ?)+", text))


def _slots_right(stated: Findings | None, truth: Findings) -> float:
    if stated is None:
        return 0.0
    return sum(a == b for a, b in zip(stated.values, truth.values, strict=True)) / len(NAMES)


# What a sentence that is none of the grammar's may still speak of: a word of it, and the slots that the word is about.
_SPOKEN_OF = {
    "consolidation": ("consolidation",),
    "opacity": ("consolidation",),
    "nodule": ("nodule",),
    "lesion": ("nodule",),
    "effusion": ("right effusion", "left effusion"),
    "collection": ("right effusion", "left effusion"),
    "pneumothorax": ("pneumothorax",),
    "oedema": ("oedema",),
    "congestion": ("oedema",),
    "enlarged": ("heart",),
    "cardiomegaly": ("heart",),
    "fracture": ("rib fracture",),
    "scoliosis": ("scoliosis",),
    "scoliotic": ("scoliosis",),
    "pacemaker": ("pacemaker",),
    "tube": ("tracheal tube",),
    "line": ("central line",),
}


def _inventions(reading: Reading, truth: Findings) -> list[str]:
    """Findings stated that the phantom does not have at all, or not on that side; in garbled sentences too."""
    wrong = [
        name
        for name, value in reading.abnormal()
        if truth[name] == SLOTS[name][0] or side_of(value) != side_of(truth[name])
    ]
    return [*wrong, *(sentence for sentence in reading.unknown if _garbled_invention(sentence, truth))]


def _garbled_invention(sentence: str, truth: Findings) -> bool:
    """Whether a sentence without exact meaning names a finding that is not there, or a side where there is none."""
    words = set(re.findall(r"[a-z]+", sentence.lower()))
    if words & {"no", "not", "neither", "nor"}:
        return False
    abnormal = truth.abnormal()
    sides = {side_of(name) or side_of(value) for name, value in abnormal.items()}
    absent = any(not any(slot in abnormal for slot in slots) for word, slots in _SPOKEN_OF.items() if word in words)
    return absent or any(side_of(word) not in sides for word in words & {"right", "left"})


def _contradicted(
    engine: Engine,
    shown: Phantom,
    report: PhantomReport,
    masked: int,
    settings: GenerationSettings,
) -> bool | None:
    """Whether a lock that names the wrong side is kept, byte for byte; None where no sentence names a side."""
    sentences = list(dict(report.sections)["findings"])
    sided = [n for n, text in enumerate(sentences) if n != masked and re.search(r"\b(right|left)\b", text.lower())]
    if not sided:
        return None
    swap = {"right": "left", "left": "right", "Right": "Left", "Left": "Right"}
    false = re.sub(r"\b(right|left)\b", lambda m: swap[m[0]], sentences[sided[0]], flags=re.IGNORECASE)
    items = [Gap() if n == masked else Lock(false if n == sided[0] else text) for n, text in enumerate(sentences)]
    answer = engine.infill(
        [shown.image],
        (Section("findings", tuple(items)), Section("impression", (Gap(),))),
        settings=settings,
    )
    kept = [piece.text for piece in answer.sections[0].pieces if piece.item == sided[0]]
    return kept == [false] and false in answer.sections[0].text


def summary(verdicts: Sequence[Verdict], seed: int, steps: int) -> dict[str, float | int]:
    """The figures of a run, rounded to four places."""
    contradicted = [verdict.lock_kept for verdict in verdicts if verdict.lock_kept is not None]
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
    return figures


def _mean(values: Iterable[float]) -> float:
    numbers = [float(value) for value in values]
    return round(sum(numbers) / len(numbers), 4) if numbers else math.nan


def interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share observed in n cases."""
    z = 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half


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
    "locks_kept": "locks that contradict the image, kept",
}


def table(figures: dict[str, float | int]) -> str:
    """The figures as a Markdown table; shares with Wilson's 95 % interval."""
    n = int(figures["n"])
    lines = [f"| {n} phantoms, seed {figures['seed']}, {figures['steps']} steps | value | 95 % |", "|---|---|---|"]
    for name, title in _TITLES.items():
        value = float(figures[name])
        low, high = interval(value, n if name != "locks_kept" else max(1, int(figures["locks_contradicted"])))
        # A mean of F1 values is no share of cases.
        spread = "" if "f1" in name or name == "slots_mean" else f"{low:.3f} to {high:.3f}"
        lines.append(f"| {title} | {value:.4f} | {spread} |")
    return "\n".join(lines)


def _judged(arguments: tuple[str, Sequence[int], int]) -> Iterator[Verdict]:
    from inlay_model.engine import Engine

    model, seeds, steps = arguments
    engine = Engine.load(model)
    for seed in seeds:
        yield judge(engine, seed, steps)


def _work(model: str, seeds: Sequence[int], steps: int, threads: int, results: multiprocessing.Queue[object]) -> None:
    import torch

    torch.set_num_threads(threads)
    try:
        for verdict in _judged((model, seeds, steps)):
            results.put(verdict)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it, or it would wait for ever
        results.put(error)


def run(model: str, seed: int, limit: int, steps: int, processes: int) -> Iterator[Verdict]:
    """Judge `limit` phantoms, in as many processes, in no particular order."""
    seeds = [seed * _SEEDS_APART + number for number in range(limit)]
    spawn = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[object] = spawn.Queue()
    workers = [
        spawn.Process(target=_work, args=(model, seeds[number::processes], steps, 1, results), daemon=True)
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    for _ in seeds:
        verdict = results.get()
        if isinstance(verdict, Exception):
            raise verdict
        assert isinstance(verdict, Verdict)
        yield verdict


def main(argv: list[str] | None = None) -> int:
    """Command line of `inlay model eval`."""
    from tqdm import tqdm

    from inlay_model.loading import DEMONSTRATION

    parser = argparse.ArgumentParser(
        prog="inlay model eval",
        description=__doc__,
        epilog="example: inlay model eval --suite phantom --seed 1 --limit 64 --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--suite", choices=["phantom"], default="phantom", help="what to measure (default phantom)")
    parser.add_argument(
        "--model", default=str(DEMONSTRATION), help="checkpoint folder (default: the demonstration one)"
    )
    parser.add_argument("--seed", type=int, default=1, help="which phantoms; none of any seed was used in training")
    parser.add_argument("--limit", type=int, default=512, help="how many phantoms (default 512)")
    parser.add_argument("--steps", type=int, default=16, help="denoising steps (default 16)")
    parser.add_argument("--processes", type=int, default=2, help="processes, one thread each (default 2)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument("--out", type=Path, help="also write every verdict, one JSON object a line")
    arguments = parser.parse_args(argv)
    if arguments.limit < 1 or arguments.processes < 1 or arguments.seed < 1:
        parser.error("--seed, --limit and --processes must be at least 1")
    judged = run(arguments.model, arguments.seed, arguments.limit, arguments.steps, arguments.processes)
    verdicts = sorted(tqdm(judged, total=arguments.limit, unit="phantom", file=sys.stderr), key=lambda v: v.seed)
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(asdict(verdict)) + "\n" for verdict in verdicts))
    figures = summary(verdicts, arguments.seed, arguments.steps)
    print(json.dumps(figures) if arguments.json else table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
