"""VQA-RAD as published: one JSON file of question and answer pairs and a folder of images.

Lau et al., Scientific Data 5:180251 (2018), osf.io/89kps. The published test questions are those whose `phrase_type`
begins with `test` (451 of 2,248); there is no validation part.
"""

from pathlib import Path

from inlay_model.datasets.items import DatasetProblem, Question, Split, existing, with_images
from inlay_model.datasets.tables import entries

_PAIRS = "VQA_RAD Dataset Public.json"
_IMAGES = "VQA_RAD Image Folder"
_NEEDED = ("qid", "image_name", "question", "answer", "answer_type", "question_type", "phrase_type")


def questions(folder: Path, split: Split = "test") -> list[Question]:
    """The questions of a split, train or test, in the file's order.

    Raises `DatasetProblem` with the entry that is wrong.
    """
    if split == "validate":
        raise DatasetProblem("VQA-RAD has no validation part. Choose --split train or test.")
    pairs = existing(folder, _PAIRS)
    images = pairs.parent / _IMAGES
    found = [
        Question(
            id=f"vqa-rad-{pair['qid']}",
            image=images / str(pair["image_name"]),
            text=str(pair["question"]).strip(),
            # Some answers are numbers.
            answer=str(pair["answer"]).strip(),
            closed=str(pair["answer_type"]).strip().upper() == "CLOSED",
            kind=str(pair["question_type"]).strip().lower(),
        )
        for pair in entries(pairs, _NEEDED)
        if str(pair["phrase_type"]).startswith("test") == (split == "test")
    ]
    return with_images(found, "VQA-RAD")
