"""Live progress through a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from inlay_core.application.ports import StepProgress
from inlay_core.messaging import QUEUE, CeleryWakeup, celery_app
from inlay_core.progress import RedisProgress
from inlay_core.settings import Settings
from inlay_testkit.core import StillClock

pytestmark = pytest.mark.peers


@pytest.fixture
def clock() -> StillClock:
    """A clock that stands still."""
    return StillClock()


@pytest.fixture
def progress(redis_url: str, clock: StillClock) -> Iterator[RedisProgress]:
    """The adapter on a fresh Redis, with short waits."""
    adapter = RedisProgress(redis_url, clock, wait_seconds=0.2)
    yield adapter
    adapter.close()


def canvases(events: Iterator[StepProgress | None], count: int) -> list[str]:
    """The texts of the next canvases; gives up after some silence."""
    found = [event.text for event in islice(events, 30) if event is not None]
    return found[:count]


def test_a_late_watcher_sees_the_newest_canvas_and_what_follows(progress: RedisProgress, clock: StillClock) -> None:
    """Whoever comes late gets the newest canvas at once, and each later one as it is published."""
    progress.publish("j", 1, 16, "one", [(0, 3)])
    events = progress.follow("j")
    first = next(event for event in events if event is not None)
    assert (first.text, first.accepted, first.step) == ("one", ((0, 3),), 1)
    clock.advance(1)
    progress.publish("j", 2, 16, "two \U0001f600")
    second = next(event for event in islice(events, 30) if event is not None)
    assert (second.text, second.sequence > first.sequence) == ("two \U0001f600", True)
    assert canvases(progress.follow("j", second.sequence), 1) == []


def test_two_canvases_within_a_millisecond_are_two(progress: RedisProgress) -> None:
    """The last canvas comes right after the one before: its watcher hears of both."""
    events = progress.follow("j")
    assert next(events) is None
    progress.publish("j", 1, 16, "one")
    progress.publish("j", 1, 1, "one, the last")
    assert canvases(events, 2) == ["one", "one, the last"]


def test_jobs_are_kept_apart(progress: RedisProgress) -> None:
    """A watcher of one job sees nothing of another."""
    progress.publish("other", 1, 16, "secret")
    assert next(progress.follow("j")) is None


def test_a_redis_that_is_away_costs_canvases_only(clock: StillClock) -> None:
    """Publishing and following go on in silence while Redis is away."""
    away = RedisProgress("redis://127.0.0.1:1/0", clock, wait_seconds=0.01)
    away.publish("j", 1, 16, "x")
    assert list(islice(away.follow("j"), 2)) == [None, None]
    away.close()


def test_wake_ups_go_through_redis(redis_url: str) -> None:
    """A wake-up sent through a real Redis waits in the queue of the workers."""
    import redis

    wakeup = CeleryWakeup(celery_app(Settings(broker_url=redis_url)))
    assert wakeup.waiting() == 0
    wakeup.wake(["job-1", "job-2"])
    with redis.Redis.from_url(redis_url) as connection:
        assert connection.llen(QUEUE) == wakeup.waiting() == 2
        connection.lpop(QUEUE)
    assert wakeup.waiting() == 1
