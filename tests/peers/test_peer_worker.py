"""The worker on a real Redis: wake-ups through it, pings while busy, and nothing lost when it is emptied."""

import signal
from pathlib import Path

import pytest
import redis

from inlay_core.domain.job import JobState
from inlay_core.messaging import CeleryWakeup, celery_app
from inlay_testkit.installation import Installation, opened
from inlay_testkit.peers import redis_that_restarts
from inlay_testkit.worker import PATIENCE_SECONDS, wait_until, worker_process

pytestmark = pytest.mark.peers


def test_wake_up_through_redis_leads_to_a_draft(tmp_path: Path, redis_url: str) -> None:
    """A message in Redis makes the worker draft, and is acknowledged: nothing is left to be delivered again."""
    site = Installation(tmp_path, broker_url=redis_url)
    with worker_process(site.settings) as worker:
        report = site.order()
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
        with redis.Redis.from_url(redis_url) as connection:
            wait_until(lambda: not connection.llen("inlay.drafts") and not connection.hlen("unacked"))
        assert worker.end() == 0


def test_busy_worker_answers_pings(tmp_path: Path, redis_url: str) -> None:
    """In the middle of a draft the worker answers Celery's ping, so that a probe does not take it for dead."""
    site = Installation(tmp_path, broker_url=redis_url)
    with worker_process(site.settings, steps=6000, step_seconds=0.05):
        report = site.order()
        wait_until(lambda: site.step(report) >= 2)
        # The first answer ends the waiting.
        answers = celery_app(site.settings).control.ping(timeout=PATIENCE_SECONDS, limit=1)
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


def test_worker_whose_acknowledgement_was_not_heard_takes_the_next_wake_up(tmp_path: Path, redis_url: str) -> None:
    """Redis keeps every connection, but is too slow to take the acknowledgement of a job: the next one is drafted."""
    site = Installation(tmp_path, broker_url=redis_url)
    for number in "12":
        site.image(number)
    with (
        worker_process(site.settings, steps=60, step_seconds=0.05) as worker,
        redis.Redis.from_url(redis_url) as connection,
    ):
        unheard = site.order("1", image=False)
        wait_until(lambda: site.state(unheard) is JobState.RUNNING)
        connection.client_pause(120_000, all=False)
        wait_until(lambda: "Couldn't ack" in worker.log)
        connection.client_unpause()
        after = site.order("2", image=False)
        wait_until(lambda: site.state(after) is JobState.SUCCEEDED)


def test_worker_takes_wake_ups_from_a_redis_that_came_back_empty(tmp_path: Path) -> None:
    """A job ends while Redis is away; what is announced after it is back is drafted."""
    with redis_that_restarts() as server:
        site = Installation(tmp_path, broker_url=server.url)
        for number in "12":
            site.image(number)
        with worker_process(site.settings, steps=60, step_seconds=0.05):
            during = site.order("1", image=False)
            wait_until(lambda: site.state(during) is JobState.RUNNING)
            server.stop(signal.SIGKILL)
            wait_until(lambda: site.state(during) is JobState.SUCCEEDED)
            server.start()
            after = site.order("2", image=False)
            wait_until(lambda: site.state(after) is JobState.SUCCEEDED)


def test_worker_that_lost_only_its_mailbox_answers_again(tmp_path: Path, redis_url: str) -> None:
    """Redis drops the connection that pings come over, and no other: the next ping is answered."""
    site = Installation(tmp_path, broker_url=redis_url)
    control = celery_app(site.settings).control
    with worker_process(site.settings) as worker, redis.Redis.from_url(redis_url) as connection:
        wait_until(lambda: bool(control.ping(timeout=0.5)))
        assert connection.client_kill_filter(_type="pubsub") == 1
        wait_until(lambda: "mailbox.lost" in worker.log)
        wait_until(lambda: bool(control.ping(timeout=0.5)))


def test_worker_that_nothing_wakes_looks_by_itself(tmp_path: Path, redis_url: str) -> None:
    """No wake-up comes through: after a while an idle worker does what waits, and connects to the broker anew."""
    site = Installation(tmp_path, broker_url=redis_url, forgotten_seconds=0.2)
    for number in "12":
        site.image(number)
    with worker_process(site.settings) as worker:
        # A worker looks once when it is ready; what comes after that is left to wake-ups.
        wait_until(lambda: "] succeeded in" in worker.log)
        report = site.order("1", wake=False, image=False)
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
        assert "work.deaf" in worker.log
        woken = site.order("2", image=False)
        wait_until(lambda: site.state(woken) is JobState.SUCCEEDED)


def test_messages_in_redis_hold_nothing_of_the_patient(tmp_path: Path, redis_url: str) -> None:
    """What stands in Redis before a worker takes it names neither patient nor order."""
    site = Installation(tmp_path, broker_url=redis_url)
    site.order()
    with redis.Redis.from_url(redis_url) as connection:
        stored = "".join(opened(message) for message in connection.lrange("inlay.drafts", 0, -1))
    assert "inlay.wake" in stored
    for planted in site.PLANTED:
        assert planted not in stored
