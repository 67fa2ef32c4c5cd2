"""The suite `infill`: what the text to the right of a gap is worth to each model.

A 2 x 2 design (arXiv 2607.01436, Table 3): one sentence of every report is missing, and is written from both sides or
from its left alone, by the diffusion model and by its autoregressive sibling. The protocol, written before the run, is
docs/benchmarks/protocol-infill.md; this module does what it says.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inlay_model.backend import Backend
from inlay_model.canvas import sentences
from inlay_model.datasets.items import ReportedStudy
from inlay_model.engine import Engine, RadiographLike
from inlay_model.errors import CanvasOverflow, PromptTooLong
from inlay_model.evaluation.known_findings import says_the_same
from inlay_model.evaluation.loaded import Placing, autoregressive, diffusion
from inlay_model.evaluation.overlap import first_sentence, token_f1
from inlay_model.evaluation.phantom import fill_of
from inlay_model.phantom.findings import Findings, findings_of
from inlay_model.phantom.grammar import STYLES, write_report
from inlay_model.phantom.render import phantom
from inlay_model.request import Gap, GenerationSettings, Lock, Section
from inlay_model.study import read_picture

SIDES = ("both", "left")
MODELS = ("diffusion", "autoregressive")
_ANYWHERE = Placing()


@dataclass(frozen=True, slots=True)
class Case:
    """A report with one sentence of Findings missing, and what is around it.

    `impression` is empty where the report has none; `truth` is known of phantoms only.
    """

    id: str
    seed: int
    before: str
    missing: str
    after: str
    impression: str
    truth: Findings | None


@dataclass(frozen=True, slots=True)
class Filling:
    """What each model wrote for one case, by (model, side), with token-F1 and, of phantoms, the offline verdict."""

    case: Case
    texts: Mapping[tuple[str, str], str]
    f1: Mapping[tuple[str, str], float]
    right: Mapping[tuple[str, str], bool] | None

    def to_json(self) -> dict[str, Any]:
        """One line of the verdicts: reference and candidates as text, for any other scorer to read."""
        cells = {f"{model}_{side}": text for (model, side), text in self.texts.items()}
        scores = {f"f1_{model}_{side}": value for (model, side), value in self.f1.items()}
        verdicts = {f"right_{model}_{side}": value for (model, side), value in (self.right or {}).items()}
        return {"id": self.case.id, "reference": self.case.missing, **cells, **scores, **verdicts}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A case that no model is compared on, because it does not fit one of them; `why` is the error's code."""

    id: str
    why: str


def phantom_case(seed: int) -> Case:
    """The case of a phantom: one sentence of its reference report's Findings that has others on both sides."""
    findings = findings_of(seed)
    rng = np.random.default_rng([seed, 3])
    report = write_report(findings, STYLES[seed % len(STYLES)], rng)
    case = masked(f"phantom-{seed}", dict(report.sections)["findings"], report.text("impression"), rng, seed)
    assert case is not None, "A phantom's Findings have at least five sentences."
    return replace(case, truth=findings)


def study_case(study: ReportedStudy) -> Case | None:
    """The case of a study, chosen by its id alone; None where its Findings have fewer than three sentences."""
    seed = int.from_bytes(hashlib.sha256(study.id.encode()).digest()[:6], "big")
    body = sentences(study.sections.get("findings", ""))
    return masked(study.id, body, study.sections.get("impression", ""), np.random.default_rng([seed, 3]), seed)


def masked(name: str, body: Sequence[str], impression: str, rng: np.random.Generator, seed: int) -> Case | None:
    """One of the sentences that have another before and another after them, all equally likely; None without such."""
    if len(body) < 3:
        return None
    at = int(rng.integers(1, len(body) - 1))
    return Case(name, seed, " ".join(body[:at]), body[at], " ".join(body[at + 1 :]), impression, truth=None)


def fill_both(backend: Backend, image: RadiographLike, case: Case, settings: GenerationSettings) -> str:
    """The missing text, from everything that stands around it; its length is not given."""
    around = Section("findings", (Lock(case.before), Gap(), Lock(case.after)))
    rest = (Section("impression", (Lock(case.impression),)),) if case.impression else ()
    return fill_of(backend.infill([image], (around, *rest), settings=settings))


def fill_left(backend: Backend, image: RadiographLike, case: Case, settings: GenerationSettings) -> str:
    """The first sentence that the model goes on with after the text before the gap."""
    names = ("findings", "impression") if case.impression else ("findings",)
    continued = backend.draft([image], sections=names, begin=case.before, settings=settings)
    return first_sentence(continued.sections[0].text, case.before)


def fill(backends: Mapping[str, Backend], image: RadiographLike, case: Case, steps: int) -> Filling:
    """Fill one case in every cell of the design."""
    settings = GenerationSettings(steps=steps, seed=case.seed)
    ways: dict[str, Callable[[Backend, RadiographLike, Case, GenerationSettings], str]]
    ways = {"both": fill_both, "left": fill_left}
    texts = {
        (name, side): way(backend, image, case, settings)
        for name, backend in backends.items()
        for side, way in ways.items()
    }
    return scored(case, texts)


def scored(case: Case, texts: Mapping[tuple[str, str], str]) -> Filling:
    """The filling of a case with what was written in every cell."""
    f1 = {cell: token_f1(case.missing, text) for cell, text in texts.items()}
    truth = case.truth
    right = None if truth is None else {cell: says_the_same(case.missing, text, truth) for cell, text in texts.items()}
    return Filling(case, texts, f1, right)


def fill_or_leave(backends: Mapping[str, Backend], image: RadiographLike, case: Case, steps: int) -> Filling | LeftOut:
    """Fill a case, or leave it out for every model where it is too long for any of them."""
    try:
        return fill(backends, image, case, steps)
    except (CanvasOverflow, PromptTooLong) as problem:
        return LeftOut(case.id, problem.code)


def load_backends(model: str, sibling: str | None, placing: Placing = _ANYWHERE) -> dict[str, Backend]:
    """The matched pair, or the diffusion model alone; locked text is not repeated in the diffusion model's prompt.

    The sibling is shown the locked text in its prompt because it has no other way to see it; repeated there for the
    diffusion model it would blur whether the canvas or the prompt is what helps.
    """
    engine = diffusion(model, placing)
    about = replace(engine.checkpoint.about, locked_in_prompt=False)
    backends: dict[str, Backend] = {MODELS[0]: Engine(replace(engine.checkpoint, about=about))}
    if sibling is not None:
        backends[MODELS[1]] = autoregressive(sibling, placing)
    return backends


def filled(
    model: str, sibling: str | None, steps: int, placing: Placing, cases: Sequence[tuple[Case, Path | None]]
) -> Iterator[Filling | LeftOut]:
    """The fillings of these cases, in order, each with its image: a file, or the phantom of the case's seed."""
    backends = load_backends(model, sibling, placing)
    for case, file in cases:
        image = phantom(case.seed).image if file is None else read_picture(file).image
        yield fill_or_leave(backends, image, case, steps)


def to_part(found: Filling | LeftOut) -> tuple[str, dict[str, str]]:
    """The case's id, and what cannot be worked out again: the texts by `model side`, or why it was left out."""
    if isinstance(found, LeftOut):
        return found.id, {"left_out": found.why}
    return found.case.id, {" ".join(cell): text for cell, text in found.texts.items()}


def from_part(case: Case, said: Mapping[str, str]) -> Filling | LeftOut:
    """The other way round."""
    if "left_out" in said:
        return LeftOut(case.id, said["left_out"])
    return scored(case, {(name.split()[0], name.split()[1]): text for name, text in said.items()})
