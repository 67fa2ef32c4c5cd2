"""`inlay model phantoms`: writes a set of questions about phantoms, images and JSONL, for training and evaluation."""

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from inlay_model.parsing import folder_to_write
from inlay_model.phantom.findings import findings_of
from inlay_model.phantom.questions import PhantomQuestion, ask
from inlay_model.phantom.seeds import evaluation_seeds, training_seeds


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the seed of the phantom that it is about."""

    phantom_seed: int
    id: str
    question: PhantomQuestion


def questions(count: int, seed: int, per_image: int = 1, *, training: bool = False) -> Iterator[Asked]:
    """Questions about the phantoms of a seed, in order; raises `ValueError` for a seed that is none."""
    given = 0
    # Every phantom can be asked for its heart, so there are never more phantoms than questions.
    for phantom_seed in (training_seeds if training else evaluation_seeds)(seed, count):
        if given == count:
            return
        findings = findings_of(phantom_seed)
        for question in ask(findings, per_image, np.random.default_rng([phantom_seed, 2]))[: count - given]:
            yield Asked(phantom_seed, f"{'train' if training else 'test'}-{seed}-{given}", question)
            given += 1


def write(found: Iterable[Asked], folder: Path, processes: int = 1) -> int:
    """Write the images and then `vqa.jsonl` into the folder; returns how many questions there are.

    Images that are there already are kept, so that a call that was broken off goes on.
    """
    asked = list(found)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    seeds = dict.fromkeys(one.phantom_seed for one in asked)
    missing = [seed for seed in seeds if not (images / f"{seed}.png").exists()]
    for _ in tqdm(_drawn(images, missing, processes), total=len(missing), unit="image", disable=None):
        pass
    lines = [
        {
            "id": one.id,
            "image": f"images/{one.phantom_seed}.png",
            "prompt": one.question.text,
            "answer": one.question.answer,
            "kind": one.question.kind,
            "choices": one.question.choices,
        }
        for one in asked
    ]
    (folder / "vqa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return len(lines)


def _drawn(images: Path, seeds: Sequence[int], processes: int) -> Iterator[None]:
    draw = partial(_draw, images)
    if processes <= 1:
        yield from map(draw, seeds)
        return
    # Drawing is many small operations, which threads of one process do not make faster.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_one_thread) as pool:
        yield from pool.map(draw, seeds, chunksize=8)


def _draw(images: Path, seed: int) -> None:
    from PIL import Image

    from inlay_model.phantom.render import phantom

    half = images / f"{seed}.part"
    Image.fromarray(phantom(seed).image).save(half, format="PNG")
    half.replace(images / f"{seed}.png")


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def main(argv: list[str] | None = None) -> int:
    """Command line of `inlay model phantoms`."""
    parser = argparse.ArgumentParser(
        prog="inlay model phantoms",
        description=__doc__,
        epilog="example: inlay model phantoms --vqa 20000 --per-image 4 --training --out train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vqa", type=int, required=True, metavar="N", help="how many questions to write")
    parser.add_argument(
        "--out", type=folder_to_write, required=True, metavar="DIR", help="folder for vqa.jsonl and images/"
    )
    parser.add_argument("--seed", type=int, default=1, help="which phantoms (default: %(default)s)")
    parser.add_argument(
        "--per-image",
        type=int,
        default=1,
        metavar="K",
        help="questions about one phantom at most (default: 1, so that the cases of a test are independent)",
    )
    parser.add_argument(
        "--training", action="store_true", help="phantoms that no evaluation uses, whatever its seed (default: test)"
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="processes that draw (default: one per core)"
    )
    arguments = parser.parse_args(argv)
    if min(arguments.vqa, arguments.per_image, arguments.processes) < 1:
        parser.error("--vqa, --per-image and --processes must be at least 1")
    try:
        evaluation_seeds(arguments.seed, arguments.vqa)
    except ValueError as problem:
        parser.error(str(problem))
    found = questions(arguments.vqa, arguments.seed, arguments.per_image, training=arguments.training)
    written = write(found, arguments.out, arguments.processes)
    print(f"{written} questions in {arguments.out / 'vqa.jsonl'}")
    return 0
