"""What a person asks on the command line: sections in a line each, a JSON file, or the record of an earlier run.

Whatever is written otherwise is a `BadRequest` that says where it stands and how it is written, without report text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inlay_model.errors import BadRequest
from inlay_model.provenance import RunRecord
from inlay_model.request import Gap, Item, Lock, Section

GAPS = """\
[...]            a gap of any length
[...20]          of at most 20 tokens, [...5-20] of 5 to 20, [...5-] of at least 5
[... pleura]     that is to speak of the pleura: a hint, also with bounds, as in [...5-20 pleura]
[...|Old text.]  that replaces a text, for --warm-start and --rewrite; after bounds and hint, where there are any
"""
REQUEST = """\
{"sections": [
  {"name": "findings", "items": [
    {"lock": "The heart is normal in size. "},
    {"gap": {"min_tokens": 5, "max_tokens": 20, "hint": "pleura", "replaces": "No pleural effusion."}},
    {"lock": " No pneumothorax."}]},
  {"name": "impression", "items": [{"gap": {}}]}]}
"""

_GAP = re.compile(
    r"\[\.\.\.(?:(?P<least>[0-9]{1,6})-)?(?P<most>[0-9]{1,6})?"
    r"(?: +(?P<hint>[^\s|\]](?:[^|\]]*[^\s|\]])?))? *(?:\|(?P<replaces>[^\]]*))?\]"
)
_OPEN = "[..."
# Of each key of a gap: what it holds, and in words.
_GAP_KEYS: Mapping[str, tuple[type, str]] = {
    "min_tokens": (int, "a whole number"),
    "max_tokens": (int, "a whole number"),
    "hint": (str, "text"),
    "replaces": (str, "text"),
}


def parse_sections(written: Sequence[str]) -> list[Section]:
    """Sections written as `name=Locked. [...] Locked too.`; how gaps are written is in `GAPS`."""
    sections = []
    for line in written:
        name, equals, text = line.partition("=")
        if not equals:
            raise BadRequest("A section is written NAME=TEXT.")
        sections.append(Section(name.strip().lower(), tuple(_items(text))))
    return sections


def read_request(file: Path) -> list[Section]:
    """The sections of a JSON file as in `REQUEST`."""
    return _sections(_object(file, "sections")["sections"], str(file))


def read_record(file: Path) -> tuple[RunRecord, list[Section]]:
    """Run record and request of a file that --record wrote."""
    said = _object(file, "run", "sections")
    sections = _sections(said["sections"], str(file))
    if not isinstance(said["run"], dict):
        raise BadRequest(f"{file}: run is no object. Name a file that --record wrote.")
    try:
        record = RunRecord.from_json(said["run"])
        # What it holds is looked at now, not after a checkpoint was loaded.
        record.generation_settings(), record.prompt_context()
    except (TypeError, ValueError) as problem:
        raise BadRequest(f"{file} has no whole run record ({problem}). Name a file that --record wrote.") from problem
    return record, sections


def read_earlier(file: Path) -> list[Section]:
    """The request of an earlier run, whose gaps replace what that run wrote into them."""
    _, sections = read_record(file)
    answer = _object(file, "answer")["answer"]
    texts = {
        (part.get("name"), piece.get("item")): piece.get("text")
        for part in _list(answer, f"{file}: answer")
        if isinstance(part, dict)
        for piece in _list(part.get("pieces"), f"{file}: answer, pieces")
        if isinstance(piece, dict)
    }

    def replacing(name: str, at: int, item: Item) -> Item:
        if isinstance(item, Lock):
            return item
        text = texts.get((name, at))
        if not isinstance(text, str):
            raise BadRequest(
                f"{file}: the answer has no text for item {at} of {name}. Name a file that --record wrote."
            )
        return Gap(item.min_tokens, item.max_tokens, item.hint, text)

    return [
        Section(part.name, tuple(replacing(part.name, at, item) for at, item in enumerate(part.items)))
        for part in sections
    ]


def _object(file: Path, *keys: str) -> dict[str, Any]:
    """The JSON object of a file, which has these keys."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise BadRequest(f"{file} cannot be read as JSON ({type(problem).__name__}).") from problem
    if not isinstance(said, dict) or not said.keys() >= set(keys):
        raise BadRequest(f"{file} is no JSON object with {' and '.join(keys)}.")
    return said


def _list(said: Any, place: str) -> list[Any]:
    if not isinstance(said, list):
        raise BadRequest(f"{place} is no list.")
    return said


def _sections(said: Any, file: str) -> list[Section]:
    return [
        _section(section, f"{file}, section {number}")
        for number, section in enumerate(_list(said, f"{file}: sections"), start=1)
    ]


def _section(said: Any, place: str) -> Section:
    if not isinstance(said, dict) or not isinstance(said.get("name"), str) or "items" not in said:
        raise BadRequest(f'{place}: a section is written {{"name": "findings", "items": [...]}}.')
    items = _list(said["items"], f"{place}: items")
    return Section(said["name"], tuple(_item(item, f"{place}, item {at}") for at, item in enumerate(items, start=1)))


def _item(said: Any, place: str) -> Item:
    if not isinstance(said, dict) or len(said) != 1 or not said.keys() <= {"lock", "gap"}:
        raise BadRequest(f'{place}: an item is a {{"lock": "text"}} or a {{"gap": {{}}}}.')
    if "lock" in said:
        if not isinstance(said["lock"], str):
            raise BadRequest(f"{place}: a lock is text.")
        return Lock(said["lock"])
    return _gap(said["gap"], place)


def _gap(said: Any, place: str) -> Gap:
    if not isinstance(said, dict) or not said.keys() <= _GAP_KEYS.keys():
        raise BadRequest(f"{place}: a gap is an object that may have {', '.join(_GAP_KEYS)}.")
    for key, value in said.items():
        kind, words = _GAP_KEYS[key]
        # JSON's null leaves a bound or a text out; true and false are numbers to Python alone.
        if (value is None and key != "min_tokens") or (isinstance(value, kind) and not isinstance(value, bool)):
            continue
        raise BadRequest(f"{place}: {key} of a gap is {words}.")
    return Gap(**said)


def _items(text: str) -> list[Item]:
    items: list[Item] = []
    at = 0
    for gap in _GAP.finditer(text):
        items += _lock(text[at : gap.start()])
        least, most = gap["least"], gap["most"]
        items.append(Gap(int(least or 0), int(most) if most else None, gap["hint"], gap["replaces"]))
        at = gap.end()
    return [*items, *_lock(text[at:])]


def _lock(text: str) -> list[Item]:
    if _OPEN in text:
        raise BadRequest(
            "A gap is written [...], [...20], [...5-20], [... hint] or [...|replaced text]. A lock that has [... in it "
            "is given in a file (--request)."
        )
    return [Lock(text)] if text else []
