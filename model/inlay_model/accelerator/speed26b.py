"""`inlay model bench --suite speed26b`: the 26B shape with random weights, ours against transformers and sibling.

Parts are measured one by one and by name, each in minutes, into one file that is written after every figure; a part
that fails is recorded and the next one begins. Without a GPU, `--toy` runs every part on a small shape: a rehearsal, no
figures.
"""

import argparse
import datetime as dt
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from inlay_model.accelerator import speed_baselines, speed_ours, speed_probes
from inlay_model.accelerator.record import Record, merged
from inlay_model.accelerator.speed_case import Case, forget

PARTS: dict[str, tuple[Callable[[Case, Record], None], str]] = {
    "floor": (speed_probes.floor, "memory bandwidth, and the floor of a step that follows from it"),
    "parity": (speed_probes.parity, "kernels and whole passes against plain and eager ones, at the real shapes"),
    "tiles": (speed_probes.tiles, "block shapes of the experts in bf16; later parts use the best found"),
    "tiles-fp8": (speed_probes.tiles_fp8, "the same in fp8"),
    "shapes": (speed_probes.shapes, "block shapes of attention, vocabulary and sorting; later parts use them too"),
    "anatomy": (speed_probes.anatomy, "what the parts of a step cost, each in a graph of its own"),
    "anatomy8": (partial(speed_probes.anatomy, canvases=8), "the same of eight canvases together"),
    "ours": (speed_ours.drafts, "step, drafts of 16 and 48 steps, batch of 8, in bf16"),
    "infill": (speed_ours.infills, "infill through the engine, length given and searched for"),
    "fp8": (speed_ours.eight_bits, "step and draft with experts in fp8, and the memory"),
    "4bit": (speed_ours.four_bits, "step with experts in 4 bits, and the memory"),
    "eager": (speed_baselines.diffusion_eager, "transformers' generate as it loads"),
    "compiled": (speed_baselines.diffusion_compiled, "transformers' generate, static cache and compiled (minutes)"),
    "sibling": (speed_baselines.sibling_eager, "the autoregressive sibling, 256 tokens, greedy"),
    "sibling-compiled": (speed_baselines.sibling_compiled, "the same, static cache and compiled (minutes)"),
}


BASELINES = ("eager", "compiled", "sibling", "sibling-compiled")


def main(argv: list[str]) -> int:
    """Measure the parts asked for; with `--json` the whole record is printed at the end."""
    lines = "\n".join(f"  {name:17}{text}" for name, (_, text) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="inlay model bench --suite speed26b",
        description=f"{__doc__}\n\nparts:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--suite", choices=["speed26b"], default="speed26b", help=argparse.SUPPRESS)
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated (default: all, in this order)")
    parser.add_argument("--out", type=Path, default=Path("speed26b.json"), help="the record (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per figure (default: %(default)s)")
    parser.add_argument("--layers", type=int, help="fewer layers than 30, to try things out; figures are marked")
    parser.add_argument("--without", default="", help="kernels left to PyTorch, comma-separated")
    parser.add_argument("--apart", action="store_true", help="shared MLP on a second stream")
    parser.add_argument("--toy", action="store_true", help="a small shape on any device: rehearses every part")
    parser.add_argument("--json", action="store_true", help="print the record at the end")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="measure nothing: join these into --out")
    arguments = parser.parse_args(argv)
    if arguments.merge:
        return _merge(parser, arguments)
    parts = [name.strip() for name in arguments.parts.split(",")]
    for name in parts:
        if name not in PARTS:
            parser.error(f"there is no part {name}")
    if not (arguments.toy or torch.cuda.is_available()):
        parser.error("the 26B shape needs a CUDA device; --toy rehearses the suite without one")
    case = Case(
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        rounds=arguments.rounds,
        toy=arguments.toy,
        layers=arguments.layers,
        without=tuple(name for name in arguments.without.split(",") if name),
        apart=arguments.apart,
    )
    record = Record(arguments.out, about(case))
    done = []
    for name in parts:
        # The library compiles what was made outside of inference mode only.
        mode = torch.no_grad if name in BASELINES else torch.inference_mode
        began = time.monotonic()
        with mode():
            done.append(record.attempt("part", name, partial(PARTS[name][0], case, record)))
        if done[-1]:
            # How long it took, for whoever plans the next run; an earlier failure of it is forgotten.
            record.put("part", name, round(time.monotonic() - began, 1))
            record.put("dates", name, _today())
        # Whatever the part has left on the device goes before the next one begins.
        forget()
    if arguments.json:
        print(json.dumps(record.figures, indent=2))
    return 0 if all(done) else 1


def _merge(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Write one record of those that are named; 1 where something in them has failed."""
    try:
        whole = merged([json.loads(file.read_text(encoding="utf-8")) for file in arguments.merge])
    except (OSError, ValueError) as problem:
        parser.error(str(problem))
    text = json.dumps(whole, indent=2)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        print(text)
    return 1 if whole["errors"] else 0


def about(case: Case) -> dict[str, Any]:
    """What was measured, where and when."""
    said: dict[str, Any] = {
        "suite": "speed26b",
        "date": _today(),
        "machine": {
            "device": torch.cuda.get_device_name() if case.device.type == "cuda" else platform.machine(),
            "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1) if case.device.type == "cuda" else None,
            "python": platform.python_version(),
        },
        "versions": {name: _version(name) for name in ("torch", "triton", "transformers")},
        "shape": {"prompt_tokens": case.prompt, "canvas": case.canvas, "weights": "random", "toy": case.toy},
    }
    if case.layers:
        said["shape"]["layers"] = case.layers
    return said


def _today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
