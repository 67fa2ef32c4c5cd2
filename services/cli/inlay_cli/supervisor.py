"""Runs the processes of `inlay up`: starts them, restarts the ones that die, and ends them together.

Every child leads a process group of its own, so that a worker's or web server's own children end with it.
"""

import fcntl
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from inlay_cli.parsing import CommandError

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# A process that ran this long had started well: its next death is counted as the first again.
STEADY_SECONDS = 20.0
# Above a generation step, an HTTP request and a transaction; below the patience of someone who pressed Ctrl-C.
GRACE_SECONDS = 10.0
POLL_SECONDS = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Program:
    """One child: what people call it and how it is started."""

    name: str
    command: tuple[str, ...]


@dataclass
class Child:
    """A program and the life of its current process."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    start_at: float = field(default=0.0)


def delay_after(deaths: int) -> float:
    """Seconds to wait before a start after so many deaths in a row: doubling, bounded."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (deaths - 1)) if deaths else 0.0


class Supervisor:
    """Keeps programs running until it is told to stop; `run` blocks and leaves no process behind."""

    def __init__(self, programs: Sequence[Program], say: Say, env: Mapping[str, str] | None = None) -> None:
        self._children = [Child(program) for program in programs]
        self._say = say
        self._env = None if env is None else dict(env)

    def run(self, stop: threading.Event) -> None:
        """Start everything, restart what dies, end everything once `stop` is set."""
        try:
            while not stop.is_set():
                for child in self._children:
                    self._tend(child, time.monotonic())
                stop.wait(POLL_SECONDS)
        finally:
            self._end_all()

    def _tend(self, child: Child, now: float) -> None:
        if child.process is None:
            if now >= child.start_at:
                self._start(child, now)
            return
        status = child.process.poll()
        if status is None:
            return
        _kill_group(child.process.pid, signal.SIGKILL)
        child.deaths = 1 if now - child.started > STEADY_SECONDS else child.deaths + 1
        child.start_at = now + delay_after(child.deaths)
        child.process = None
        again = f"starting it again in {child.start_at - now:g} s"
        self._say(f"{child.program.name} ended ({_describe(status)}); {again}")

    def _start(self, child: Child, now: float) -> None:
        child.process = subprocess.Popen(
            child.program.command, env=self._env, stdin=subprocess.DEVNULL, start_new_session=True
        )
        child.started = now

    def _end_all(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            _kill_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # Also where the leader has ended well: its own children may not have.
            _kill_group(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, instead of ending this process on the spot."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the data folder for this process; raises CommandError where another one holds it."""
    # Orders, reports and the signing key will be in it: nobody else's business.
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise CommandError(
                f"{home} is in use by another `inlay up` (process {owner}); stop it, or set INLAY_HOME to another"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def require_free(host: str, port: int, variable: str) -> None:
    """Raise CommandError, naming the setting to change, where the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: a port whose last connections are still winding down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "unknown host"
            raise CommandError(f"cannot listen on {host}:{port} ({reason}); set {variable} to another one") from error


def _kill_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # Already gone. (macOS answers EPERM for a group of zombies.)
        return


def _describe(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
