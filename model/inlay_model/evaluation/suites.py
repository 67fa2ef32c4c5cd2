"""The four suites of `inlay model eval`: from parsed arguments to what is printed and written. All else is pure."""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from inlay_model.adapters import read_adapter
from inlay_model.datasets import iu_xray, mimic_cxr
from inlay_model.datasets.items import DatasetProblem, Question
from inlay_model.engine import Engine
from inlay_model.evaluation import infill as gaps
from inlay_model.evaluation import infill_figures, plots, vqa_figures
from inlay_model.evaluation import phantom as phantoms
from inlay_model.evaluation import speed as latency
from inlay_model.evaluation import vqa as answering
from inlay_model.evaluation.answering import EndpointCandidate, parts_of
from inlay_model.evaluation.endpoints import Chat, Kept, read_endpoints
from inlay_model.evaluation.judge import Task, agreement, judge_all
from inlay_model.evaluation.workers import spread
from inlay_model.loading import DEMONSTRATION, find_folder, read_about
from inlay_model.phantom.seeds import evaluation_seeds
from inlay_model.provenance import digest_of_folder
from inlay_model.sibling import Sibling, default_sibling

_STEPS = 16
# A paired test needs two cases; fewer fit where reports are too long for a canvas.
_FEWEST = 2
# Requests to one endpoint under way at once.
_AT_ONCE = 8
_STUDIES = {"mimic-cxr": mimic_cxr.studies, "iu-xray": iu_xray.studies}
Result = TypeVar("Result")


def phantom(arguments: argparse.Namespace) -> None:
    """Drafts, gaps, locks and disputes on phantoms."""
    steps = arguments.steps or _STEPS
    seeds = evaluation_seeds(arguments.seed, arguments.limit)
    found = spread(partial(phantoms.judged, arguments.model, steps), seeds, arguments.processes)
    verdicts = sorted(_watched(found, len(seeds), "phantom"), key=lambda verdict: verdict.seed)
    _keep(arguments, (asdict(verdict) for verdict in verdicts))
    figures = phantoms.summary(verdicts, arguments.seed, steps)
    _draw(arguments, plots.phantom_bars(phantoms.rows(figures)), "Phantom suite", "share", share=True)
    _show(arguments, figures, phantoms.table(figures))


def infill(arguments: argparse.Namespace) -> None:
    """The 2 x 2 design of sides and models."""
    sibling = _sibling(arguments)
    fillings, left_out = _fillings(arguments, sibling)
    ((name, _),) = arguments.set
    figures: dict[str, Any] = {
        "suite": "infill",
        "set": name,
        "seed": arguments.seed,
        "steps": arguments.steps or _STEPS,
        "diffusion": _identity(arguments.model),
        "autoregressive": _identity(sibling) if sibling else None,
        "left_out": left_out,
        **infill_figures.summary(fillings),
    }
    figures["judge"] = "known findings" if "judged" in figures else None
    chats = _chats(arguments, "judge")
    if chats:
        figures |= _judged_infill(fillings, chats)
    _keep(arguments, (filling.to_json() for filling in fillings))
    bars = plots.infill_bars(figures)
    _draw(arguments, bars, "Gain by the text right of the gap", "both sides less left only")
    _show(arguments, figures, infill_figures.table(figures))


def _fillings(arguments: argparse.Namespace, sibling: str | None) -> tuple[list[gaps.Filling], int]:
    """The fillings in the order of their cases, and how many cases were too long for a model."""
    ((name, place),) = arguments.set
    steps = arguments.steps or _STEPS
    if name == answering.PHANTOM:
        seeds = evaluation_seeds(arguments.seed, arguments.limit)
        job = partial(gaps.filled_phantoms, arguments.model, sibling, steps)
        found = list(_watched(spread(job, seeds, arguments.processes), len(seeds), "phantom"))
    else:
        studies = _STUDIES[name](place, arguments.split)
        cases = [(case, study.images[0]) for study in studies if (case := gaps.study_case(study)) is not None]
        if not cases:
            raise DatasetProblem(f"No study of {name} has three sentences of Findings.")
        cases = cases[: arguments.limit]
        studied = partial(gaps.filled_studies, arguments.model, sibling, steps)
        found = list(_watched(spread(studied, cases, arguments.processes), len(cases), "study"))
    fillings = [filling for filling in found if isinstance(filling, gaps.Filling)]
    if len(fillings) < _FEWEST:
        raise DatasetProblem(f"{len(fillings)} of {len(found)} cases fit the models; a comparison needs {_FEWEST}.")
    return sorted(fillings, key=lambda filling: filling.case.id), len(found) - len(fillings)


def _judged_infill(fillings: Sequence[gaps.Filling], chats: Sequence[Chat]) -> dict[str, Any]:
    cells = list(fillings[0].texts)
    tasks = [Task("", filling.case.missing, filling.texts[cell]) for filling in fillings for cell in cells]
    verdicts = judge_all(chats, tasks)
    right = iter([all(row[at].right for row in verdicts) for at in range(len(tasks))])
    rows = [{cell: next(right) for cell in cells} for _ in fillings]
    names = [chat.endpoint.name for chat in chats]
    return {"judge": names, "judged": infill_figures.judged_effects(rows), "judges": agreement(verdicts, names)}


def vqa(arguments: argparse.Namespace) -> None:
    """Questions about images, a column per candidate."""
    judges = _chats(arguments, "judge")
    figures: dict[str, dict[str, Any]] = {}
    lines: list[Mapping[str, Any]] = []
    for name, place in arguments.set:
        questions = answering.load_set(name, place, arguments.split, arguments.seed, arguments.limit)
        answers = {title: _answers(arguments, title, model, questions) for title, model in _candidates(arguments)}
        answers |= _endpoint_answers(arguments, questions)
        # Where every possible answer is known there is nothing for a language model to judge.
        if judges and not all(question.choices for question in questions):
            answered, about = answering.by_judges(questions, answers, judges, arguments.controls)
        else:
            answered, about = answering.by_rule(questions, answers), {"judges": "rules"}
        figures[name] = {**vqa_figures.summary(questions, answered), **about}
        lines += [{"set": name, **line} for line in vqa_figures.lines_of(questions, answered)]
    _keep(arguments, lines)
    report = {
        "suite": "vqa",
        "seed": arguments.seed,
        "steps": arguments.steps or _STEPS,
        "candidates": {title: _identity(model) for title, model in _candidates(arguments)},
        "sets": figures,
    }
    _draw(arguments, plots.vqa_bars(figures), "Questions answered rightly", "share", share=True)
    _show(arguments, report, vqa_figures.table(figures))


def _answers(arguments: argparse.Namespace, title: str, model: str, questions: Sequence[Question]) -> list[str]:
    job = partial(answering.answers_of, model, arguments.steps or _STEPS)
    found = spread(job, list(enumerate(questions)), arguments.processes)
    given = dict(_watched(found, len(questions), f"question ({title})"))
    return [given[number] for number in range(len(questions))]


def _endpoint_answers(arguments: argparse.Namespace, questions: Sequence[Question]) -> dict[str, list[str]]:
    found = {}
    for chat in _chats(arguments, "candidate"):
        candidate = EndpointCandidate(chat)

        def ask(question: Question, candidate: EndpointCandidate = candidate) -> str:
            return candidate(answering.image_of(question), question.text)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            given = _watched(pool.map(ask, questions), len(questions), f"question ({chat.endpoint.name})")
            found[chat.endpoint.name] = list(given)
    return found


def speed(arguments: argparse.Namespace) -> None:
    """Latency of drafts."""
    folder = _sibling(arguments)
    engine = Engine.load(arguments.model, device=arguments.device)
    sibling = Sibling.load(folder, device=arguments.device) if folder else None
    entrants = latency.contestants(engine, sibling, (arguments.steps,) if arguments.steps else latency.STEPS)
    figures = latency.summary(entrants, latency.measure(entrants, arguments.seed, arguments.limit))
    report = {
        "suite": "speed",
        "seed": arguments.seed,
        "diffusion": _identity(arguments.model),
        "autoregressive": _identity(folder) if folder else None,
        **figures,
    }
    _draw(arguments, plots.speed_bars(figures), "Latency of a draft", f"times as fast as {figures['compared_with']}")
    _show(arguments, report, latency.table(figures))


# ── what the suites share ───────────────────────────────────────────────────────────────────────────────────────────


def _sibling(arguments: argparse.Namespace) -> str | None:
    if arguments.sibling:
        return str(arguments.sibling)
    # The demonstration's sibling is a match for the demonstration checkpoint alone.
    ours = default_sibling() if arguments.model == str(DEMONSTRATION) else None
    return str(ours) if ours else None


def _candidates(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    if arguments.candidate:
        return list(arguments.candidate)
    sibling = _sibling(arguments)
    return [("diffusion", arguments.model), *([("autoregressive", sibling)] if sibling else [])]


def _identity(model: str) -> dict[str, str]:
    """Which checkpoint it was: name and digest, those of its adapter, no path of this machine."""
    path, adapter = parts_of(model)
    folder = find_folder(path)
    found = {"name": read_about(folder, folder.name).name, "digest": digest_of_folder(folder)}
    return found | ({"adapter_digest": read_adapter(adapter).digest} if adapter else {})


def _chats(arguments: argparse.Namespace, role: str) -> list[Chat]:
    if not arguments.endpoints:
        return []
    kept = Kept(arguments.cache)
    return [Chat(endpoint, kept) for endpoint in read_endpoints(arguments.endpoints)[role]]


def _watched(results: Iterable[Result], total: int, unit: str) -> Iterable[Result]:
    return tqdm(results, total=total, unit=unit, file=sys.stderr)


def _keep(arguments: argparse.Namespace, lines: Iterable[Mapping[str, Any]]) -> None:
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _draw(
    arguments: argparse.Namespace, bars: Sequence[plots.Bar], title: str, unit: str, *, share: bool = False
) -> None:
    place: Path | None = arguments.plot
    if place is not None:
        plots.draw(bars, place, title=title, unit=unit, share=share)


def _show(arguments: argparse.Namespace, figures: Mapping[str, Any], table: str) -> None:
    if arguments.table:
        arguments.table.write_text(table + "\n", encoding="utf-8")
    print(json.dumps(figures) if arguments.json else table)
