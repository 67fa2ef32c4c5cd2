"""Identifiers and time as the domain sees them: functions that come in as arguments, so that tests choose both."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from inlay_core.domain.errors import Invalid

Clock = Callable[[], datetime]
"""Gives the present time, timezone-aware, in UTC."""

NewId = Callable[[], str]
"""Gives a fresh identifier: a UUID4 in text form, which is also a valid FHIR id."""

# FHIR R4 datatypes, `id`: letters, digits, '-' and '.', at most 64 characters.
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def check_id(value: str, place: str) -> str:
    """Return `value` when it is a well-formed id; raise Invalid, naming `place`, when it is not."""
    if not _ID.fullmatch(value):
        raise Invalid("bad-id", "An id has 1 to 64 letters, digits, '-' or '.'.", place)
    return value
