"""What a client accepts, what it has already, and the headers that say so.

https://hl7.org/fhir/R4/http.html#mime-type, #versioning (ETags) and #cread (conditional read)
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from inlay_fhir.exchange import Answer
from inlay_fhir.http import FhirRequest
from inlay_fhir.outcome import Refusal
from inlay_fhir.parameters import last, preferences

MEDIA_TYPE: Final = "application/fhir+json; charset=utf-8"
_JSON: Final = frozenset({"application/fhir+json", "application/json", "application/*", "*/*", "json", "text/json"})
_FORMATS: Final = _JSON - {"application/*", "*/*"}
_VERSION: Final = re.compile(r"fhirversion=\"?([0-9.]+)\"?")
_WEIGHT: Final = re.compile(r"q=0(\.0*)?")
_ETAG: Final = re.compile(r'(?:W/)?"([^"]*)"|([^\s,"]+)')


def check_format(request: FhirRequest) -> None:
    """Raise Refusal (406) unless the client takes FHIR R4 as JSON. `_format` outranks the header Accept."""
    wanted = last(request.query, "_format")
    if wanted:
        # A plus sign that was not encoded arrives as a blank.
        if wanted.partition(";")[0].strip().lower().replace(" ", "+") not in _FORMATS:
            raise _unacceptable()
        return
    accept = request.header("Accept")
    if accept and not any(_fits(each) for each in accept.lower().split(",")):
        raise _unacceptable()


def _fits(media_range: str) -> bool:
    name, *options = (part.strip() for part in media_range.split(";"))
    if any(_WEIGHT.fullmatch(option) for option in options):
        return False
    versions = [found[1] for option in options if (found := _VERSION.fullmatch(option))]
    return name in _JSON and all(version in ("4.0", "4.0.1") for version in versions)


def _unacceptable() -> Refusal:
    return Refusal(406, "not-supported", "Inlay speaks FHIR R4 (4.0) as application/fhir+json.")


def etag(answer: Answer, body: bytes) -> str:
    """The weak ETag: the version where there is one, else a digest of what is sent."""
    return f'W/"{answer.version or hashlib.sha256(body).hexdigest()[:16]}"'


def has_already(request: FhirRequest, tag: str) -> bool:
    """Whether If-None-Match names this version: `W/"3"`, `"3"`, a bare `3`, a list of them, or `*`."""
    stated = request.header("If-None-Match")
    if not stated:
        return False
    known = {quoted or bare for quoted, bare in _ETAG.findall(stated)}
    return "*" in known or tag.removeprefix('W/"').removesuffix('"') in known


def preferred_return(request: FhirRequest) -> str:
    """What a writer wants back: `representation` unless it says `minimal` or `operationoutcome`."""
    wanted = (preference.removeprefix("return=") for preference in preferences(request) if "return=" in preference)
    return next((name for name in wanted if name in ("minimal", "operationoutcome")), "representation")
