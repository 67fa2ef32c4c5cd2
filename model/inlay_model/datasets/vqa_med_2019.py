"""VQA-Med-2019 as published: text files of `image|question|answer`, one folder of images per split.

Ben Abacha et al., CLEF 2019, zenodo.org/records/10499039. Training and validation have a file per category
(modality, plane, organ, abnormality); the test file with reference answers names the category in its second field.
"""

from collections.abc import Iterator
from pathlib import Path

from inlay_model.datasets.items import DatasetProblem, Question, Split, existing, is_yes_or_no, with_images
from inlay_model.datasets.tables import text_of

_CATEGORIES = ("C1_Modality", "C2_Plane", "C3_Organ", "C4_Abnormality")
_SUFFIX = {"train": "train", "validate": "val"}
_TEST = "VQAMed2019_Test_Questions_w_Ref_Answers.txt"
_IMAGES = {"train": "Train_images", "validate": "Val_images", "test": "VQAMed2019_Test_Images"}


def questions(folder: Path, split: Split = "test") -> list[Question]:
    """The questions of a split, in the files' order."""
    names = sorted(folder.rglob(_IMAGES[split]))
    if not names:
        raise DatasetProblem(
            f"VQA-Med-2019: there is no folder {_IMAGES[split]} in {folder}. "
            "Unpack that part, or choose another --split."
        )
    images = names[0]
    found = [
        Question(
            id=f"vqa-med-2019-{split}-{number}",
            image=images / f"{image}.jpg",
            text=text,
            answer=answer,
            closed=is_yes_or_no(answer),
            kind=category,
        )
        for number, (image, category, text, answer) in enumerate(_pairs(folder, split))
    ]
    return with_images(found, "VQA-Med-2019")


def _pairs(folder: Path, split: Split) -> Iterator[tuple[str, str, str, str]]:
    if split == "test":
        for line, fields in _lines(existing(folder, _TEST), 4):
            image, category, text, answer = fields
            yield image, category.lower(), text, answer or _no_answer(line)
        return
    for category in _CATEGORIES:
        for line, fields in _lines(existing(folder, f"{category}_{_SUFFIX[split]}.txt"), 3):
            image, text, answer = fields
            yield image, category.partition("_")[2].lower(), text, answer or _no_answer(line)


def _lines(file: Path, fields: int) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(text_of(file, "utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        # An answer may hold the bar itself; image and question do not.
        found = [field.strip() for field in line.split("|", fields - 1)]
        if len(found) != fields:
            raise DatasetProblem(
                f"{file.name}, line {number}: {len(found)} fields where {fields} are expected, between bars. "
                "Unpack the file again."
            )
        yield f"{file.name}, line {number}", found


def _no_answer(line: str) -> str:
    raise DatasetProblem(f"{line}: there is no answer. Take the file that was published with answers.")
