"""ETags and preconditions (RFC 9110, 13): the ETag of a report is its version, and a write names the one it saw."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from flask import Request

from inlay_api.problems import Refused
from inlay_core.domain.errors import Stale

# `"3"`, and the weak form `W/"3"` that FHIR uses. A bare number is what people type into curl.
_VERSION: Final = re.compile(r'(?:(?:W/)?"(\d{1,9})"|(\d{1,9}))')
_TAGS: Final = re.compile(r'(?:W/)?"[^"]*"')


def version_tag(version: int) -> str:
    """The ETag of a version."""
    return f'"{version}"'


def content_tag(body: bytes) -> str:
    """The ETag of an answer that has no version of its own."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def expected_version(request: Request) -> int:
    """The version that the caller saw. Raises Refused (428) when none is named, Stale for what is no version."""
    header = _required(request)
    if header == "*":
        raise Refused(428, "version-required", "Name the version that you saw; * is not enough.", "If-Match")
    found = _VERSION.fullmatch(header)
    if found is None:
        raise Stale("version-mismatch", "If-Match names no version of the report.", "If-Match")
    return int(found.group(1) or found.group(2))


def check_tag(request: Request, tag: str) -> None:
    """Raise Refused (428) without If-Match, Stale where it neither names the tag nor is `*`."""
    header = _required(request)
    if header != "*" and tag not in [one.removeprefix("W/") for one in _TAGS.findall(header)]:
        raise Stale("tag-mismatch", "The job has changed.", "If-Match")


def is_known(request: Request, tag: str) -> bool:
    """Whether the caller has this state already (If-None-Match; weak comparison)."""
    header = request.headers.get("If-None-Match", "").strip()
    return header == "*" or tag in [one.removeprefix("W/") for one in _TAGS.findall(header)]


def _required(request: Request) -> str:
    header = request.headers.get("If-Match", "").strip()
    if not header:
        raise Refused(428, "version-required", "A change names the version that you saw.", "If-Match")
    return header
