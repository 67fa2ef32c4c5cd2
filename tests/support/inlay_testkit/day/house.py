"""The processes of a load run: api, listener, relay and workers, on PostgreSQL and Redis, with a target of results."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psycopg

from inlay_core.bootstrap import Services
from inlay_hl7.header import Header
from inlay_testkit.day.course import Sample
from inlay_testkit.day.holding import cpu_seconds, held
from inlay_testkit.drills.processes import READY, answers
from inlay_testkit.peers import Server
from inlay_testkit.premises import Premises, premises
from inlay_testkit.receiver import Receiver, positive, receiving

# The demonstration model is loaded on a machine that is busy with starting everything else.
_PATIENCE_SECONDS: Final = 180.0


@dataclass(frozen=True)
class House:
    """What a load run works on. `told` are the moments at which the target received results, by control id."""

    site: Premises
    processes: Mapping[str, Server]
    results: Receiver
    told: Mapping[str, datetime]

    @property
    def services(self) -> Services:
        """The core, on the same database."""
        return self.site.services

    def check(self) -> None:
        """Raise RuntimeError where a process has ended: here nothing is to die."""
        for name, server in self.processes.items():
            if server.process is None or server.process.poll() is not None:
                raise RuntimeError(f"{name} ended; its log is in {self.site.folder}")

    def logs(self, kind: str) -> list[str]:
        """What the processes of a kind have logged."""
        return [log.read_text(errors="replace") for log in sorted(self.site.folder.glob(f"{kind}-*.log"))]

    def cpu(self) -> dict[str, float]:
        """CPU seconds of each process and its children so far."""
        return {**{name: cpu_seconds(pid) for name, pid in self._pids().items()}, "clients": _own_cpu()}

    def sample(self, seconds: float) -> Sample:
        """What each process and its children hold now, so many seconds after the begin."""
        found = {name: held(pid) for name, pid in self._pids().items()} | {"clients": held(os.getpid(), alone=True)}
        return Sample(
            seconds, {name: each for name, each in found.items() if each is not None}, _connections(self.site.postgres)
        )

    def _pids(self) -> dict[str, int]:
        theirs = {"postgresql": self.site.postgres, "redis": self.site.redis, **self.processes}
        return {name: server.process.pid for name, server in theirs.items() if server.process is not None}


@contextmanager
def house(
    folder: Path, worker: Sequence[str], *, workers: int, settings: Mapping[str, str], durable: bool
) -> Iterator[House]:
    """Start everything; end everything. `worker` is the command of a worker, or of none in particular: `inlay work`."""
    told: dict[str, datetime] = {}

    def taken(header: Header) -> bytes:
        told.setdefault(header.control_id, datetime.now(UTC))
        return positive(header)

    with receiving() as results, ExitStack() as started:
        results.answer = taken
        ours = {"INLAY_ORU_TARGET": f"127.0.0.1:{results.port}", **settings}
        site = started.enter_context(premises(folder, ours, durable=durable))
        names = ["serve", "listen", "relay", *(f"work-{number}" for number in range(1, workers + 1))]
        processes = {name: started.enter_context(_process(site, name, worker)) for name in names}
        yield House(site, processes, results, told)


def _process(site: Premises, name: str, worker: Sequence[str]) -> Server:
    kind, log = name.partition("-")[0], site.folder / f"{name}.log"
    command = [sys.executable, "-m", "inlay_cli", "--parent", str(os.getpid()), kind]
    if kind == "work" and worker:
        command = list(worker)

    def is_ready() -> bool:
        return answers(site.settings.http_port) if kind == "serve" else READY[kind] in log.read_text(errors="replace")

    return Server(command, log, is_ready, env=site.env, patience=_PATIENCE_SECONDS)


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system


def _connections(postgres: Server) -> int:
    """Connections to a PostgreSQL, without the one that asks."""
    with psycopg.connect(postgres.url.replace("postgresql+psycopg://", "postgresql://")) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
    return int(row[0]) if row else 0
