"""`inlay model phantoms`: writes phantoms with their reports, or questions about them: images and JSONL.

Reports come with DICOM files, to try the model on and to train with; questions with pictures, to train and evaluate.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from inlay_model.parsing import at_least_one, folder_to_write
from inlay_model.phantom.findings import findings_of
from inlay_model.phantom.grammar import reference_report
from inlay_model.phantom.questions import PhantomQuestion, ask
from inlay_model.phantom.seeds import evaluation_seeds, training_seeds

_EXAMPLES = """\
examples:
  inlay model phantoms --reports 8 --out phantoms
  inlay model draft --image phantoms/images/1000000.dcm
  inlay model phantoms --vqa 20000 --per-image 4 --training --out train
"""


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
    _write_images(folder, dict.fromkeys(one.phantom_seed for one in asked), "png", _draw_picture, processes)
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
    return _write_lines(folder / "vqa.jsonl", lines)


def write_reports(seeds: Sequence[int], folder: Path, processes: int = 1) -> int:
    """Write the DICOM files of these phantoms and then `reports.jsonl`, which training reads; returns how many."""
    _write_images(folder, seeds, "dcm", _draw_dicom, processes)
    lines = []
    for seed in seeds:
        report = reference_report(seed, findings_of(seed))
        sections = {name: report.text(name) for name, _ in report.sections}
        lines.append({"id": str(seed), "image": f"images/{seed}.dcm", "style": report.style, "sections": sections})
    return _write_lines(folder / "reports.jsonl", lines)


def _write_lines(file: Path, lines: Sequence[Mapping[str, object]]) -> int:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return len(lines)


def _write_images(
    folder: Path, seeds: Iterable[int], ending: str, draw: Callable[[int, Path], None], processes: int
) -> None:
    """Draw those that are not there yet; a call that is broken off leaves whole files."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not (images / f"{seed}.{ending}").exists()]
    drawn = _drawn(partial(_whole, images, ending, draw), missing, processes)
    for _ in tqdm(drawn, total=len(missing), unit="image", disable=None):
        pass


def _drawn(draw: Callable[[int], None], seeds: Sequence[int], processes: int) -> Iterator[None]:
    if processes <= 1:
        yield from map(draw, seeds)
        return
    # Drawing is many small operations, which threads of one process do not make faster.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_one_thread) as pool:
        yield from pool.map(draw, seeds, chunksize=8)


def _whole(images: Path, ending: str, draw: Callable[[int, Path], None], seed: int) -> None:
    half = images / f"{seed}.part"
    draw(seed, half)
    half.replace(images / f"{seed}.{ending}")


def _draw_picture(seed: int, file: Path) -> None:
    from PIL import Image

    from inlay_model.phantom.render import phantom

    Image.fromarray(phantom(seed).image).save(file, format="PNG")


def _draw_dicom(seed: int, file: Path) -> None:
    from inlay_model.phantom.dicom import dicom_file
    from inlay_model.phantom.render import phantom

    # A UID may end with any number below 2 to the 128th.
    file.write_bytes(dicom_file(phantom(seed).image, f"2.25.{seed}", f"PHANTOM{seed}"))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def main(argv: list[str] | None = None) -> int:
    """Command line of `inlay model phantoms`."""
    parser = argparse.ArgumentParser(
        prog="inlay model phantoms",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--reports", type=at_least_one, metavar="N", help="write N phantoms with a report each")
    what.add_argument("--vqa", type=at_least_one, metavar="N", help="write N questions about phantoms")
    parser.add_argument(
        "--out",
        type=folder_to_write,
        required=True,
        metavar="DIR",
        help="folder for images/ and reports.jsonl or vqa.jsonl",
    )
    parser.add_argument("--seed", type=int, default=1, help="which phantoms (default: %(default)s)")
    parser.add_argument(
        "--per-image",
        type=at_least_one,
        default=1,
        metavar="K",
        help="questions about one phantom at most (default: 1, so that the cases of a test are independent)",
    )
    parser.add_argument(
        "--training", action="store_true", help="phantoms that no evaluation uses, whatever its seed (default: test)"
    )
    parser.add_argument(
        "--processes",
        type=at_least_one,
        default=os.cpu_count() or 1,
        help="processes that draw (default: one per core)",
    )
    arguments = parser.parse_args(argv)
    try:
        seeds = (training_seeds if arguments.training else evaluation_seeds)(
            arguments.seed, arguments.reports or arguments.vqa
        )
    except ValueError as problem:
        parser.error(str(problem))
    if arguments.reports:
        written = write_reports(seeds, arguments.out, arguments.processes)
        print(f"{written} reports in {arguments.out / 'reports.jsonl'}")
        return 0
    found = questions(arguments.vqa, arguments.seed, arguments.per_image, training=arguments.training)
    written = write(found, arguments.out, arguments.processes)
    print(f"{written} questions in {arguments.out / 'vqa.jsonl'}")
    return 0
