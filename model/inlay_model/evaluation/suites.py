"""The suites of `inlay model eval`: from parsed arguments to what is printed and written. All else is pure."""

import argparse
import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from inlay_model.datasets import iu_xray, mimic_cxr
from inlay_model.datasets.items import DatasetProblem, Question
from inlay_model.evaluation import alternatives as choices
from inlay_model.evaluation import disputes as doubting
from inlay_model.evaluation import infill as gaps
from inlay_model.evaluation import infill_figures, plots, vqa_figures
from inlay_model.evaluation import phantom as phantoms
from inlay_model.evaluation import speed as latency
from inlay_model.evaluation import vqa as answering
from inlay_model.evaluation.answering import EndpointCandidate
from inlay_model.evaluation.card import check_writable
from inlay_model.evaluation.endpoints import Chat, Kept, read_endpoints
from inlay_model.evaluation.interrupted import Arriving
from inlay_model.evaluation.judge import Task, agreement, judge_all
from inlay_model.evaluation.loaded import Placing, autoregressive, diffusion, identity, parts_of
from inlay_model.evaluation.workers import Job, spread
from inlay_model.loading import DEMONSTRATION
from inlay_model.phantom.seeds import evaluation_seeds
from inlay_model.sibling import default_sibling

_STEPS = 16
# A paired test needs two cases; fewer fit where reports are too long for a canvas.
_FEWEST = 2
# Requests to one endpoint under way at once.
_AT_ONCE = 8
# Seconds between two lines of progress where it goes into a file.
_SELDOM = 15.0
_STUDIES = {"mimic-cxr": mimic_cxr.studies, "iu-xray": iu_xray.studies}
Case = TypeVar("Case")
Result = TypeVar("Result")


def phantom(arguments: argparse.Namespace) -> None:
    """Drafts, gaps, locks and disputes on phantoms."""
    found, about = _of_phantoms(arguments, phantoms.judged, asdict)
    verdicts = [phantoms.Verdict(**one) for one in found]
    _keep(arguments, (asdict(verdict) for verdict in verdicts))
    figures = phantoms.summary(verdicts, arguments.seed, _steps(arguments))
    _draw(arguments, plots.phantom_bars(phantoms.rows(figures)), "Phantom suite", "share", share=True)
    _show(arguments, {**figures, **about}, phantoms.table(figures))


def disputes(arguments: argparse.Namespace) -> None:
    """How much locked sentences are doubted, and the threshold that tells false ones from true ones."""
    folder = Path(parts_of(arguments.model)[0])
    if arguments.write:
        check_writable(folder)
    found, about = _of_phantoms(arguments, doubting.doubted, asdict)
    doubts = [doubting.Doubt(**one) for one in found]
    _keep(arguments, (asdict(doubt) for doubt in doubts))
    figures = doubting.summary(doubts, arguments.seed, _steps(arguments))
    if figures["chosen"] is None:
        print("No threshold leaves what is true undisputed: train with corruption.doubt.", file=sys.stderr)
    elif arguments.write:
        doubting.keep(folder, figures["chosen"])
    _show(arguments, {**figures, **about}, doubting.table(figures))


def alternatives(arguments: argparse.Namespace) -> None:
    """How often each of several texts for a gap is right; with --calibrate the curve is written into the checkpoint."""
    folder = Path(arguments.model)
    if arguments.calibrate:
        choices.check_kept(folder, arguments.limit)
    # A curve changes the digest and no text: what was found before one was written still holds.
    found, about = _of_phantoms(arguments, choices.judged, choices.Found.to_json)
    judged = [choices.Found.from_json(one) for one in found]
    _keep(arguments, (one.to_json() for one in judged))
    figures = choices.summary(judged, arguments.seed, _steps(arguments))
    if arguments.calibrate:
        choices.keep(folder, choices.scored(judged))
        about["calibrated"] = identity(arguments.model)
    if arguments.plot:
        plots.draw_reliability(choices.bins_of(figures), arguments.plot, title="Probabilities of alternatives")
    _show(arguments, {**figures, **about}, choices.table(figures))


def infill(arguments: argparse.Namespace) -> None:
    """The 2 x 2 design of sides and models."""
    sibling, chats = _sibling(arguments), _chats(arguments, "judge")
    fillings, left_out = _fillings(arguments, sibling)
    ((name, _),) = arguments.set
    figures: dict[str, Any] = {
        "suite": "infill",
        "set": name,
        "seed": arguments.seed,
        "steps": _steps(arguments),
        "diffusion": identity(arguments.model),
        "autoregressive": identity(sibling) if sibling else None,
        "precision": arguments.precision,
        "made": _made(arguments),
        "left_out": left_out,
        **infill_figures.summary(fillings),
    }
    figures["judge"] = "known findings" if "judged" in figures else None
    if chats:
        figures |= _judged_infill(fillings, chats)
    _keep(arguments, (filling.to_json() for filling in fillings))
    bars = plots.infill_bars(figures)
    _draw(arguments, bars, "Gain by the text right of the gap", "both sides less left only")
    _show(arguments, figures, infill_figures.table(figures))


def _fillings(arguments: argparse.Namespace, sibling: str | None) -> tuple[list[gaps.Filling], int]:
    """The fillings in the order of their cases, and how many cases were too long for a model."""
    ((name, _),) = arguments.set
    steps = _steps(arguments)
    cases = _infill_cases(arguments)
    found = _gathered(
        arguments,
        {
            "suite": "infill",
            "set": name,
            "steps": steps,
            "diffusion": identity(arguments.model),
            "autoregressive": identity(sibling) if sibling else None,
        },
        partial(gaps.filled, arguments.model, sibling, steps, _placing(arguments)),
        cases,
        gaps.to_part,
        "phantom" if name == answering.PHANTOM else "study",
    )
    every = [gaps.from_part(case, found[name]) for name, (case, _) in cases.items()]
    fillings = [filling for filling in every if isinstance(filling, gaps.Filling)]
    _enough(len(fillings), f"{{}} of {len(every)} cases fit the models")
    return sorted(fillings, key=lambda filling: filling.case.id), len(every) - len(fillings)


def _infill_cases(arguments: argparse.Namespace) -> dict[str, tuple[gaps.Case, Path | None]]:
    """The cases by id, each with the file of its image, or none where it is a phantom."""
    ((name, place),) = arguments.set
    if name == answering.PHANTOM:
        _enough(arguments.limit, "--limit allows {} of the cases")
        seeds = evaluation_seeds(arguments.seed, arguments.limit)
        return {case.id: (case, None) for case in map(gaps.phantom_case, seeds)}
    studies = _STUDIES[name](place, arguments.split)
    cases = [(case, study.images[0]) for study in studies if (case := gaps.study_case(study)) is not None]
    _enough(len(cases), f"{{}} studies of {name} ({arguments.split}) have three sentences of Findings")
    _enough(arguments.limit, "--limit allows {} of the cases")
    return {case.id: (case, image) for case, image in cases[: arguments.limit]}


def _enough(found: int, said: str) -> None:
    """Raise `DatasetProblem` where there are too few cases to compare; `said` has a place for how many there are."""
    if found < _FEWEST:
        raise DatasetProblem(
            f"{said.format(found)}; a comparison needs {_FEWEST}. Raise --limit, or name another --set or --split."
        )


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
        answers = {title: _answers(arguments, name, title, model, questions) for title, model in _candidates(arguments)}
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
        "steps": _steps(arguments),
        "candidates": {title: identity(model) for title, model in _candidates(arguments)},
        "precision": arguments.precision,
        "made": _made(arguments),
        "sets": figures,
    }
    _draw(arguments, plots.vqa_bars(figures), "Questions answered rightly", "share", share=True)
    _show(arguments, report, vqa_figures.table(figures))


def _answers(
    arguments: argparse.Namespace, name: str, title: str, model: str, questions: Sequence[Question]
) -> list[str]:
    steps = _steps(arguments)
    cases = {f"{number} {question.id}": question for number, question in enumerate(questions)}
    found = _gathered(
        arguments,
        {"suite": "vqa", "set": name, "seed": arguments.seed, "steps": steps, "model": identity(model)},
        partial(answering.answers_of, model, steps, _placing(arguments)),
        {case: (case, question) for case, question in cases.items()},
        lambda answer: answer,
        f"question ({title})",
    )
    return [found[case] for case in cases]


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
    folder, placing = _sibling(arguments), _placing(arguments)
    entrants = latency.contestants(
        diffusion(arguments.model, placing),
        autoregressive(folder, placing) if folder else None,
        (arguments.steps,) if arguments.steps else latency.STEPS,
    )
    rounds = _watched(latency.rounds(entrants, arguments.seed, arguments.limit), arguments.limit + 1, "round")
    figures = latency.summary(entrants, latency.gathered(entrants, rounds))
    report = {
        "suite": "speed",
        "seed": arguments.seed,
        "diffusion": identity(arguments.model),
        "autoregressive": identity(folder) if folder else None,
        "precision": arguments.precision,
        "made": _made(arguments),
        **figures,
    }
    _draw(arguments, plots.speed_bars(figures), "Latency of a draft", f"times as fast as {figures['compared_with']}")
    _show(arguments, report, latency.table(figures))


# ── what the suites share ───────────────────────────────────────────────────────────────────────────────────────────


def _of_phantoms(
    arguments: argparse.Namespace, judged: Callable[..., Iterator[Any]], to_json: Callable[[Any], Any]
) -> tuple[list[Any], dict[str, Any]]:
    """What a suite finds of each phantom of a seed, as JSON and in order, and what it is found of.

    `judged` takes model, steps, placing and the phantoms' seeds, and gives results that have a `seed` each.
    """
    cases = {str(seed): seed for seed in evaluation_seeds(arguments.seed, arguments.limit)}
    model = identity(arguments.model)
    found = _gathered(
        arguments,
        {"suite": arguments.suite, "steps": _steps(arguments), "model": model},
        partial(judged, arguments.model, _steps(arguments), _placing(arguments)),
        cases,
        lambda one: (str(one.seed), to_json(one)),
        "phantom",
    )
    about = {"suite": arguments.suite, "model": model, "precision": arguments.precision, "made": _made(arguments)}
    return [found[case] for case in cases], about


def _steps(arguments: argparse.Namespace) -> int:
    return int(arguments.steps or _STEPS)


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


def _chats(arguments: argparse.Namespace, role: str) -> list[Chat]:
    if not arguments.endpoints:
        return []
    kept = Kept(arguments.cache)
    return [Chat(endpoint, kept) for endpoint in read_endpoints(arguments.endpoints)[role]]


def _placing(arguments: argparse.Namespace) -> Placing:
    return Placing(arguments.device, arguments.precision, arguments.accelerate)


def _processes(arguments: argparse.Namespace) -> int:
    """As many as were asked for; else two on a CPU, and one where a GPU does the work."""
    if arguments.processes is not None:
        return int(arguments.processes)
    return 1 if _on_gpu(arguments) else 2


def _on_gpu(arguments: argparse.Namespace) -> bool:
    return torch.cuda.is_available() if arguments.device is None else not arguments.device.startswith("cpu")


def _made(arguments: argparse.Namespace) -> dict[str, Any]:
    """When and on what the figures were made."""
    gpu = _on_gpu(arguments) and torch.cuda.is_available()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if gpu else f"CPU ({platform.machine()})",
        "processes": _processes(arguments),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers")}


def _gathered(
    arguments: argparse.Namespace,
    run: Mapping[str, Any],
    job: Job[Case, Result],
    cases: Mapping[str, Case],
    kept: Callable[[Result], tuple[str, Any]],
    unit: str,
) -> dict[str, Any]:
    """What `kept` makes of the result of every case, by case; those of an earlier run that was cut short are taken."""
    how = {"precision": arguments.precision, "split": arguments.split, "versions": _versions()}
    arriving = Arriving(arguments.out, {**run, **how})
    open_cases = [case for name, case in cases.items() if name not in arriving.results]
    found = spread(job, open_cases, _processes(arguments)) if open_cases else ()
    for result in _watched(found, len(cases), unit, done=len(cases) - len(open_cases)):
        arriving.add(*kept(result))
    return arriving.results


def _watched(results: Iterable[Result], total: int, unit: str, done: int = 0) -> Iterable[Result]:
    # Into a file a line now and then is enough.
    every = 0.1 if sys.stderr.isatty() else _SELDOM
    return tqdm(results, total=total, initial=done, unit=unit, file=sys.stderr, mininterval=every)


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
