from __future__ import annotations

from itertools import islice

import pytest

from inlay_core.application.ports import NewUnitOfWork, StepProgress
from inlay_core.domain.errors import Unavailable
from inlay_core.progress import RowProgress
from inlay_testkit.core import StillClock
from inlay_testkit.memory import Memory


@pytest.fixture
def clock() -> StillClock:
    """A clock that stands still."""
    return StillClock()


@pytest.fixture
def memory() -> Memory:
    """An empty database in memory."""
    return Memory()


def rows(new_uow: NewUnitOfWork, clock: StillClock) -> RowProgress:
    """The adapter with a tenth of a second between rows, and without waiting."""
    return RowProgress(new_uow, new_uow, clock, min_seconds=0.1, sleep=lambda _seconds: None)


def shown(progress: RowProgress, job_id: str, count: int, after: int = 0) -> list[str | None]:
    """The texts of the next events."""
    return [event.text if event else None for event in islice(progress.follow(job_id, after), count)]


def test_a_canvas_is_followed(memory: Memory, clock: StillClock) -> None:
    """A watcher sees the newest canvas once, and None while nothing is new."""
    progress = rows(memory, clock)
    progress.publish("j", 1, 16, "The", [(0, 3)])
    follower = progress.follow("j")
    first = next(follower)
    assert first is not None
    assert (first.step, first.steps, first.text, first.accepted) == (1, 16, "The", ((0, 3),))
    assert next(follower) is None
    clock.advance(1)
    progress.publish("j", 2, 16, "The heart")
    second = next(follower)
    assert second is not None
    assert second.sequence > first.sequence
    assert shown(progress, "other", 1) == [None]


def test_a_job_that_waits_for_something_else_is_looked_at_less_often(memory: Memory, clock: StillClock) -> None:
    """Looks are close together for two seconds after a canvas, and rare when none comes."""
    pauses: list[float] = []
    progress = RowProgress(memory, memory, clock, sleep=pauses.append)
    follower = progress.follow("j")
    assert list(islice(follower, 150)) == [None] * 150
    assert max(pauses[:50]) < min(pauses[120:])
    progress.publish("j", 1, 16, "The")
    assert next(follower) is not None
    assert list(islice(follower, 3)) == [None] * 3
    assert pauses[-1] == pauses[0]


def test_rows_are_throttled_but_the_last_step_is_written(memory: Memory, clock: StillClock) -> None:
    """Steps that come too fast are dropped; the final canvas is not."""
    progress = rows(memory, clock)
    progress.publish("j", 1, 3, "one")
    clock.advance(0.05)
    progress.publish("j", 2, 3, "two")
    assert shown(progress, "j", 1) == ["one"]
    follower = progress.follow("j")
    first = next(follower)
    progress.publish("j", 3, 3, "three")
    assert shown(progress, "j", 1) == ["three"]
    last = next(follower)
    assert first is not None
    assert last is not None
    assert last.sequence > first.sequence


def test_jobs_that_end_before_their_last_step_are_not_remembered(memory: Memory, clock: StillClock) -> None:
    """Most stop early and some fail: what is kept of them to drop fast steps is as much after many as after one."""
    progress = rows(memory, clock)
    for number in range(1_000):
        progress.publish(f"j{number}", 3, 16, "stopped early")
        clock.advance(0.2)
    assert len(progress._last) <= 1
    progress.publish("next", 1, 16, "one")
    progress.publish("next", 2, 16, "two")
    assert shown(progress, "next", 1) == ["one"]


def test_who_comes_back_sees_only_what_is_new(memory: Memory, clock: StillClock) -> None:
    """A watcher that names the last sequence it saw is not shown it again; a restarted job is still ahead."""
    progress = rows(memory, clock)
    progress.publish("j", 9, 16, "old attempt")
    seen = next(progress.follow("j"))
    assert isinstance(seen, StepProgress)
    assert shown(progress, "j", 1, seen.sequence) == [None]
    clock.advance(1)
    progress.publish("j", 1, 16, "new attempt")
    assert shown(progress, "j", 1, seen.sequence) == ["new attempt"]


def test_a_busy_database_costs_a_canvas_and_not_the_job(memory: Memory, clock: StillClock) -> None:
    """Publishing never raises because the database did not take the row."""

    def busy() -> object:
        raise Unavailable("database-unavailable", "The database is locked.")

    RowProgress(busy, memory, clock).publish("j", 1, 16, "x")  # type: ignore[arg-type]
    assert shown(rows(memory, clock), "j", 1) == [None]
