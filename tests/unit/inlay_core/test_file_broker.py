"""The embedded broker's folder of messages: whole, once each, and unharmed by broken files."""

import threading
from pathlib import Path
from typing import Any

import pytest
from kombu.connection import Connection

from inlay_core.messaging import celery_settings
from inlay_core.settings import Settings

# Bounds hangs.
SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of messages of a home."""
    queue = tmp_path / "broker/queue"
    queue.mkdir(parents=True)
    return queue


@pytest.fixture
def connect(folder: Path) -> Any:
    """Opens connections as Celery does."""
    conf = celery_settings(Settings(home=folder.parent.parent))
    return lambda: Connection(
        conf["broker_url"], transport=conf["broker_transport"], transport_options=conf["broker_transport_options"]
    )


def test_message_arrives_as_it_was_sent(connect: Any, folder: Path) -> None:
    """What one connection puts in, another takes out, and the folder is empty again."""
    with connect() as sender, connect() as receiver:
        sender.SimpleQueue("q").put({"job_id": "j-1"})
        assert len(list(folder.glob("*.q.msg"))) == 1
        message = receiver.SimpleQueue("q").get(timeout=SECONDS)
        assert message.payload == {"job_id": "j-1"}
        message.ack()
    assert list(folder.iterdir()) == []


def test_each_message_is_taken_once(connect: Any) -> None:
    """Several takers share the messages of several senders: none is lost, none comes twice, none comes in parts."""
    taken: list[int] = []
    sent = threading.Event()

    def send(first: int) -> None:
        with connect() as connection:
            queue = connection.SimpleQueue("q")
            for number in range(first, first + 50):
                queue.put(number)

    def take() -> None:
        with connect() as connection:
            queue = connection.SimpleQueue("q")
            while True:
                # A taker that found nothing after all was sent, and not before, leaves none behind.
                was_all_sent = sent.is_set()
                try:
                    message = queue.get(timeout=0.3)
                except queue.Empty:
                    if was_all_sent:
                        return
                    continue
                taken.append(message.payload)
                message.ack()

    senders = [threading.Thread(target=send, args=(first,)) for first in (0, 50)]
    takers = [threading.Thread(target=take) for _ in range(3)]
    for thread in (*senders, *takers):
        thread.start()
    for thread in senders:
        thread.join()
    sent.set()
    for thread in takers:
        thread.join()
    assert sorted(taken) == list(range(100))


@pytest.mark.parametrize("content", [b"", b'{"body": "W1td', b"\xff\xfe\x00"])
def test_broken_message_is_dropped(connect: Any, folder: Path, content: bytes) -> None:
    """A file that holds no message is removed; the next message is delivered."""
    (folder / "0_broken.q.msg").write_bytes(content)
    with connect() as connection:
        queue = connection.SimpleQueue("q")
        queue.put("whole")
        assert queue.get(timeout=SECONDS).payload == "whole"
    assert not list(folder.glob("*broken*"))
    assert not list(folder.glob(".*broken*"))


def test_other_queues_are_left_alone(connect: Any, folder: Path) -> None:
    """Messages of another queue in the same folder stay where they are."""
    with connect() as connection:
        connection.SimpleQueue("other").put(1)
        queue = connection.SimpleQueue("q")
        with pytest.raises(queue.Empty):
            queue.get(timeout=0.2)
    assert len(list(folder.glob("*.other.msg"))) == 1
