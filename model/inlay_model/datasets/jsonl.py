"""Our own form of questions: a JSONL file of {"id", "image", "prompt", "answer"}, image paths relative to the file.

`inlay model phantoms --vqa` writes it, training and evaluation read it. `kind` may name a category, and
`choices` list every answer that is possible.
"""

import json
from pathlib import Path

from inlay_model.datasets.items import DatasetProblem, Question, is_yes_or_no, with_images

_NEEDED = ("image", "prompt", "answer")


def questions(file: Path) -> list[Question]:
    """The questions of a file, in its order; raises `DatasetProblem` with the line that is wrong."""
    if not file.is_file():
        raise DatasetProblem(f"There is no file {file}. Name a JSONL, such as inlay model phantoms --vqa writes.")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        what = f"{file.name} cannot be read ({type(problem).__name__})."
        raise DatasetProblem(f"{what} Save it as UTF-8, where you may read it.") from problem
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError as problem:
            raise DatasetProblem(
                f"{file.name}, line {number}: no JSON. Each line is one object with {', '.join(_NEEDED)}."
            ) from problem
        lacking = [name for name in _NEEDED if not isinstance(said, dict) or not isinstance(said.get(name), str)]
        if lacking:
            raise DatasetProblem(
                f"{file.name}, line {number}: {', '.join(lacking)} is missing or no text. Give it as a JSON string."
            )
        if not isinstance(said.get("choices", []), list):
            raise DatasetProblem(f"{file.name}, line {number}: choices is no list. Give every answer that is possible.")
        found.append(
            Question(
                id=str(said.get("id", number)),
                image=file.parent / said["image"],
                text=said["prompt"],
                answer=said["answer"],
                closed=is_yes_or_no(said["answer"]),
                kind=str(said.get("kind", "")),
                choices=tuple(str(choice) for choice in said.get("choices", ())),
            )
        )
    return with_images(found, file.name)
