"""Answers as bytes: JSON in UTF-8 without escapes, so that text leaves as it is stored, and 304 for what is known."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, request

from inlay_api.conditions import content_tag, is_known


def json_bytes(body: Any) -> bytes:
    """The JSON text of a body."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def json_answer(body: Any, *, status: int = 200, tag: str | None = None, location: str | None = None) -> Response:
    """A JSON answer with its ETag and Location."""
    answer = Response(json_bytes(body), status=status, content_type="application/json")
    if tag is not None:
        answer.headers["ETag"] = tag
    if location is not None:
        answer.headers["Location"] = location
    return answer


def tagged_answer(body: Any) -> Response:
    """A JSON answer whose ETag is a digest of it; 304 when the caller has it already."""
    data = json_bytes(body)
    tag = content_tag(data)
    if is_known(request, tag):
        return not_modified(tag)
    answer = Response(data, content_type="application/json")
    answer.headers["ETag"] = tag
    return answer


def not_modified(tag: str) -> Response:
    """304: the caller has it."""
    answer = Response(status=304)
    answer.headers["ETag"] = tag
    return answer
