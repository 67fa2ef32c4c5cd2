"""HL7 times and dates to datetimes in UTC, and back. A time without an offset is in the zone of its sender."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo

# DTM: YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ] (HL7 v2.9, chapter 2A).
_TIME = re.compile(
    r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?)?)?)?(?:([+-])(\d{2})(\d{2}))?",
    re.ASCII,
)


def parse_time(text: str, zone: tzinfo = UTC) -> datetime:
    """The moment in UTC; missing parts count as the first month, day, hour. Raises ValueError without the value."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError("not an HL7 time")
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    micro = int((fraction or "0").ljust(6, "0"))
    try:
        if sign:
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            zone = timezone(-offset if sign == "-" else offset)
        local = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0), micro, zone
        )
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not an HL7 time") from None


def parse_date(text: str) -> date:
    """A date; the time of day that some senders append to a birth date is dropped. Raises ValueError."""
    digits = text.strip()[:8]
    if not re.fullmatch(r"[0-9]{8}", digits):
        raise ValueError("not an HL7 date")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        raise ValueError("not an HL7 date") from None


def format_time(moment: datetime) -> str:
    """`YYYYMMDDHHMMSS+0000`; the moment must know its zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
