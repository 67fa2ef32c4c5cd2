"""SLAKE as published: train.json, validate.json and test.json, and images under imgs/.

Liu et al., ISBI 2021, www.med-vqa.com/slake. The questions are in English and Chinese.
"""

from pathlib import Path

from inlay_model.datasets.items import Question, Split, existing, with_images
from inlay_model.datasets.tables import entries

_NEEDED = ("qid", "img_name", "question", "answer", "answer_type", "content_type", "q_lang")


def questions(folder: Path, split: Split = "test", language: str = "en") -> list[Question]:
    """The questions of a split in one language, in the file's order.

    Raises `DatasetProblem` with the entry that is wrong.
    """
    pairs = existing(folder, f"{split}.json")
    found = [
        Question(
            id=f"slake-{pair['qid']}",
            image=pairs.parent / "imgs" / str(pair["img_name"]),
            text=str(pair["question"]).strip(),
            answer=str(pair["answer"]).strip(),
            closed=str(pair["answer_type"]).strip().upper() == "CLOSED",
            kind=str(pair["content_type"]).strip().lower(),
        )
        for pair in entries(pairs, _NEEDED)
        if pair["q_lang"] == language
    ]
    return with_images(found, "SLAKE")
