"""When a study took place, by its own header. A time without an offset is in the zone of the site.

StudyDate and StudyTime (PS3.3 C.7.2.1), in the values DA and TM (PS3.5 6.2); the offset is TimezoneOffsetFromUTC
(PS3.3 C.12.1). What cannot be read is no time: a wrong one on a report would be worse than none.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from pydicom.dataset import Dataset

# The dotted form of DA is that of ACR-NEMA and still written; TM may end early, and had colons before 1996.
_DATE: Final = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})", re.ASCII)
_TIME: Final = re.compile(r"(\d{2}):?(?:(\d{2}):?(?:(\d{2})(?:\.(\d{1,6}))?)?)?", re.ASCII)
_OFFSET: Final = re.compile(r"([+-])(\d{2})(\d{2})", re.ASCII)


def study_time(dataset: Dataset, zone: tzinfo = UTC) -> datetime | None:
    """The moment in UTC; None without a date and a time of day that can be read."""
    day = _DATE.fullmatch(_text(dataset, "StudyDate"))
    time = _TIME.fullmatch(_text(dataset, "StudyTime"))
    if day is None or time is None:
        return None
    hour, minute, second, fraction = time.groups()
    try:
        moment = datetime(
            int(day[1]),
            int(day[2]),
            int(day[3]),
            int(hour),
            int(minute or 0),
            # 60 is a leap second (PS3.5 6.2), which Python does not know.
            min(int(second or 0), 59),
            int((fraction or "0").ljust(6, "0")),
            _offset(_text(dataset, "TimezoneOffsetFromUTC")) or zone,
        )
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _offset(text: str) -> tzinfo | None:
    found = _OFFSET.fullmatch(text)
    if found is None:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset) if offset < timedelta(hours=24) else None


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return str(value).strip(" \0") if value is not None else ""
