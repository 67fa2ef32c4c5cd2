"""MLLP on loopback for tests: a server in a thread, raw sockets that read frames, and a listener that can be killed.

Run as a program (`python -m inlay_testkit.mllp HOME POINT`) it is that listener: it prints its port, and kills itself
with SIGKILL at POINT of its first message: `before-commit`, `after-commit` or `never`. At `group-before-commit` and
`group-after-commit` the first message is answered when GROUP others wait, and the kill meets these; it prints `begun`
when the first message is being stored.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from inlay_core.application.ports import UnitOfWork
from inlay_core.bootstrap import Services, bootstrap
from inlay_core.logs import configure_logs
from inlay_core.settings import Settings
from inlay_gateway.listen import listener
from inlay_gateway.reception import Reception
from inlay_hl7.building import Envelope, PatientFields, Person
from inlay_hl7.framing import Frame, FrameDecoder, encode
from inlay_hl7.orders import OrderFields, build_order
from inlay_hl7.senders import Senders
from inlay_hl7.server import Limits, MllpServer

# Bounds hangs: what must come comes within this on any machine.
SECONDS = 60.0
GROUP = 4


def order_message(number: str, control_id: str | None = None, **changes: str) -> bytes:
    """The payload of a new order of a made-up patient; `changes` are those of `OrderFields`."""
    envelope = Envelope(control_id or f"C{number}", datetime(2026, 3, 2, 8, tzinfo=UTC), "RIS", "HOSP", version="2.3.1")
    patient = PatientFields(f"MRN{number}", "HIS", Person("Testperson", "Tina"), "19700102", "F")
    order = OrderFields(f"P{number}", f"A{number}", reason="cough")
    return build_order(envelope, patient, (replace(order, **changes),))  # type: ignore[arg-type]


class Wire:
    """A raw connection that sends what it is told and reads frames."""

    def __init__(self, port: int, seconds: float = SECONDS) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = FrameDecoder()
        self._frames: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def ask(self, payload: bytes) -> bytes:
        """Send a framed message and read its answer."""
        self.send(encode(payload))
        return self.answer()

    def answer(self) -> bytes:
        """The payload of the next frame; raises EOFError when the peer has closed, TimeoutError when it is silent."""
        while not self._frames:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self._frames += [event.payload for event in self._decoder.feed(data) if isinstance(event, Frame)]
        return self._frames.pop(0)

    def is_closed(self) -> bool:
        """Whether the peer closes without another byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


class Loop:
    """An event loop in a thread. What runs in it at the end of the block comes to its end: no connection stays open."""

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._rest(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @staticmethod
    async def _rest() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=SECONDS)


@contextmanager
def serving(server: MllpServer, tls: object = None) -> Iterator[int]:
    """The port of a server that runs in a thread on a free port of loopback."""
    with Loop() as running:
        start = server.start("127.0.0.1", 0, tls)  # type: ignore[arg-type]
        asyncio.run_coroutine_threadsafe(start, running.loop).result(SECONDS)
        try:
            yield server.port
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(2), running.loop).result(SECONDS)


@contextmanager
def listening(services: Services, limits: Limits | None = None, threads: int = 1) -> Iterator[int]:
    """The port of Inlay's listener on these services."""
    reception = Reception(services.uow, services.clock, services.new_id, Senders(), services.site)
    with ThreadPoolExecutor(threads) as pool, serving(listener(reception, pool, limits or Limits())) as port:
        yield port


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Dying:
    """A unit of work that is killed instead of committing."""

    def __init__(self, services: Services) -> None:
        self._uow = services.uow()

    def __enter__(self) -> Self:
        self._uow.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._uow.__exit__(*error)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._uow, name)

    def commit(self) -> None:
        """Everything is written, nothing is committed."""
        _die()


async def _listen(services: Services, point: str) -> None:
    opened = itertools.count(1)
    commits = itertools.count(1)
    # The transaction that is killed.
    at = 2 if point.startswith("group") else 1

    def uow() -> UnitOfWork:
        number = next(opened)
        if number < at:
            print("begun", flush=True)
        dying = point.endswith("before-commit") and number >= at
        return _Dying(services) if dying else services.uow()  # type: ignore[return-value]

    def committed() -> None:
        if next(commits) < at:
            _until_busy(server, GROUP + 1)
        elif point.endswith("after-commit"):
            _die()

    reception = Reception(uow, services.clock, services.new_id, Senders(), services.site, committed)
    with ThreadPoolExecutor(1) as pool:
        server = listener(reception, pool, Limits())
        await server.start("127.0.0.1", 0)
        print(server.port, flush=True)
        await asyncio.Event().wait()


def _until_busy(server: MllpServer, connections: int) -> None:
    """Wait until the messages of that many connections are here."""
    deadline = time.monotonic() + SECONDS
    while sum(each.busy for each in list(server._connections)) < connections:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


if __name__ == "__main__":
    _settings = Settings(home=Path(sys.argv[1]))
    # What it prints is for its parent alone.
    configure_logs("listen", level="error", log_format=_settings.log_format)
    asyncio.run(_listen(bootstrap(_settings), sys.argv[2]))
