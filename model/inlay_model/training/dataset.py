"""Training data as a JSONL of images, prompts and texts. Read lazily; a bad line is named with its field and a remedy.

One object per line:

    {"image": "a.dcm", "sections": {"findings": "...", "impression": "..."}}
    {"image": "b.png", "prompt": "Is there an effusion?", "answer": "yes"}

`image` is one picture or DICOM file or a list of them, relative to the JSONL's folder (`dicom` is another name for it);
without it the example is text only. `prompt` is the instruction; with `sections` it may be left out, and is then that
of a report request (with `style`, if that is given). `report` is another name for `answer`. `id` names the line.
Messages never quote what a line says, only where it says it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inlay_model.canvas import encode_fragment, encode_header, sentences
from inlay_model.errors import BadData, BadImage
from inlay_model.loading import soft_tokens
from inlay_model.pixels import as_picture
from inlay_model.prompt import Prompt, build_prompt, instruction
from inlay_model.study import read_picture
from inlay_model.tokens import Tokenizer, control_tokens, token_name
from inlay_model.training.corruption import TokenText

# `kind` and `choices` are what the evaluation of questions reads in the same lines.
_FIELDS = {"image", "dicom", "prompt", "answer", "report", "sections", "style", "id", "kind", "choices"}
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that cannot be used: where, which field, what is wrong and what to do."""

    file: Path
    line: int
    field: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.what}. {self.remedy}."


class BadLine(Exception):
    """One line cannot be used."""

    def __init__(self, field: str, what: str, remedy: str) -> None:
        super().__init__(what)
        self.field, self.what, self.remedy = field, what, remedy


@dataclass(frozen=True, slots=True)
class Line:
    """One example as it is written: image files, prompt, and sections of sentences (an answer has one without name)."""

    images: tuple[Path, ...]
    prompt: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One example as the model takes it in: pictures, prompt and text, and the sections that the text was made of."""

    pictures: tuple[Image.Image, ...]
    prompt: Prompt
    text: TokenText
    sections: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """How many tokens a text may have with its end of turn, and a prompt with its images."""

    text: int
    prompt: int


class Dataset:
    """The lines of a JSONL, found again by their place in the file; nothing of them is kept in memory."""

    def __init__(self, file: Path, tokenizer: Tokenizer, image_processor: Any, limits: Limits) -> None:
        self.file, self.limits = file, limits
        self._tokenizer, self._processor = tokenizer, image_processor
        self._control = control_tokens(tokenizer)
        self._places = _line_places(file)

    def __len__(self) -> int:
        """How many lines are not blank."""
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        """The example of this line; raises `BadData` naming the line."""
        try:
            return self._example(index)
        except BadLine as bad:
            raise BadData("A line of the training data cannot be used.", [str(self._problem(index, bad))]) from bad

    def problems(self, *, images: bool = False) -> Iterator[Problem]:
        """Every line that cannot be used; with `images` their files are decoded too, else only looked for."""
        for index in range(len(self)):
            try:
                if images:
                    self._example(index)
                else:
                    self._text(self._line(index))
            except BadLine as bad:
                yield self._problem(index, bad)

    def check(self) -> None:
        """Raise `BadData` listing lines that cannot be used; images are not decoded."""
        found = list(self.problems())
        if not len(self):
            raise BadData(f"{self.file} has no lines.")
        if found:
            more = [f"... and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
            listed = [str(problem) for problem in found[:_SHOWN]]
            raise BadData(f"{len(found)} of {len(self)} lines cannot be used.", [*listed, *more])

    def _problem(self, index: int, bad: BadLine) -> Problem:
        return Problem(self.file, int(self._places[index][0]), bad.field, bad.what, bad.remedy)

    def _line(self, index: int) -> Line:
        with self.file.open("rb") as file:
            file.seek(int(self._places[index][1]))
            raw = file.readline()
        return parse_line(raw, self.file.parent)

    def _example(self, index: int) -> Example:
        line = self._line(index)
        text = self._text(line)
        pictures = tuple(_picture(path) for path in line.images)
        counts = [soft_tokens(self._processor, *picture.size) for picture in pictures]
        prompt = build_prompt(self._tokenizer, counts, line.prompt)
        if len(prompt.ids) > self.limits.prompt:
            what = f"{len(prompt.ids)} tokens with the images, and {self.limits.prompt} fit"
            raise BadLine("prompt", what, "Shorten it, or give fewer images")
        return Example(pictures, prompt, text, line.sections)

    def _text(self, line: Line) -> TokenText:
        for role in ("end_of_turn", "image", "begin_image", "end_image"):
            if token_name(self._tokenizer, role) in line.prompt:
                raise BadLine("prompt", "it spells a control token of the model", "Write it in other words")
        text = encode_text(self._tokenizer, line.sections)
        if len(text.ids) > self.limits.text:
            field = "answer" if line.sections[0][0] == "" else "sections"
            raise BadLine(
                field,
                f"{len(text.ids)} tokens, and {self.limits.text} fit",
                "Shorten it, or split it into lines of one section each",
            )
        return text


def parse_line(raw: bytes, folder: Path) -> Line:
    """The example that a line holds; raises `BadLine`."""
    said = _object(raw)
    unknown = sorted(said.keys() - _FIELDS)
    if unknown:
        raise BadLine(unknown[0], "this field is unknown", f"Known are {', '.join(sorted(_FIELDS))}")
    sections = _sections(said)
    prompt = _prompt(said, [name for name, _ in sections])
    return Line(_images(said, folder), prompt, sections)


def encode_text(tokenizer: Tokenizer, sections: Sequence[tuple[str, Sequence[str]]]) -> TokenText:
    """Token ids of a text as the engine would lay it on a canvas; a section without a name has no header."""
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    kinds: list[bool] = []
    for index, (name, written) in enumerate(sections):
        pieces = [(encode_fragment(tokenizer, sentence), True) for sentence in written]
        if name:
            pieces.insert(0, (encode_header(tokenizer, index, name), False))
        for piece, is_sentence in pieces:
            spans.append((len(ids), len(ids) + len(piece)))
            kinds.append(is_sentence)
            ids += piece
    ids.append(control_tokens(tokenizer).end_of_turn)
    return TokenText(np.array(ids, dtype=np.int64), tuple(spans), tuple(kinds))


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadLine("line", "it is not UTF-8", "Save the file as UTF-8") from None
    except ValueError:
        raise BadLine("line", "it is not JSON", "Each line is one JSON object") from None
    if not isinstance(said, dict):
        raise BadLine("line", "it is not a JSON object", "Each line is one JSON object")
    return said


def _one_of(said: Mapping[str, Any], name: str, other: str) -> tuple[str, Any]:
    if name in said and other in said:
        raise BadLine(other, f"it stands beside {name}, which means the same", "Give one of them")
    return (other, said[other]) if other in said else (name, said.get(name))


def _sections(said: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    field, answer = _one_of(said, "answer", "report")
    if "sections" in said and answer is not None:
        raise BadLine(field, "it stands beside sections", "Give one of them")
    if "sections" not in said:
        return (("", _sentences(field, answer)),)
    given = said["sections"]
    if not isinstance(given, dict) or not given or not all(name.strip() for name in given):
        raise BadLine("sections", "it is no object of named texts", 'Write {"findings": "...", "impression": "..."}')
    return tuple((name.strip().lower(), _sentences(f"sections.{name}", text)) for name, text in given.items())


def _sentences(field: str, text: Any) -> tuple[str, ...]:
    if text is None:
        raise BadLine(field, "there is no text to learn", "Give answer, report or sections")
    if not isinstance(text, str):
        raise BadLine(field, f"it is {type(text).__name__}, not text", "Write it as a JSON string")
    found = tuple(sentences(text))
    if not found:
        raise BadLine(field, "it is empty", "Give a text, or leave the line out")
    return found


def _prompt(said: Mapping[str, Any], names: Sequence[str]) -> str:
    style = said.get("style")
    if style is not None and not isinstance(style, str):
        raise BadLine("style", "it is not text", "Write it as a JSON string")
    if "prompt" not in said:
        if "sections" not in said:
            raise BadLine("prompt", "there is none", "Give a prompt, or sections, which have one of their own")
        return instruction(names, style)
    if not isinstance(said["prompt"], str) or not said["prompt"].strip():
        raise BadLine("prompt", "it is empty or no text", "Write the instruction or question as a JSON string")
    return str(said["prompt"]).strip()


def _images(said: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    field, given = _one_of(said, "image", "dicom")
    names = [] if given is None else given if isinstance(given, list) else [given]
    if not all(isinstance(name, str) and name for name in names):
        raise BadLine(field, "it is no file name", "Give a path, or a list of paths")
    paths = tuple(folder / name for name in names)
    for path in paths:
        if not path.is_file():
            raise BadLine(field, f"there is no file {path}", "Paths are relative to the folder of the JSONL")
    return paths


def _picture(path: Path) -> Image.Image:
    try:
        return as_picture(read_picture(path).image)
    except BadImage as problem:
        raise BadLine("image", str(problem).rstrip("."), "Convert the file, or leave the line out") from problem


def _line_places(file: Path) -> Any:
    """Line number and byte offset of every line that is not blank, shape (lines, 2)."""
    places: list[tuple[int, int]] = []
    offset = 0
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    places.append((number, offset))
                offset += len(line)
    except OSError as problem:
        raise BadData(f"{file} cannot be read ({type(problem).__name__}).") from problem
    return np.array(places, dtype=np.int64).reshape(-1, 2)
