"""`inlay model phantoms`: writes a set of questions about phantoms, images and JSONL, for training and evaluation."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


def write(found: Iterator[Asked], folder: Path) -> int:
    """Write the images and `vqa.jsonl` into the folder; returns how many questions there are."""
    from PIL import Image

    from inlay_model.phantom.render import phantom

    (folder / "images").mkdir(parents=True, exist_ok=True)
    written = 0
    with (folder / "vqa.jsonl").open("w", encoding="utf-8") as file:
        for asked in found:
            image = f"images/{asked.phantom_seed}.png"
            if not (folder / image).exists():
                Image.fromarray(phantom(asked.phantom_seed).image).save(folder / image)
            question = asked.question
            line = {
                "id": asked.id,
                "image": image,
                "prompt": question.text,
                "answer": question.answer,
                "kind": question.kind,
                "choices": question.choices,
            }
            file.write(json.dumps(line) + "\n")
            written += 1
    return written


def main(argv: list[str] | None = None) -> int:
    """Command line of `inlay model phantoms`."""
    parser = argparse.ArgumentParser(
        prog="inlay model phantoms",
        description=__doc__,
        epilog="example: inlay model phantoms --vqa 20000 --per-image 4 --training --out train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vqa", type=int, required=True, metavar="N", help="how many questions to write")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for vqa.jsonl and images/")
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
    arguments = parser.parse_args(argv)
    if arguments.vqa < 1 or arguments.per_image < 1:
        parser.error("--vqa and --per-image must be at least 1")
    try:
        evaluation_seeds(arguments.seed, arguments.vqa)
    except ValueError as problem:
        parser.error(str(problem))
    found = questions(arguments.vqa, arguments.seed, arguments.per_image, training=arguments.training)
    written = write(found, arguments.out)
    print(f"{written} questions in {arguments.out / 'vqa.jsonl'}")
    return 0
