"""Files in which data sets are published, checked entry by entry: what is damaged or of another form is named.

Messages never quote what an entry says.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from inlay_model.datasets.items import DatasetProblem


def text_of(file: Path, encoding: str = "utf-8") -> str:
    """The text of a file; raises `DatasetProblem` where it cannot be read."""
    try:
        return file.read_text(encoding=encoding)
    except (OSError, UnicodeDecodeError) as problem:
        what = f"{file.name} cannot be read ({type(problem).__name__})."
        raise DatasetProblem(f"{what} Unpack it again as it was published, where you may read it.") from problem


def entries(file: Path, needed: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON list, each with a text or a number under the names that are needed.

    Raises `DatasetProblem` with the line, or the number of the entry, that is of another form.
    """
    try:
        said = json.loads(text_of(file))
    except json.JSONDecodeError as problem:
        raise DatasetProblem(f"{file.name}, line {problem.lineno}: no JSON. Unpack the file again.") from problem
    if not isinstance(said, list):
        raise DatasetProblem(f"{file.name} is no list of questions. Take the file as it was published.")
    for number, entry in enumerate(said, start=1):
        given = entry if isinstance(entry, dict) else {}
        lacking = [name for name in needed if not isinstance(given.get(name), str | int | float)]
        if lacking:
            raise DatasetProblem(
                f"{file.name}, entry {number}: {', '.join(lacking)} missing, or neither text nor number. "
                "Take the file as it was published."
            )
        yield given


def rows(file: Path, needed: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """The rows of a CSV table with a header, packed by gzip where its name ends so, each with the columns needed.

    Raises `DatasetProblem` with the line that lacks one, or after which nothing can be read.
    """
    with _opened(file) as lines:
        reader = csv.DictReader(lines)
        try:
            for row in reader:
                lacking = [name for name in needed if row.get(name) is None]
                if lacking:
                    raise DatasetProblem(
                        f"{file.name}, line {reader.line_num}: {', '.join(lacking)} missing. "
                        "Fetch the table again: it is cut short, or another one."
                    )
                yield row
        except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as problem:
            raise DatasetProblem(
                f"{file.name}, after line {reader.line_num}: it cannot be read ({type(problem).__name__}). "
                "Fetch the table again: it is cut short or damaged."
            ) from problem


def _opened(file: Path) -> TextIO:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", newline="")
    return file.open(encoding="utf-8", newline="")
