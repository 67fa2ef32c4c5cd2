"""What every reader gives: questions about an image, or studies with a report; and the error where that fails."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inlay_model.errors import ModelError

Split = Literal["train", "validate", "test"]
SPLITS: tuple[Split, ...] = ("train", "validate", "test")
_MOST_NAMED = 3


class DatasetProblem(ModelError):
    """A local data set that cannot be read: a missing file, a line of another form, images that are not there."""

    code = "dataset-problem"


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image and its reference answer. `closed`: it is answered by yes or no, or by one of a few.

    `kind` is the data set's own category (place, size, modality, ...), lower case. `choices` are all answers that the
    question can have, where they are known.
    """

    id: str
    image: Path
    text: str
    answer: str
    closed: bool
    kind: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportedStudy:
    """A study with its images, the frontal one first, and its report by section, in reading order."""

    id: str
    images: tuple[Path, ...]
    sections: Mapping[str, str]


def is_yes_or_no(answer: str) -> bool:
    """Whether an answer is a bare yes or no."""
    return answer.strip().rstrip(".").lower() in {"yes", "no"}


def existing(folder: Path, name: str) -> Path:
    """The file of this name anywhere in the folder; raises `DatasetProblem` where there is none.

    Of several the one nearest to the folder is taken.
    """
    found = sorted(folder.rglob(name), key=lambda path: (len(path.parts), path))
    if not found:
        raise DatasetProblem(f"There is no file {name} in {folder}. Name the folder into which the set was unpacked.")
    return found[0]


def with_images(questions: Sequence[Question], source: str) -> list[Question]:
    """The questions, if every image of theirs is there; raises `DatasetProblem` naming some that are not."""
    missing = _missing(question.image for question in questions)
    if missing:
        named = ", ".join(f"{path.parent.name}/{path.name}" for path in missing[:_MOST_NAMED])
        raise DatasetProblem(
            f"{source}: {len(missing)} of the images that the questions name are not there (such as {named}). "
            "Unpack the images as well, beside the questions as they were published."
        )
    if not questions:
        raise DatasetProblem(f"{source}: there is no question in this split. Name another with --split.")
    return list(questions)


def _missing(images: Iterable[Path]) -> list[Path]:
    return [image for image in dict.fromkeys(images) if not image.is_file()]
