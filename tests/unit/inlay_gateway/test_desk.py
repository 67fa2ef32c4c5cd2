from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from inlay_gateway.listen import Desk
from inlay_gateway.reception import Answered, Taken
from inlay_hl7.ack import Outcome


class Slow:
    """A reception that answers with what it was given, its first group only when it is let go."""

    def __init__(self, failing: int = 0) -> None:
        self.groups: list[list[bytes]] = []
        self.begun = threading.Event()
        self.go = threading.Event()
        self._failing = failing

    def take_all(self, messages: Sequence[Taken]) -> list[Answered]:
        """One group."""
        self.groups.append([message.payload for message in messages])
        self.begun.set()
        assert self.go.wait(10)
        if len(self.groups) == self._failing:
            raise RuntimeError
        return [Answered(message.payload, Outcome.ACCEPTED, "accepted") for message in messages]


def test_what_waits_is_the_next_group_in_its_order() -> None:
    """The first message waits for nobody; those that come while it is stored are taken together, each answered."""
    slow = Slow()

    async def talk(desk: Desk) -> list[bytes]:
        tasks = [asyncio.create_task(desk.take(b"1", "peer"))]
        assert await asyncio.to_thread(slow.begun.wait, 10)
        tasks += [asyncio.create_task(desk.take(payload, "peer")) for payload in (b"2", b"3", b"4")]
        await asyncio.sleep(0)
        tasks[2].cancel()
        slow.go.set()
        answered = await asyncio.gather(*tasks, return_exceptions=True)
        return [each.payload for each in answered if isinstance(each, Answered)]

    with ThreadPoolExecutor(1) as pool:
        assert asyncio.run(talk(Desk(slow, pool))) == [b"1", b"2", b"4"]
    assert slow.groups == [[b"1"], [b"2", b"3", b"4"]]


def test_a_group_that_fails_is_not_the_last() -> None:
    """Whoever waits for a group that fails is told so, and the next message is taken."""
    slow = Slow(failing=1)
    slow.go.set()

    async def talk(desk: Desk) -> bytes:
        with pytest.raises(RuntimeError):
            await desk.take(b"1", "peer")
        return (await desk.take(b"2", "peer")).payload

    with ThreadPoolExecutor(1) as pool:
        assert asyncio.run(talk(Desk(slow, pool))) == b"2"
