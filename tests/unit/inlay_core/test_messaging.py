from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from inlay_core.domain.errors import Unavailable
from inlay_core.messaging import (
    QUEUE,
    WAKE_TASK,
    CeleryWakeup,
    broker_folders,
    celery_app,
    celery_settings,
)
from inlay_core.settings import Settings


def test_the_embedded_broker_is_a_folder(tmp_path: Path) -> None:
    """Without a broker URL the file transport is used, producers and consumers on one folder of the home."""
    settings = celery_settings(Settings(home=tmp_path))
    options = settings["broker_transport_options"]
    assert settings["broker_url"].startswith("filesystem://")
    assert options["data_folder_in"] == options["data_folder_out"] == str(tmp_path / "broker" / "queue")


def test_redis_is_used_where_it_is_configured() -> None:
    """A broker URL is used as it is, with time limits on its sockets."""
    settings = celery_settings(Settings(broker_url="redis://h/0"))
    assert settings["broker_url"] == "redis://h/0"
    assert settings["broker_transport_options"]["socket_timeout"] > 0


def test_a_worker_takes_one_message_and_gives_it_back_when_it_dies() -> None:
    """The settings that losing nothing rests on, and no results or pickles anywhere."""
    settings = celery_settings(Settings())
    assert settings["task_acks_late"]
    assert settings["task_reject_on_worker_lost"]
    assert (settings["worker_prefetch_multiplier"], settings["worker_concurrency"]) == (0, 1)
    assert (settings["accept_content"], settings["task_ignore_result"]) == (["json"], True)


def test_a_wake_up_carries_the_jobs_id_and_nothing_else(tmp_path: Path) -> None:
    """What lies in the broker is the name of the task and the id of the job."""
    settings = Settings(home=tmp_path)
    CeleryWakeup(celery_app(settings)).wake(["job-1"])
    (message,) = broker_folders(tmp_path)[0].iterdir()
    envelope = json.loads(message.read_text())
    assert envelope["headers"]["task"] == WAKE_TASK
    assert json.loads(base64.b64decode(envelope["body"]))[:2] == [[], {"job_id": "job-1"}]
    assert envelope["properties"]["delivery_info"]["routing_key"] == QUEUE


def test_wake_ups_that_nobody_took_are_counted(tmp_path: Path) -> None:
    """As many as lie in the broker's folder; none at first."""
    wakeup = CeleryWakeup(celery_app(Settings(home=tmp_path)))
    assert wakeup.waiting() == 0
    wakeup.wake(["job-1", "job-2"])
    assert wakeup.waiting() == 2
    next(broker_folders(tmp_path)[0].iterdir()).unlink()
    assert wakeup.waiting() == 1


def test_a_broker_that_is_away_is_unavailable() -> None:
    """A refused connection is an error that may pass, without the URL in it."""
    wakeup = CeleryWakeup(celery_app(Settings(broker_url="redis://:geheim@127.0.0.1:1/0")))
    for ask in (lambda: wakeup.wake(["job-1"]), wakeup.waiting):
        with pytest.raises(Unavailable) as refused:
            ask()
        assert "geheim" not in str(refused.value)
