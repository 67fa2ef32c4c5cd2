"""A whole Inlay of real processes on a real PostgreSQL and Redis, with a RIS, a radiologist and a target of results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from inlay_api.auth import mint
from inlay_cli.demonstration.web import Caller
from inlay_core.bootstrap import Services
from inlay_core.domain.errors import DomainError
from inlay_core.domain.job import JobState
from inlay_testkit.drills.cables import Cables
from inlay_testkit.drills.gate import Gate
from inlay_testkit.drills.outcome import Outcome, examine, unfinished, untold
from inlay_testkit.drills.processes import Served, Victim
from inlay_testkit.drills.reader import Radiologist, WebRadiologist
from inlay_testkit.drills.ris import Ris, place_study
from inlay_testkit.peers import LOOPBACK, Server
from inlay_testkit.premises import premises
from inlay_testkit.receiver import Receiver, receiving

# A busy machine takes a minute to start everything.
PATIENCE_SECONDS = 300.0
PROCESSES = ("listen", "relay", "work")
# Leases and sweeps in fast motion: what takes a minute in a hospital takes seconds here.
FAST: Mapping[str, str] = {
    # Longer than a starved worker is silent: a lease that always runs out lets no job end.
    "INLAY_LEASE_SECONDS": "10",
    "INLAY_SWEEP_SECONDS": "0.3",
    "INLAY_FORGOTTEN_SECONDS": "2",
    "INLAY_ORU_TIMEOUT_SECONDS": "1",
    # Here a job that is lost is no job's fault.
    "INLAY_MAX_ATTEMPTS": "20",
}


@dataclass
class House:
    """What a drill works on; `until` is called from the main thread and keeps the processes alive."""

    services: Services
    postgres: Server
    redis: Server
    victims: dict[str, Victim]
    ris: Ris
    radiologist: Radiologist
    results: Receiver
    results_gate: Gate
    env: dict[str, str]
    folder: Path
    recoveries: list[float] = field(default_factory=list)

    def until(self, happened: Callable[[], bool], patience: float = PATIENCE_SECONDS) -> float:
        """Wait, starting again what dies; return the seconds. A database that is away means "not yet"."""
        began = time.monotonic()
        while not _so_far(happened):
            for victim in self.victims.values():
                victim.tend()
            if time.monotonic() > began + patience:
                raise TimeoutError(f"not within {patience:g} s")
            time.sleep(0.02)
        return time.monotonic() - began

    def drafted(self) -> int:
        """How many drafts and infills are done."""
        with self.services.reader() as uow:
            counted = uow.jobs.count([JobState.SUCCEEDED])
        return sum(counted.values())

    def load(self, share: float) -> None:
        """Wait until that share of the orders is acknowledged, and some draft is there."""
        self.until(lambda: len(self.ris.acknowledged) >= share * self.ris.orders and self.drafted() > 0)

    def recovered(self) -> None:
        """The fault is over: note how long it takes until the next draft or infill is finished."""
        counts: list[int] = []

        def counted() -> bool:
            counts.append(self.drafted())
            return True

        self.until(counted)
        self.recoveries.append(self.until(lambda: self.drafted() > counts[-1] or self._all_done()))

    def finish(self) -> Outcome:
        """Let everything come to its end, and look at it."""
        self.until(lambda: self.ris.is_done and not any(unfinished(self.services).values()))
        self.radiologist.end()
        self.until(self._all_done)
        return examine(
            self.services,
            self.ris.acknowledged,
            edits=self.radiologist.edits,
            signing=self.radiologist.signing,
            received=self.results.payloads,
        )

    def _all_done(self) -> bool:
        return self.ris.is_done and not any(unfinished(self.services).values()) and not untold(self.services)


@contextmanager
def house(
    folder: Path,
    orders: int,
    *,
    settings: Mapping[str, str] | None = None,
    processes: Mapping[str, Mapping[str, str]] | None = None,
    images: Callable[[Path, int], None] = place_study,
    below: Path | None = None,
    cables: Cables | None = None,
    pause: float = 0.5,
    revision: str = "head",
    worker: Sequence[str] = (),
    web: bool = False,
) -> Iterator[House]:
    """Start everything; end everything. `settings` are for all, `processes` for one kind each (extra environment).

    `images` says how the image of an order arrives; `below` is the folder in which PostgreSQL keeps its data. With
    `cables`, each process of Inlay has a network of its own, and a cable to all the others. `pause` is the
    time between two orders in seconds: they are to come before, during and after the fault. With an earlier
    `revision` of the schema the radiologist does not begin by himself. `worker` is another worker's command. With `web`
    there is an api as well, through which the radiologist works.
    """
    address = cables.middle if cables else LOOPBACK
    listening = cables.ends["listen"] if cables else LOOPBACK
    with (
        receiving() as results,
        Gate(results.port, address) as gate,
        # What dies here is a process, not the machine: nothing has to wait for the disk.
        premises(
            folder,
            {
                "INLAY_MLLP_HOST": listening,
                "INLAY_ORU_TARGET": f"{address}:{gate.port}",
                **FAST,
                **(settings or {}),
            },
            below=below,
            revision=revision,
            address=address,
        ) as site,
    ):
        services, env, read = site.services, site.env, site.settings
        victims = {
            name: Victim(
                name,
                env | dict((processes or {}).get(name, {})),
                folder / f"{name}.log",
                (*(cables.behind(name) if cables else ()), *_command(name, worker)),
            )
            for name in PROCESSES
        }
        radiologist = Radiologist(services)
        if web:
            victims["serve"] = Served(read.http_port, env, folder / "serve.log")
            token = mint(read, "id:drill", "Dr. Drill", ["radiologist"], 12)
            radiologist = WebRadiologist(services, Caller(LOOPBACK, read.http_port, token))
        ris = Ris(listening, read.mllp_port, orders, partial(images, read.images), pause)
        running = House(services, site.postgres, site.redis, victims, ris, radiologist, results, gate, env, folder)
        try:
            running.until(lambda: all(victim.look() for victim in victims.values()))
            ris.thread.start()
            if revision == "head":
                radiologist.thread.start()
            yield running
        finally:
            ris.stop()
            radiologist.end()
            for victim in running.victims.values():
                victim.end()


def add_worker(running: House, name: str) -> None:
    """One more worker, seen and ended with the others."""
    log = running.folder / f"{name}.log"
    running.victims[name] = Victim("work", running.env, log, _command("work"))


def replace(running: House, name: str) -> None:
    """End a process in order, and start today's in its place, as a rolling update does."""
    running.victims[name].end()
    log = running.folder / f"{name}-new.log"
    running.victims[name] = Victim(name, running.env, log, _command(name))
    running.until(running.victims[name].look)


def _command(name: str, worker: Sequence[str] = ()) -> tuple[str, ...]:
    if name == "work" and worker:
        return tuple(worker)
    if name == "work":
        return (sys.executable, "-m", "inlay_testkit.drills.worker", str(os.getpid()))
    return (sys.executable, "-m", "inlay_cli", "--parent", str(os.getpid()), name)


def _so_far(happened: Callable[[], bool]) -> bool:
    try:
        return happened()
    except (DomainError, SQLAlchemyError):
        return False
