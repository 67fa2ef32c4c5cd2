"""`inlay model train`: from scratch on phantoms, or an adapter (LoRA) on a JSONL of images, prompts and texts."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import torch

from inlay_model.errors import BadRecipe
from inlay_model.loading import find_folder, kind_of, load
from inlay_model.parsing import at_least_one, folder_to_write, none_or_more
from inlay_model.training.finetune import ADAPTER, AdapterTrainer, check_recipe, dataset_of
from inlay_model.training.log import RunLog
from inlay_model.training.recipe import Recipe, lora_recipe
from inlay_model.training.scratch import Options, PhantomTrainer

NOT_FINISHED = 3

_EPILOG = """\
from scratch, in pieces of at most 20 minutes; run it again to go on:
  inlay model train --config model/configs/phantom-diffusion.toml --out run --compile --minutes 20

an adapter by the paper's recipe, after a look at every line and image of the data:
  inlay model train --model checkpoint --data reports.jsonl --check
  inlay model train --model checkpoint --data reports.jsonl --out run

The recipe can be changed: --set training.steps=500 training.micro_batch=4 lora.rank=16 corruption.infill=0.35

The folder of a run holds the checkpoint, or adapter/ in PEFT's format; log.jsonl; and state.pt, from which it goes on.
Exit status: 0 finished, 3 stopped by --minutes, 2 error.
"""


def main(argv: list[str] | None = None) -> int:
    """Command line of `inlay model train`; returns the exit status, raises a `ModelError` for what cannot be done."""
    arguments = _parser().parse_args(argv)
    until = time.monotonic() + 60 * arguments.minutes
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = Recipe.read(arguments.config) if arguments.config else None
    if arguments.data is not None:
        return _adapter(arguments, recipe, until)
    if recipe is None or arguments.out is None:
        raise BadRecipe(
            "From scratch: --config RECIPE --out FOLDER. An adapter: --model BASE --data FILE --out FOLDER."
        )
    with RunLog(arguments.out, tensorboard=arguments.tensorboard) as log:
        return _from_scratch(arguments, recipe.changed(arguments.set), log, until)


def _from_scratch(arguments: argparse.Namespace, recipe: Recipe, log: RunLog, until: float) -> int:
    options = Options(
        out=arguments.out,
        device=arguments.device,
        workers=arguments.workers,
        init=arguments.init,
        eyes=arguments.eyes,
        tokenizer=arguments.tokenizer,
        compile=arguments.compile,
        fit=arguments.fit,
    )
    trainer = PhantomTrainer(recipe, options, log)
    print(f"{sum(p.numel() for p in trainer.model.parameters()) / 1e6:.1f} M parameters", file=sys.stderr)
    trainer.resume()
    if arguments.studies is not None:
        trainer.run_on_fixed(arguments.studies, until)
    else:
        trainer.run(until)
    trainer.save()
    return 0 if trainer.finished else NOT_FINISHED


def _adapter(arguments: argparse.Namespace, given: Recipe | None, until: float) -> int:
    if arguments.model is None or (arguments.out is None and not arguments.check):
        raise BadRecipe("An adapter is trained with --model BASE --data FILE --out FOLDER (or --check).")
    folder = find_folder(arguments.model, arguments.revision)
    kind = kind_of(folder)
    recipe = lora_recipe(kind, given).changed(arguments.set)
    check_recipe(recipe)
    base = load(folder, device="cpu" if arguments.check else arguments.device, kind=kind)
    dataset = dataset_of(arguments.data, base, kind)
    if arguments.check:
        problems = [str(problem) for problem in dataset.problems(images=True)]
        print("\n".join([*problems, f"{len(dataset)} lines, {len(problems)} of them cannot be used."]))
        return 2 if problems or not len(dataset) else 0
    dataset.check()
    with RunLog(arguments.out, tensorboard=arguments.tensorboard) as log:
        trainer = AdapterTrainer(
            recipe, base, dataset, arguments.out, log, workers=arguments.workers, compile=arguments.compile
        )
        trainer.resume()
        trainer.run(until)
        digest = trainer.save()
    print(f"{arguments.out / ADAPTER} {digest}")
    return 0 if trainer.loop.finished else NOT_FINISHED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inlay model train",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", type=Path, help="recipe, for example model/configs/phantom-diffusion.toml (adapter: the paper's)")
    add("--out", type=folder_to_write, help="folder for log, state and what is trained")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    add("--threads", type=at_least_one, help="CPU threads")
    add("--workers", type=none_or_more, default=8, help="processes that make batches (default: %(default)s)")
    add("--compile", action="store_true", help="compile layers: a minute to start, then faster (small models)")
    add("--minutes", type=float, default=math.inf, help="stop after this long; run again to go on")
    add("--set", nargs="*", default=[], metavar="TABLE.KEY=VALUE", help="change the recipe")
    add("--tensorboard", action="store_true", help="write TensorBoard events too (needs inlay[train])")
    scratch = parser.add_argument_group("from scratch")
    scratch.add_argument("--init", type=Path, help="checkpoint of the same recipe whose weights to begin from")
    scratch.add_argument("--eyes", type=Path, help="checkpoint whose vision tower to take (with --set sight.steps=0)")
    scratch.add_argument("--tokenizer", type=Path, help="checkpoint whose vocabulary to take")
    scratch.add_argument("--fit", action="store_true", help="shorten the last phase so that it ends within --minutes")
    scratch.add_argument(
        "--studies", type=at_least_one, help="keep the eyes as they are and train the text stack on so many studies"
    )
    adapter = parser.add_argument_group("an adapter")
    adapter.add_argument("--data", type=Path, metavar="JSONL", help="examples: image, prompt or sections, answer")
    adapter.add_argument("--model", help="base: checkpoint folder or hub id, of either kind")
    adapter.add_argument("--revision", help="commit hash, needed with a hub id")
    adapter.add_argument(
        "--check", action="store_true", help="read all lines and images, report bad ones, train nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
