"""Resources that clients send: bounded, strict JSON of the expected type, and readers that name the place they read.

https://hl7.org/fhir/R4/json.html. What is wrong is told by its place, never by its value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from inlay_fhir.elements import Json
from inlay_fhir.http import FhirRequest
from inlay_fhir.mapping.core import is_nested_deeper
from inlay_fhir.outcome import Refusal

_MEDIA: Final = frozenset({"application/fhir+json", "application/json", "text/json"})
# What Inlay takes in is nested six deep; extensions of a client may be deeper.
_DEEPEST: Final = 30
_LONGEST: Final = 1_048_576
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def resource_of(request: FhirRequest, kind: str) -> Json:
    """The resource in the body. Raises Refusal: 415 for other formats, 413, 400 for what is no such resource."""
    body = json_of(request)
    if body.get("resourceType") != kind:
        raise Refusal(400, "structure", f"The body is no {kind}.")
    return body


def json_of(request: FhirRequest) -> Json:
    """The JSON object in the body. Raises Refusal."""
    media = (request.header("Content-Type") or "").partition(";")[0].strip().lower()
    if media not in _MEDIA:
        raise Refusal(415, "not-supported", "A body is application/fhir+json.")
    if len(request.body) > _LONGEST:
        raise Refusal(413, "too-long", f"A body has at most {_LONGEST} bytes.")
    try:
        body = _parsed(request.body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refusal(400, "structure", "The body is not JSON in UTF-8 that can be read here.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "structure", "The body is a JSON object.")
    if any(_UNSTORABLE.search(found) for found in _strings(body)):
        raise Refusal(400, "value", "The body holds NUL or a lone surrogate.")
    return body


def bad(place: str, why: str) -> Refusal:
    """The refusal of an element."""
    return Refusal(400, "value", f"{place}: {why}")


def text_at(parent: Any, name: str, place: str, longest: int = 4000) -> str | None:
    """The string under `name`; None without it."""
    value = parent.get(name) if isinstance(parent, dict) else None
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise bad(f"{place}.{name}", f"a string with 1 to {longest} characters.")
    return value


def object_at(parent: Any, name: str, place: str) -> Json:
    """The object under `name`; empty without it."""
    value = parent.get(name) if isinstance(parent, dict) else None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad(f"{place}.{name}", "an object.")
    return value


def objects_at(parent: Any, name: str, place: str, most: int = 100) -> list[Json]:
    """The objects of the list under `name`; empty without it."""
    value = parent.get(name) if isinstance(parent, dict) else None
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most or not all(isinstance(each, dict) for each in value):
        raise bad(f"{place}.{name}", f"a list of at most {most} objects.")
    return value


def _parsed(text: str) -> Any:
    if is_nested_deeper(text, _DEEPEST):
        raise ValueError("too deep")
    return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a key stands twice")
    return body


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
