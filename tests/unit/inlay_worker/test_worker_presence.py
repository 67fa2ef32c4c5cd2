"""How a worker is seen while it is idle, and after it has ended."""

import threading
from datetime import timedelta
from typing import Any

from inlay_core.application.administration import overview
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.switch import Writer
from inlay_testkit.core import ADMIN, StillClock
from inlay_testkit.hospital import Hospital
from inlay_testkit.memory import Memory
from inlay_worker.presence import Presence


def presence(uow: Any, clock: StillClock, **options: Any) -> Presence:
    """One whose thread the test starts or not."""
    usual: dict[str, Any] = {"worker_id": "w1", "uow": uow, "clock": clock, "writer": Writer("tiny", "d1")}
    return Presence(**(usual | options))


def test_an_idle_worker_is_seen() -> None:
    """Without any job it is there, with its model and the names of its adapters, and gone after its end."""
    memory, told = Memory(), threading.Event()

    def counted() -> int:
        told.set()
        return 0

    with presence(memory, StillClock(), adapters=("/srv/adapters/north",), jobs=counted):
        assert told.wait(10)
        while not memory.world.workers:
            pass
    assert memory.world.workers == {}


def test_what_is_told_is_what_is_shown() -> None:
    """The overview has the worker, and says so when it has fallen silent."""
    hospital = Hospital()
    clock = hospital.ward.clock
    presence(hospital.memory, clock, adapters=("/srv/adapters/north",), jobs=lambda: 2).tell()
    shown = overview(hospital.memory(), clock, ADMIN, hospital.site)
    (worker,) = shown.workers
    assert (worker.model, worker.model_digest, worker.adapters, worker.jobs) == ("tiny", "d1", ("north",), 2)
    assert not shown.is_silent(worker)
    clock.advance(61)
    assert overview(hospital.memory(), clock, ADMIN, hospital.site).is_silent(worker)
    presence(hospital.memory, clock, worker_id="w2").tell()
    clock.advance(timedelta(days=1).total_seconds() + 1)
    presence(hospital.memory, clock, worker_id="w3").tell()
    assert [one.id for one in overview(hospital.memory(), clock, ADMIN, hospital.site).workers] == ["w3"]


def test_a_database_that_is_away_does_not_stop_the_work() -> None:
    """Telling fails without a trace but a line in the log."""

    def away() -> Any:
        raise Unavailable("database-away", "No answer.")

    presence(away, StillClock()).tell()


def test_jobs_under_way_are_counted() -> None:
    """While the model works the worker says how many jobs it does; afterwards none."""
    hospital = Hospital()
    seen: list[int] = []
    hospital.model.before_step = lambda _: seen.append(hospital.worker.doing)
    hospital.order()
    hospital.worker.work_off()
    assert set(seen) == {1}
    assert hospital.worker.doing == 0
