"""The worker on a real Redis: wake-ups through it, pings while busy, and nothing lost when it is emptied."""

from pathlib import Path

import pytest
import redis

from inlay_core.domain.job import JobState
from inlay_core.messaging import CeleryWakeup, celery_app
from inlay_testkit.installation import Installation
from inlay_testkit.worker import wait_until, worker_process

pytestmark = pytest.mark.peers


def test_wake_up_through_redis_leads_to_a_draft(tmp_path: Path, redis_url: str) -> None:
    """A message in Redis makes the worker draft, and is acknowledged: nothing is left to be delivered again."""
    site = Installation(tmp_path, broker_url=redis_url)
    with worker_process(site.settings) as worker:
        report = site.order()
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
        assert worker.end() == 0
    with redis.Redis.from_url(redis_url) as connection:
        assert connection.llen("inlay.drafts") == 0
        assert connection.hlen("unacked") == 0


def test_busy_worker_answers_pings(tmp_path: Path, redis_url: str) -> None:
    """In the middle of a draft the worker answers Celery's ping, so that a probe does not take it for dead."""
    site = Installation(tmp_path, broker_url=redis_url)
    with worker_process(site.settings, steps=100, step_seconds=0.05):
        report = site.order()
        wait_until(lambda: site.step(report) >= 2)
        answers = celery_app(site.settings).control.ping(timeout=2.0)
        assert site.state(report) is JobState.RUNNING
    assert [list(answer.values()) for answer in answers] == [[{"ok": "pong"}]]


def test_emptied_redis_loses_no_order(tmp_path: Path, redis_url: str) -> None:
    """Redis may forget everything: the next wake-up, whichever job it names, brings all jobs to their end."""
    site = Installation(tmp_path, broker_url=redis_url)
    forgotten = [site.order(str(number)) for number in range(1, 4)]
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
    with worker_process(site.settings):
        CeleryWakeup(celery_app(site.settings)).wake(["no such job"])
        wait_until(lambda: all(site.state(report) is JobState.SUCCEEDED for report in forgotten))


def test_messages_in_redis_hold_nothing_of_the_patient(tmp_path: Path, redis_url: str) -> None:
    """What stands in Redis before a worker takes it names neither patient nor order."""
    site = Installation(tmp_path, broker_url=redis_url)
    site.order()
    with redis.Redis.from_url(redis_url) as connection:
        stored = b"".join(connection.lrange("inlay.drafts", 0, -1)).decode()
    assert "inlay.wake" in stored
    for planted in site.PLANTED:
        assert planted not in stored
