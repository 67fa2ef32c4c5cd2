from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from inlay_dicom.times import study_time

VIENNA = ZoneInfo("Europe/Vienna")


def dataset(**values: object) -> Dataset:
    """A dataset with these attributes, taken as they are."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    ("date", "time", "offset", "expected"),
    [
        ("20260302", "143015.25", None, datetime(2026, 3, 2, 13, 30, 15, 250000, UTC)),
        ("20260702", "1430", None, datetime(2026, 7, 2, 12, 30, tzinfo=UTC)),
        ("20260302", None, None, datetime(2026, 3, 1, 23, 0, tzinfo=UTC)),
        ("2026.03.02", "14:30:15", None, datetime(2026, 3, 2, 13, 30, 15, tzinfo=UTC)),
        ("20260302", "143060", None, datetime(2026, 3, 2, 13, 30, 59, tzinfo=UTC)),
        ("20260302", "1430", "-0500", datetime(2026, 3, 2, 19, 30, tzinfo=UTC)),
        ("20260302", "99", None, datetime(2026, 3, 1, 23, 0, tzinfo=UTC)),
        ("20261302", "1430", None, None),
        ("", "1430", None, None),
    ],
)
def test_study_time_in_utc(date: str, time: str | None, offset: str | None, expected: datetime | None) -> None:
    """Local times are in the file's offset, else in the site's zone; what cannot be read is absent."""
    values = {"StudyDate": date, "StudyTime": time, "TimezoneOffsetFromUTC": offset}
    made = dataset(**{key: value for key, value in values.items() if value is not None})
    assert study_time(made, VIENNA) == expected


@given(st.text(max_size=12), st.text(max_size=16), st.text(max_size=6))
def test_no_text_breaks_it(date: str, time: str, offset: str) -> None:
    """Whatever stands there, the answer is a moment in UTC or nothing."""
    found = study_time(dataset(StudyDate=date, StudyTime=time, TimezoneOffsetFromUTC=offset), VIENNA)
    assert found is None or found.tzinfo is UTC
