from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_hl7.times import format_time, parse_date, parse_time


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025", datetime(2025, 1, 1, tzinfo=UTC)),
        ("202503", datetime(2025, 3, 1, tzinfo=UTC)),
        ("20250304", datetime(2025, 3, 4, tzinfo=UTC)),
        ("202503041015", datetime(2025, 3, 4, 10, 15, tzinfo=UTC)),
        ("20250304101530.1234", datetime(2025, 3, 4, 10, 15, 30, 123400, tzinfo=UTC)),
        ("20250304101530+0100", datetime(2025, 3, 4, 9, 15, 30, tzinfo=UTC)),
        ("20250304-0530", datetime(2025, 3, 4, 5, 30, tzinfo=UTC)),
    ],
)
def test_times_of_every_precision(text: str, moment: datetime) -> None:
    """Each precision of the standard, with and without an offset, gives the moment in UTC."""
    assert parse_time(text) == moment
    assert parse_time(text).tzinfo is UTC


def test_a_time_without_offset_is_in_the_zone_of_its_sender() -> None:
    """A sender's zone applies where the time has none, and not where it has one."""
    berlin = timezone(timedelta(hours=1))
    assert parse_time("20250304101500", berlin) == datetime(2025, 3, 4, 9, 15, tzinfo=UTC)
    assert parse_time("20250304101500+0000", berlin) == datetime(2025, 3, 4, 10, 15, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "x", "20251304", "20250230", "2025030425", "20250304101500+9999", "٢٠٢٥", "1"])
def test_no_times(text: str) -> None:
    """What is no time raises ValueError whose text does not repeat it."""
    with pytest.raises(ValueError, match="not an HL7 time"):
        parse_time(text)


@pytest.mark.parametrize(("text", "day"), [("19700102", date(1970, 1, 2)), ("19700102000000", date(1970, 1, 2))])
def test_dates(text: str, day: date) -> None:
    """A birth date may carry a time of day, which is dropped."""
    assert parse_date(text) == day


@pytest.mark.parametrize("text", ["", "1970", "19701302", "١٩٧٠٠١٠٢"])
def test_no_dates(text: str) -> None:
    """An incomplete or impossible date is refused rather than guessed."""
    with pytest.raises(ValueError, match="not an HL7 date"):
        parse_date(text)


@given(st.datetimes(min_value=datetime(1900, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_what_is_written_is_read(moment: datetime) -> None:
    """A written time is read as the same second."""
    assert parse_time(format_time(moment)) == moment.replace(microsecond=0)


def test_a_time_without_zone_is_not_written() -> None:
    """A naive datetime would be somebody's guess, so it is refused."""
    with pytest.raises(ValueError, match="zone"):
        format_time(datetime(2025, 1, 1))  # noqa: DTZ001
