import threading
from collections.abc import Sequence
from pathlib import Path

from inlay_api.wakeups import Wakeups
from inlay_core.domain.errors import Unavailable
from inlay_core.messaging import broker_folders
from inlay_core.settings import Settings
from inlay_testkit.worker import wait_until


class Broker:
    """A broker that notes what it is told, holds up its caller while `open` is not set, and may be away."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.asked = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.away = False
        self.refused = 0

    def wake(self, job_ids: Sequence[str]) -> None:
        """As the port says."""
        self.asked.set()
        assert self.open.wait(10)
        if self.away:
            self.refused += 1
            raise Unavailable("broker-away", "The broker does not answer.")
        self.told += job_ids

    def waiting(self) -> int:
        """As the port says."""
        return len(self.told)


def test_jobs_are_told_in_their_order() -> None:
    """Each job is told once, and the broker is opened once, with the first of them."""
    broker, opened = Broker(), []

    def open_it() -> Broker:
        opened.append(threading.current_thread().name)
        return broker

    wakeups = Wakeups(open_it)
    assert opened == []
    for job_id in ("a", "b", "c"):
        wakeups.tell(job_id)
    wait_until(lambda: broker.told == ["a", "b", "c"])
    assert opened == ["wakeups"]


def test_nobody_waits_for_a_broker_that_does_not_answer() -> None:
    """Telling returns while the broker hangs, also of more jobs than are kept for it."""
    broker = Broker()
    broker.open.clear()
    wakeups = Wakeups(lambda: broker)
    for number in range(500):
        wakeups.tell(str(number))
    assert broker.told == []
    broker.open.set()
    wait_until(lambda: len(broker.told) >= 64)
    assert broker.told[:3] == ["0", "1", "2"]


def test_a_broker_that_was_away_is_told_of_later_jobs() -> None:
    """What waited while it was away is left to the relay; the next job is told again."""
    broker = Broker()
    broker.open.clear()
    broker.away = True
    wakeups = Wakeups(lambda: broker)
    wakeups.tell("first")
    assert broker.asked.wait(10)
    wakeups.tell("meanwhile")
    broker.open.set()
    wait_until(lambda: broker.refused == 1)
    broker.away = False
    wait_until(lambda: _told_of("later", wakeups, broker))
    assert set(broker.told) == {"later"}


def test_an_error_that_nobody_foresaw_costs_one_wake_up() -> None:
    """The thread goes on: later jobs are told as before."""

    class Broken(Broker):
        def wake(self, job_ids: Sequence[str]) -> None:
            if job_ids == ["first"]:
                raise RuntimeError
            super().wake(job_ids)

    broker = Broken()
    wakeups = Wakeups(lambda: broker)
    for job_id in ("first", "second"):
        wakeups.tell(job_id)
    wait_until(lambda: broker.told == ["second"])


def _told_of(job_id: str, wakeups: Wakeups, broker: Broker) -> bool:
    wakeups.tell(job_id)
    return job_id in broker.told


def test_the_broker_of_the_settings_has_the_message(tmp_path: Path) -> None:
    """In embedded mode the wake-up is a file in the folder that workers look into."""
    queue, _ = broker_folders(tmp_path)
    Wakeups.of(Settings(home=tmp_path)).tell("0b9f6c6e-6d3f-4f4c-8f8e-0d3b2f1a4c55")
    wait_until(lambda: queue.is_dir() and len(list(queue.glob("*.msg"))) == 1)
    assert "0b9f6c6e" in next(queue.glob("*.msg")).read_text()
