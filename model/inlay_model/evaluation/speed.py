"""The suite `speed`: how long a draft takes each model, prefill and step or token apart (the paper's Table 2).

Rounds alternate between the models on the same phantom, so that what else the machine does falls on all of them. A
draft on a new study less the same draft on a study already encoded is the prefill, with the look at the image: so no
model is timed by its parts.
"""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from inlay_model.engine import Engine, RadiographLike
from inlay_model.evaluation.statistics import bootstrap
from inlay_model.phantom.render import phantom
from inlay_model.phantom.seeds import evaluation_seeds
from inlay_model.request import Filled, GenerationSettings
from inlay_model.sibling import Sibling

STEPS = (16, 32, 48)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one draft on a new study and on a study seen before, passes of the model, and tokens of the text."""

    cold: float
    warm: float
    passes: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something that drafts: how it drafts an image, forgets the studies that it keeps, and counts tokens."""

    title: str
    unit: str
    draft: Callable[[RadiographLike, int], Filled]
    forget: Callable[[], None]
    count: Callable[[str], int]


def contestants(engine: Engine, sibling: Sibling | None, steps: Sequence[int] = STEPS) -> list[Contestant]:
    """The diffusion model with each number of steps, all of them taken, and with early stop; and the sibling."""
    found = [_diffusion(engine, f"diffusion, {number} steps", number, early=False) for number in steps]
    found.append(_diffusion(engine, f"diffusion, early stop within {steps[0]}", steps[0], early=True))
    if sibling is not None:

        def draft(image: RadiographLike, seed: int) -> Filled:
            return sibling.draft([image], settings=GenerationSettings(seed=seed))

        count = _counter(sibling.checkpoint.tokenizer)
        found.append(Contestant("autoregressive sibling", "token", draft, sibling.forget, count))
    return found


def rounds(entrants: Sequence[Contestant], seed: int, count: int) -> Iterator[dict[str, Timing]]:
    """The timings of every contestant, round by round, the first of which warms up and does not count."""
    for number, phantom_seed in enumerate(evaluation_seeds(seed, count + 1)):
        image = phantom(phantom_seed).image
        # Who is first alternates.
        order = entrants if number % 2 else entrants[::-1]
        yield {entrant.title: _timed(entrant, image, phantom_seed) for entrant in order}


def gathered(entrants: Sequence[Contestant], found: Iterable[Mapping[str, Timing]]) -> dict[str, list[Timing]]:
    """The timings of each contestant without those of the first round."""
    counted = list(found)[1:]
    return {entrant.title: [timings[entrant.title] for timings in counted] for entrant in entrants}


def summary(entrants: Sequence[Contestant], timings: Mapping[str, Sequence[Timing]]) -> dict[str, Any]:
    """Medians per contestant with bootstrap intervals, and how much faster each is than the last one."""
    last = timings[entrants[-1].title]
    found: dict[str, Any] = {"device": _device(), "threads": torch.get_num_threads(), "rounds": len(last)}
    rows = {}
    for entrant in entrants:
        own = timings[entrant.title]
        faster = [other.cold / mine.cold for mine, other in zip(own, last, strict=True)]
        rows[entrant.title] = {
            "latency_s": _median([t.cold for t in own]),
            "prefill_ms": _median([1000 * max(0.0, t.cold - t.warm) for t in own]),
            f"{entrant.unit}_ms": _median([1000 * t.warm / t.passes for t in own]),
            "passes": _median([t.passes for t in own]),
            "tokens_per_s": _median([t.tokens / t.cold for t in own]),
            "faster": _median(faster),
            "faster_95": [round(bound, 4) for bound in bootstrap(faster, _row_median)],
        }
    return {**found, "models": rows, "compared_with": entrants[-1].title}


def table(figures: Mapping[str, Any]) -> str:
    """The figures laid out like the paper's Table 2: a row per model and number of steps."""
    than = figures["compared_with"]
    what = f"draft, {figures['rounds']} rounds, {figures['device']}, {figures['threads']} threads"
    heads = [
        what,
        "latency (s)",
        "prefill (ms)",
        "step or token (ms)",
        "passes",
        "tokens/s",
        f"times as fast as {than}",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for title, row in figures["models"].items():
        each = row.get("step_ms", row.get("token_ms"))
        low, high = row["faster_95"]
        lines.append(
            f"| {title} | {row['latency_s']:.3f} | {row['prefill_ms']:.0f} | {each:.1f} | {row['passes']:.0f} "
            f"| {row['tokens_per_s']:.0f} | {row['faster']:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return "\n".join(lines)


def _diffusion(engine: Engine, title: str, steps: int, *, early: bool) -> Contestant:
    def draft(image: RadiographLike, seed: int) -> Filled:
        settings = GenerationSettings(steps=steps, seed=seed, early_stop=early)
        return engine.draft([image], settings=settings)

    return Contestant(title, "step", draft, engine.forget, _counter(engine.checkpoint.tokenizer))


def _counter(tokenizer: Any) -> Callable[[str], int]:
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _timed(entrant: Contestant, image: RadiographLike, seed: int) -> Timing:
    entrant.forget()
    cold, filled = _seconds(lambda: entrant.draft(image, seed))
    warm, _ = _seconds(lambda: entrant.draft(image, seed))
    return Timing(cold, warm, filled.run.forward_passes, entrant.count(filled.text))


def _seconds(work: Callable[[], Filled]) -> tuple[float, Filled]:
    # A draft ends by reading its tokens, so the accelerator is done when it returns.
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 4)


def _row_median(drawn: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.median(drawn, axis=1)
    return found
