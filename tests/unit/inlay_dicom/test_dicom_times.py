from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from pydicom.dataset import Dataset

from inlay_dicom.times import study_time

BERLIN = ZoneInfo("Europe/Berlin")


def study(date: str | None, time: str | None, offset: str | None = None) -> Dataset:
    """A header with these elements."""
    dataset = Dataset()
    for keyword, value in (("StudyDate", date), ("StudyTime", time), ("TimezoneOffsetFromUTC", offset)):
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("date", "time", "offset", "expected"),
    [
        ("20260302", "083015.5", None, datetime(2026, 3, 2, 7, 30, 15, 500000, UTC)),
        ("20260702", "0830", None, datetime(2026, 7, 2, 6, 30, tzinfo=UTC)),
        ("20260302", "08", "-0500", datetime(2026, 3, 2, 13, 0, tzinfo=UTC)),
        ("20260302", "235960", "+0000", datetime(2026, 3, 2, 23, 59, 59, tzinfo=UTC)),
        ("20260302", None, None, None),
        (None, "0830", None, None),
        ("20260231", "0830", None, None),
        ("00010101", "0000", "+1400", None),
    ],
)
def test_a_study_took_place_when_its_header_says(
    date: str | None, time: str | None, offset: str | None, expected: datetime | None
) -> None:
    """Without an offset the site's zone counts, summer time included; what cannot be read is no time."""
    assert study_time(study(date, time, offset), BERLIN) == expected
