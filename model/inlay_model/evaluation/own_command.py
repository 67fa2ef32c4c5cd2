"""The command line of a measure that stands by itself, beside the suites: one result per phantom; a run goes on."""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from inlay_model.engine import Engine
from inlay_model.errors import ModelError
from inlay_model.evaluation.interrupted import Arriving, finish
from inlay_model.loading import DEMONSTRATION
from inlay_model.parsing import at_least_one, file_in_a_new_folder
from inlay_model.phantom.seeds import evaluation_seeds


def measured(
    name: str,
    description: str | None,
    measure: Callable[[Engine, int], dict[str, Any]],
    argv: Sequence[str] | None,
) -> list[dict[str, Any]]:
    """Do as the arguments of `python -m inlay_model.evaluation.NAME` say; what was found of each phantom, by seed.

    The results are kept in a file where one is named, and a run that was cut short goes on there. What cannot be done
    ends the program with status 2 and a line that says so, as for every command of the model.
    """
    parser = argparse.ArgumentParser(prog=f"python -m inlay_model.evaluation.{name}", description=description)
    parser.add_argument("--model", default=str(DEMONSTRATION), help="diffusion checkpoint (default: the demonstration)")
    parser.add_argument("--device", help="where to compute (default: the first GPU, else the CPU)")
    parser.add_argument("--seed", type=at_least_one, default=1, help="which phantoms (default: 1)")
    parser.add_argument("--limit", type=at_least_one, default=64, help="how many (default: 64)")
    parser.add_argument("--out", type=file_in_a_new_folder, help="where results are kept as they come")
    try:
        asked = parser.parse_args(argv)
        seeds = evaluation_seeds(asked.seed, asked.limit)
    except (ModelError, ValueError) as problem:
        parser.error(str(problem))
    try:
        engine = Engine.load(asked.model, device=asked.device)
    except ModelError as problem:
        parser.exit(2, f"error: {problem} [{problem.code}]\n")
    arriving = Arriving(asked.out, {"model": engine.digest, "suite": name})
    for seed in seeds:
        if str(seed) not in arriving.results:
            arriving.add(str(seed), {"seed": seed, **measure(engine, seed)})
    found = [arriving.results[str(seed)] for seed in seeds]
    if asked.out:
        asked.out.write_text("".join(f"{json.dumps(one)}\n" for one in found), encoding="utf-8")
    finish(asked.out)
    return found
