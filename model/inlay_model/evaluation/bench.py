"""How long drafts and infills take here, against transformers' own `generate` on the same checkpoint, in one run.

Pairs are measured alternately on the same phantom, so that what else the machine does falls on both sides. Each
pays for its own look at the image and its own pass over the prompt, but for the infill on a study just drafted.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inlay_model.canvas import sentences
from inlay_model.loading import default_checkpoint
from inlay_model.parsing import at_least_one, none_or_more
from inlay_model.prompt import build_prompt, instruction
from inlay_model.request import Filled, Gap, GenerationSettings, Lock, Section

if TYPE_CHECKING:
    from inlay_model.engine import Engine

_SECTIONS = ("findings", "impression")
_EXAMPLES = """\
examples:
  inlay model bench
  inlay model bench --model FOLDER --device cuda --rounds 24 --json
  inlay model bench --suite speed26b --help    the 26B shape on a GPU: that suite has options of its own
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one round: our draft, transformers' generate, and our infill of one gap; and passes.

    `infill` is on a study that is new, as those before it, `infill_seen` the same on the study just drafted.
    """

    draft: float
    generate: float
    infill: float
    infill_seen: float
    draft_steps: int
    generate_steps: int
    infill_steps: int


def main(argv: list[str]) -> int:
    """Measure and print; `--json` prints one object."""
    if "speed26b" in argv:
        from inlay_model.accelerator.speed26b import main as speed26b

        return speed26b(argv)
    parser = argparse.ArgumentParser(
        prog="inlay model bench",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--suite", choices=["draft", "speed26b"], default="draft", help="what to measure (speed26b: GPU)"
    )
    parser.add_argument("--model", default=None, help="checkpoint folder (default: the demonstration checkpoint)")
    parser.add_argument("--rounds", type=at_least_one, default=12, help="pairs to measure (default: %(default)s)")
    parser.add_argument("--steps", type=at_least_one, default=16, help="denoising steps at most (default: %(default)s)")
    parser.add_argument("--threads", type=at_least_one, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--seed", type=none_or_more, default=1, help="first phantom and seed (default: %(default)s)")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: the GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    import torch

    from inlay_model.engine import Engine

    torch.set_num_threads(arguments.threads)
    engine = Engine.load(arguments.model or default_checkpoint(), device=arguments.device)
    generate = transformers_generate(engine, arguments.model or default_checkpoint())
    measured = {
        name: summary(rounds(engine, generate, arguments.rounds, arguments.steps, arguments.seed, early_stop=early))
        for name, early in (("early_stop", True), ("all_steps", False))
    }
    report = {"suite": "draft", **about(engine, arguments), **measured}
    print(json.dumps(report, indent=2) if arguments.json else as_text(report))
    return 0


def rounds(
    engine: "Engine",
    generate: Callable[[np.ndarray, GenerationSettings], int],
    count: int,
    steps: int,
    seed: int,
    *,
    early_stop: bool,
) -> list[Timing]:
    """Measure this many rounds, after one that warms up; which side begins alternates."""
    from inlay_model.phantom.render import phantom

    found = []
    for number in range(count + 1):
        image = phantom(seed + number).image
        settings = GenerationSettings(steps=steps, seed=seed + number, early_stop=early_stop)
        engine.forget()
        theirs = _timed(lambda: generate(image, settings)) if number % 2 else None  # noqa: B023 - called at once
        drafted, ours = _timed(lambda: engine.draft([image], sections=_SECTIONS, settings=settings))  # noqa: B023
        asked = with_one_gap(drafted)
        filled, seen = _timed(lambda: engine.infill([image], asked, settings=settings))  # noqa: B023
        engine.forget()
        _, infill = _timed(lambda: engine.infill([image], asked, settings=settings))  # noqa: B023
        if theirs is None:
            theirs = _timed(lambda: generate(image, settings))  # noqa: B023
        steps_taken = (drafted.run.steps_taken, theirs[0], filled.run.steps_taken)
        found.append(Timing(ours, theirs[1], infill, seen, *steps_taken))
    return found[1:]


def with_one_gap(drafted: Filled) -> list[Section]:
    """The drafted report locked, but for the middle sentence of its first section, which becomes a gap."""
    asked = []
    for number, section in enumerate(drafted.sections):
        parts = sentences(section.text)
        middle = len(parts) // 2 if number == 0 else len(parts)
        before, after = parts[:middle], parts[middle + 1 :]
        gap = (Gap(),) if number == 0 else ()
        asked.append(Section(section.name, (*map(_lock, before), *gap, *map(_lock, after))))
    return asked


def _lock(text: str) -> Lock:
    return Lock(f"{text} ")


def transformers_generate(engine: "Engine", folder: str | Path) -> Callable[[np.ndarray, GenerationSettings], int]:
    """Transformers' own path from image to text: its model as it loads by default, its generate, its decoding.

    The function returned gives the number of denoising steps that were taken.
    """
    import torch
    from PIL import Image
    from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaForBlockDiffusion

    checkpoint = engine.checkpoint
    model: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=checkpoint.model.dtype)
    model = model.to(checkpoint.model.device).eval()

    def generate(image: np.ndarray, settings: GenerationSettings) -> int:
        pixels = checkpoint.image_processor(images=[Image.fromarray(image)], return_tensors="pt")
        count = int(pixels.pop("num_soft_tokens_per_image")[0])
        prompt = build_prompt(checkpoint.tokenizer, count, instruction(_SECTIONS))
        torch.manual_seed(settings.seed)
        # It has no switch for early stopping; a threshold that no entropy is below has the same effect.
        stop = {} if settings.early_stop else {"confidence_threshold": 1e-30}
        out = model.generate(
            input_ids=torch.tensor([prompt.ids], device=model.device),
            mm_token_type_ids=torch.tensor([prompt.mm_token_type_ids], device=model.device),
            max_denoising_steps=settings.steps,
            max_new_tokens=checkpoint.canvas_length,
            **{name: value.to(model.device) for name, value in pixels.items()},
            **stop,
        )
        written = out.sequences[0, len(prompt.ids) :]
        checkpoint.tokenizer.decode(written.tolist(), skip_special_tokens=True)
        return round(int((written != checkpoint.control.pad).sum()) / float(out.tokens_per_forward[0]))

    return generate


def summary(found: Sequence[Timing]) -> dict[str, Any]:
    """Medians in seconds, and medians of the paired ratios with their 95 % bootstrap intervals."""
    return {
        "rounds": len(found),
        "draft_s": _median([t.draft for t in found]),
        "transformers_generate_s": _median([t.generate for t in found]),
        "infill_s": _median([t.infill for t in found]),
        "infill_seen_s": _median([t.infill_seen for t in found]),
        "draft_steps": _median([t.draft_steps for t in found]),
        "transformers_generate_steps": _median([t.generate_steps for t in found]),
        "infill_steps": _median([t.infill_steps for t in found]),
        "draft_over_generate": _ratio([t.draft / t.generate for t in found]),
        # Where both stop early they need not take the same steps: the same ratio per step.
        "draft_over_generate_per_step": _ratio(
            [t.draft / t.draft_steps / (t.generate / t.generate_steps) for t in found]
        ),
        "infill_over_draft": _ratio([t.infill / t.draft for t in found]),
        "infill_seen_over_draft": _ratio([t.infill_seen / t.draft for t in found]),
    }


def about(engine: "Engine", arguments: argparse.Namespace) -> dict[str, Any]:
    """What was measured, and where."""
    import torch
    import transformers

    return {
        "checkpoint": engine.name,
        "checkpoint_digest": engine.digest,
        "steps": arguments.steps,
        "device": str(engine.checkpoint.model.device),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def as_text(report: dict[str, Any]) -> str:
    """The report as a small table."""
    lines = [
        f"{report['checkpoint']}, {report['steps']} steps at most, {report['device']}, {report['threads']} threads"
    ]
    for name in ("early_stop", "all_steps"):
        found = report[name]
        theirs = found["transformers_generate_steps"]
        lines += [
            f"{name.replace('_', ' ')} ({found['rounds']} pairs, median)",
            f"  draft                 {found['draft_s']:.3f} s  ({found['draft_steps']:.0f} steps)",
            f"  transformers generate {found['transformers_generate_s']:.3f} s  ({theirs:.0f} steps)",
            f"  infill                {found['infill_s']:.3f} s  ({found['infill_steps']:.0f} steps)",
            f"  infill, study seen    {found['infill_seen_s']:.3f} s",
            f"  draft / generate      {_interval(found['draft_over_generate'])}",
            f"  … per step            {_interval(found['draft_over_generate_per_step'])}",
            f"  infill / draft        {_interval(found['infill_over_draft'])}",
            f"  … study seen          {_interval(found['infill_seen_over_draft'])}",
        ]
    return "\n".join(lines)


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f}  [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    import torch

    began = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 4)


def _ratio(values: Sequence[float]) -> dict[str, float]:
    drawn = np.random.default_rng(0).choice(np.asarray(values), size=(2000, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return {"median": _median(values), "low": round(float(low), 4), "high": round(float(high), 4)}
