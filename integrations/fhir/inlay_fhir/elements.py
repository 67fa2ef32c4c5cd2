"""Small FHIR R4 data types as dictionaries. None and empty values never reach the wire: `filled` drops them.

https://hl7.org/fhir/R4/datatypes.html
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Any, Final

Json = dict[str, Any]

AI_ASSERTED: Final[Json] = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
ARTIFICIAL_INTELLIGENCE: Final[Json] = {
    "system": "http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS",
    "code": "Artificial-Intelligence",
    "display": "All kinds of Artificial Intelligence",
}

# XML 1.0 (2.2) has no way to write these, and FHIR's `string` excludes the C0 controls as well: U+FFFD stands for them.
_UNWRITABLE: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def json_bytes(resource: Json) -> bytes:
    """The resource as it is sent."""
    return json.dumps(resource, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def filled(**elements: Any) -> Json:
    """The elements that have a value; FHIR knows no null, no empty string, list or object.

    A trailing underscore is cut, so that `class_` and `for_` can be written.
    """
    return {key.rstrip("_"): value for key, value in elements.items() if value not in (None, "", [], {}, ())}


def coding(system: str | None, code: str | None, display: str | None = None) -> Json:
    """A Coding."""
    return filled(system=system, code=code, display=display)


def concept(*codings: Json, text: str | None = None) -> Json:
    """A CodeableConcept."""
    return filled(coding=[each for each in codings if each], text=string(text))


def reference(target: str | None = None, **others: Any) -> Json:
    """A Reference: literal (`Patient/1`), by identifier, or a display alone."""
    return filled(reference=target, **others)


def string(text: str | None) -> str | None:
    """`text` as a FHIR string: what cannot be written becomes U+FFFD, and blanks alone are no value."""
    return _UNWRITABLE.sub("\ufffd", text) if text and text.strip() else None


def writable(text: str) -> str:
    """`text` with U+FFFD for each character that neither XML nor a FHIR string can carry."""
    return _UNWRITABLE.sub("\ufffd", text)


def instant(moment: datetime) -> str:
    """An instant in UTC, to the microsecond that was stored."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds" if moment.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def attachment(data: bytes, content_type: str, **others: Any) -> Json:
    """An Attachment with its bytes: `size` counts them before base64, `hash` is the base64 of their SHA-1 (R4)."""
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return filled(
        contentType=content_type,
        data=base64.b64encode(data).decode("ascii"),
        size=len(data),
        hash=base64.b64encode(digest).decode("ascii"),
        **others,
    )
