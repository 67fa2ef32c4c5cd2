"""Reading requests: bounded, strict JSON whose text can be stored, and numbers in their ranges.

Errors name the place in the body, never what stood there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NoReturn

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from inlay_api.problems import Refused, bad_request
from inlay_core.domain.edits import FragmentEdit, Offered, SectionEdit
from inlay_core.domain.fragment import SECTION_NAMES, PlacedGap
from inlay_core.domain.infill import MAX_HINT_LENGTH, MAX_ITEMS
from inlay_core.domain.text import is_nested_deeper, refuse_unstorable

# A report has some ten kilobytes; this leaves room for escapes, and keeps a process' memory bounded.
MAX_BODY: Final = 1_048_576
# What the API takes is nested five deep.
MAX_DEPTH: Final = 16
MAX_FRAGMENTS: Final = 500
MAX_TEXT: Final = 50_000
MAX_REASON: Final = 2_000
MAX_VERSION: Final = 999_999_999
_KEYS: Final = frozenset(
    {
        "sections",
        "name",
        "fragments",
        "items",
        "id",
        "text",
        "lock",
        "locked",
        "gap",
        "gaps",
        "hint",
        "kind",
        "reason",
        "version",
        "span",
        "offered",
        "unlocked",
    }
)


def read_json(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The object in the body. Raises Invalid, Refused (415), RequestEntityTooLarge."""
    data = _bounded(request)
    if not data and optional:
        return {}
    if request.mimetype != "application/json":
        raise Refused(415, "media-type", "The body must be application/json.", "Content-Type")
    return parse_object(data)


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object that the bytes are; strict UTF-8, no duplicate keys, no NaN, nothing that cannot be stored."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_request(f"The body is not UTF-8 (offset {error.start}).", "body") from None
    if is_nested_deeper(text, MAX_DEPTH):
        raise bad_request(f"The body is nested deeper than {MAX_DEPTH}.", "body")
    try:
        body = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise bad_request(f"The body is not JSON (offset {error.pos}).", "body") from None
    except (ValueError, RecursionError):
        raise bad_request("The body is not JSON that can be read here.", "body") from None
    if not isinstance(body, dict):
        raise bad_request("The body is an object.", "body")
    for place, found in _strings(body, ""):
        refuse_unstorable(found, place)
    return body


def only_keys(body: Mapping[str, Any], allowed: Collection[str], place: str = "body") -> None:
    """Refuse keys that would be passed over silently: a misspelt one would widen a search."""
    if not body.keys() <= set(allowed):
        raise bad_request(f"Only {', '.join(sorted(allowed)) or 'nothing'} can stand here.", place, "unknown-key")


def text_list(body: Mapping[str, Any], key: str, most: int = 50) -> tuple[str, ...]:
    """The strings under `key`: one string, or a list of at most `most`; empty without the key."""
    value = body.get(key)
    values = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > most or not all(isinstance(one, str) for one in values):
        raise bad_request(f"Expected a string, or a list of at most {most}.", key)
    if any(len(one) > 256 for one in values):
        raise bad_request("Expected strings of at most 256 characters.", key)
    return tuple(values)


def text_of(body: Mapping[str, Any], key: str, longest: int) -> str:
    """The string under `key`; empty without it."""
    value = body.get(key, "")
    if not isinstance(value, str) or len(value) > longest:
        raise bad_request(f"Expected a string of at most {longest} characters.", key)
    return value


def whole_number(text: Any, place: str, low: int, high: int, default: int) -> int:
    """A number of a query or a body within its range; `default` where there is none."""
    if text is None:
        return default
    digits = text if isinstance(text, str) else str(text) if type(text) is int else ""
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 12 or not low <= int(digits) <= high:
        raise bad_request(f"Expected a whole number from {low} to {high}.", place, "bad-number")
    return int(digits)


def section_edits(body: Mapping[str, Any]) -> tuple[SectionEdit, ...]:
    """The edits of a body `{"sections": [{"name", "fragments": [{"id", "text", "locked"}], "unlocked", "gaps"}]}`.

    What else a fragment carries (origin, warnings) is as the server gave it, and is not read back.
    """
    sections = body.get("sections")
    if not isinstance(sections, list) or len(sections) > len(SECTION_NAMES):
        raise bad_request(f"Expected a list of at most {len(SECTION_NAMES)} sections.", "sections")
    return tuple(_section_edit(section, f"sections[{number}]") for number, section in enumerate(sections))


def _section_edit(section: Any, place: str) -> SectionEdit:
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        raise bad_request("A section is an object with a name.", place)
    fragments = section.get("fragments")
    if not isinstance(fragments, list) or len(fragments) > MAX_FRAGMENTS:
        raise bad_request(f"A section has a list of at most {MAX_FRAGMENTS} fragments.", f"{place}.fragments")
    edits = (_fragment_edit(fragment, f"{place}.fragments[{n}]") for n, fragment in enumerate(fragments))
    unlocked = section.get("unlocked", [])
    if not isinstance(unlocked, list) or not all(isinstance(one, str) for one in unlocked):
        raise bad_request("Expected a list of ids.", f"{place}.unlocked")
    gaps = section.get("gaps", [])
    if not isinstance(gaps, list) or len(gaps) > MAX_ITEMS:
        raise bad_request(f"A section has a list of at most {MAX_ITEMS} gaps.", f"{place}.gaps")
    placed = (_placed_gap(gap, f"{place}.gaps[{n}]") for n, gap in enumerate(gaps))
    return SectionEdit(section["name"], tuple(edits), tuple(unlocked[:MAX_FRAGMENTS]), tuple(placed))


def _placed_gap(gap: Any, place: str) -> PlacedGap:
    if not isinstance(gap, dict):
        raise bad_request("A gap is an object.", place)
    hint = gap.get("hint", "")
    if not isinstance(hint, str) or len(hint) > MAX_HINT_LENGTH:
        raise bad_request(f"A hint is a string of at most {MAX_HINT_LENGTH} characters.", f"{place}.hint")
    return PlacedGap(whole_number(gap.get("at", ""), f"{place}.at", 0, MAX_FRAGMENTS, 0), hint)


def _fragment_edit(fragment: Any, place: str) -> FragmentEdit:
    if not isinstance(fragment, dict):
        raise bad_request("A fragment is an object.", place)
    known, text, locked = fragment.get("id"), fragment.get("text"), fragment.get("locked", False)
    if known is not None and not isinstance(known, str):
        raise bad_request("An id is a string.", f"{place}.id")
    if text is not None and (not isinstance(text, str) or len(text) > MAX_TEXT):
        raise bad_request(f"A text is a string of at most {MAX_TEXT} characters.", f"{place}.text")
    if not isinstance(locked, bool):
        raise bad_request("The flag locked is true or false.", f"{place}.locked")
    version = fragment.get("version")
    return FragmentEdit(
        known,
        text,
        locked,
        None if version is None else whole_number(version, f"{place}.version", 1, MAX_VERSION, 1),
        _span(fragment.get("span"), f"{place}.span"),
        _offered(fragment.get("offered"), f"{place}.offered"),
    )


def _span(value: Any, place: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise bad_request("A span is [start, end).", place)
    start, end = (whole_number(one, place, 0, MAX_TEXT, 0) for one in value)
    return start, end


def _offered(value: Any, place: str) -> Offered | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("job_id"), str):
        raise bad_request("What was offered is named by job_id, item and text.", place)
    item, text = (whole_number(value.get(key), f"{place}.{key}", 0, MAX_FRAGMENTS, 0) for key in ("item", "text"))
    return Offered(value["job_id"], item, text)


def _bounded(request: Request) -> bytes:
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise RequestEntityTooLarge
    return request.get_data(cache=True)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise bad_request("A key stands twice in one object.", "body", "duplicate-key")
    return body


def _no_constant(_name: str) -> NoReturn:
    raise bad_request("NaN and Infinity are no JSON.", "body")


def _strings(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            # A key may hold anything, a patient's name too; only ours become part of a place.
            yield f"{place}.(key)".lstrip("."), key
            name = key if key in _KEYS else "(key)"
            yield from _strings(inner, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _strings(inner, f"{place}[{number}]")
