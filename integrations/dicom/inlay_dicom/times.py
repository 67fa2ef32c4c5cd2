"""DICOM dates and times (PS3.5 6.2, DA and TM) as moments in UTC, and back. A value that cannot be read is absent."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Final, TypeVar

from pydicom.dataset import Dataset

T = TypeVar("T")

# The dotted and coloned forms are those of ACR-NEMA, which old archives still hold.
_DATE: Final = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})", re.ASCII)
_TIME: Final = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?", re.ASCII)
_OFFSET: Final = re.compile(r"([+-])(\d{2})(\d{2})", re.ASCII)


def study_time(dataset: Dataset, zone: tzinfo = UTC) -> datetime | None:
    """StudyDate and StudyTime in UTC; None without a date.

    Timezone Offset From UTC (0008,0201) goes before `zone`, the site's. A study without a time of day counts from
    midnight there.
    """
    day = parse_date(_text(dataset, "StudyDate"))
    if day is None:
        return None
    local = datetime.combine(day, parse_time(_text(dataset, "StudyTime")) or time(0))
    try:
        return local.replace(tzinfo=_offset(_text(dataset, "TimezoneOffsetFromUTC")) or zone).astimezone(UTC)
    except OverflowError:
        return None


def parse_date(text: str) -> date | None:
    """A DA value."""
    found = _DATE.fullmatch(text)
    return _valid(lambda: date(*map(int, found.groups()))) if found else None


def parse_time(text: str) -> time | None:
    """A TM value; missing parts are zero, a leap second is the second before it."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    hour, minute, second = (int(part or 0) for part in found.groups()[:3])
    micro = int((found[4] or "0").ljust(6, "0"))
    return _valid(lambda: time(hour, minute, min(second, 59), micro))


def _offset(text: str) -> tzinfo | None:
    found = _OFFSET.fullmatch(text)
    if found is None:
        return None
    ahead = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return _valid(lambda: timezone(-ahead if found[1] == "-" else ahead))


def _valid(make: Callable[[], T]) -> T | None:
    try:
        return make()
    except ValueError:
        return None


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        value = dataset.get(keyword)
    except Exception:  # noqa: BLE001 - a value is converted when it is first looked at, and may be anything.
        return ""
    return value.strip() if isinstance(value, str) else ""
