"""Search parameters as they come over the wire: names with modifiers, alternatives, tokens, references and dates.

https://hl7.org/fhir/R4/search.html. What cannot be read is refused with the name of the parameter, never its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl

from inlay_fhir.http import FhirRequest
from inlay_fhir.outcome import Refusal

Pair = tuple[str, str]

# More parameters than anybody asks for; a bound on what one request can make the server do.
_MOST_PARAMETERS: Final = 200
_ALTERNATIVE: Final = re.compile(r"(?:\\.|[^\\,])+")
_SYSTEM_AND_CODE: Final = re.compile(r"((?:\\.|[^\\|])*)\|(.*)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\([\\,|$])")
# `+` of a zone that a client forgot to encode arrives as a blank.
_DATE: Final = re.compile(
    r"(?P<op>eq|ne|gt|lt|ge|le|sa|eb)?(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:T(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>Z|[+ -]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
# On a moment, "starts after" and "ends before" are "after" and "before".
_SYNONYMS: Final = {"sa": "gt", "eb": "lt"}


def bad(name: str, why: str) -> Refusal:
    """The refusal of a parameter's value."""
    return Refusal(400, "invalid", f"Search parameter {name}: {why}")


def of_request(request: FhirRequest) -> tuple[Pair, ...]:
    """The parameters of a search: of the URL, and of the form when it was posted."""
    pairs = list(request.query)
    if request.method == "POST" and request.body:
        media = (request.header("Content-Type") or "").partition(";")[0].strip().lower()
        if media != "application/x-www-form-urlencoded":
            raise Refusal(415, "not-supported", "A posted search is application/x-www-form-urlencoded.")
        pairs += form(request.body)
    if len(pairs) > _MOST_PARAMETERS:
        raise Refusal(400, "too-costly", f"A search has at most {_MOST_PARAMETERS} parameters.")
    for name, value in pairs:
        if "\x00" in name + value or any("\ud800" <= character <= "\udfff" for character in name + value):
            raise Refusal(400, "invalid", "A search parameter holds NUL or a lone surrogate.")
    return tuple(pairs)


def form(body: bytes) -> list[Pair]:
    """The pairs of a form. Raises Refusal."""
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        # UnicodeDecodeError is one; parse_qsl raises plain ones for too many fields.
        raise Refusal(400, "structure", "The form of the search cannot be read.") from None


def is_strict(request: FhirRequest) -> bool:
    """Whether the client wants unknown parameters refused (`Prefer: handling=strict`)."""
    return "handling=strict" in preferences(request)


def preferences(request: FhirRequest) -> list[str]:
    """What stands in Prefer (RFC 7240), in lower case, without blanks."""
    stated = re.split(r"[,;]", (request.header("Prefer") or "").lower())
    return [re.sub(r"\s", "", preference) for preference in stated]


def alternatives(value: str) -> list[str]:
    """The values between unescaped commas, still escaped; empty ones are none."""
    return _ALTERNATIVE.findall(value)


def unescaped(value: str) -> str:
    r"""A value without the backslashes of `\,` `\|` `\$` `\\`."""
    return _ESCAPE.sub(r"\1", value)


@dataclass(frozen=True, slots=True)
class Token:
    """`system|code`: `system` is None where any will do, empty for `|code`."""

    system: str | None
    code: str


def token(name: str, text: str) -> Token:
    """One token. A system without a code is not supported."""
    both = _SYSTEM_AND_CODE.match(text)
    found = Token(unescaped(both[1]), unescaped(both[2])) if both else Token(None, unescaped(text))
    if not found.code:
        raise bad(name, "a token needs its code.")
    return found


def referenced(text: str, resource: str, base_url: str) -> str | None:
    """The id in a reference to a `resource` of this server; None for a reference to something else."""
    target = unescaped(text).removeprefix(f"{base_url}/")
    if "/" not in target:
        return target
    kind, _, identity = target.partition("/")
    return identity if kind == resource and "/" not in identity else None


@dataclass(frozen=True, slots=True)
class Bound:
    """A prefix and the period [start, end) that the date's precision stands for."""

    op: str
    start: datetime
    end: datetime


def bound(name: str, text: str) -> Bound:
    """A date with its prefix; without a zone it is UTC."""
    found = _DATE.fullmatch(text)
    if found is None:
        raise bad(name, "a date is YYYY, YYYY-MM, YYYY-MM-DD or a time with zone, after eq ne gt lt ge le sa or eb.")
    try:
        start, end = _period(found)
        start, end = start.astimezone(UTC), end.astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad(name, "there is no such date.") from None
    op = found["op"] or "eq"
    return Bound(_SYNONYMS.get(op, op), start, end)


def _period(found: re.Match[str]) -> tuple[datetime, datetime]:
    year, month, day, hour, minute, second = (
        int(found[part] or default)
        for part, default in (("year", 1), ("month", 1), ("day", 1), ("hour", 0), ("minute", 0), ("second", 0))
    )
    zone = found["zone"] or "Z"
    offset = "+00:00" if zone == "Z" else zone.replace(" ", "+")
    tzinfo = datetime.fromisoformat(f"2000-01-01T00:00:00{offset}").tzinfo
    fraction = found["fraction"]
    microsecond = int((fraction or "0").ljust(6, "0")[:6])
    start = datetime(year, month, day, hour, minute, second, microsecond, tzinfo)
    if fraction:
        return start, start + timedelta(microseconds=10 ** max(6 - len(fraction), 0))
    if found["second"]:
        return start, start + timedelta(seconds=1)
    if found["hour"]:
        return start, start + timedelta(minutes=1)
    if found["day"]:
        return start, start + timedelta(days=1)
    if found["month"]:
        return start, start.replace(year=year + month // 12, month=month % 12 + 1)
    return start, start.replace(year=year + 1)


def count(name: str, text: str) -> int:
    """A number that is not negative."""
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise bad(name, "it is a number from 0 on.")
    return int(text)


def last(pairs: Iterable[Pair], name: str) -> str | None:
    """The last value of a parameter, for those that count once."""
    return next((value for key, value in reversed(list(pairs)) if key == name), None)
