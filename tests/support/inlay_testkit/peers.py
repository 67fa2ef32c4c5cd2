"""Real servers for tests, started as processes on free loopback ports with folders of their own.

A server that is not installed is an error, never a skip: a test of a peer must not pass because the peer was absent.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

# Servers answer within a second or two; a loaded machine may need more, and a test that waits longer has a fault.
START_SECONDS = 60.0
STOP_SECONDS = 15.0
LOOPBACK = "127.0.0.1"


class PeerMissing(RuntimeError):
    """A server program is not on this machine; the message says how to get it."""


def free_port() -> int:
    """A loopback TCP port that was free a moment ago, and that this process was not given before.

    It is none of those that the kernel gives away by itself: between now and the start of its server, no connection of
    anybody and no server on port 0 takes it.
    """
    while True:
        port = _PORTS.choice(_UNASSIGNED)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        _UNASSIGNED.remove(port)
        return port


def _unassigned() -> list[int]:
    """Ports above those of known services and outside the range of which the kernel chooses."""
    bounds = Path("/proc/sys/net/ipv4/ip_local_port_range")
    # Where the kernel does not say, RFC 6335's range of dynamic ports.
    low, high = map(int, bounds.read_text().split()) if bounds.exists() else (49_152, 65_535)
    outside = [port for port in range(20_000, 65_536) if not low <= port <= high]
    return outside or list(range(20_000, 65_536))


# Not seeded: two runs on one machine are to choose different ones.
_PORTS = random.SystemRandom()
_UNASSIGNED = _unassigned()


def find_program(name: str) -> Path:
    """The program on PATH or in Debian's folder of PostgreSQL versions; raises PeerMissing."""
    found = shutil.which(name)
    if found:
        return Path(found)
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    if versions:
        return versions[0]
    raise PeerMissing(f"{name} is not installed; `make test-peers` installs it or says what to install")


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis without persistence; yields its URL."""
    with redis_that_restarts() as server:
        yield server.url


@contextmanager
def redis_that_restarts(address: str = LOOPBACK) -> Iterator[Server]:
    """A Redis without persistence that may be ended and started again; it is empty then.

    It listens on loopback, and on an `address` of a private network where one is given; the URL names that one.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="inlay-redis-") as folder:
        command = [str(find_program("redis-server")), "--port", str(port), "--bind", *sorted({LOOPBACK, address})]
        command += ["--save", "", "--appendonly", "no", "--dir", folder, "--protected-mode", "no"]
        url = f"redis://{address}:{port}/0"
        with Server(command, Path(folder) / "log", lambda: _redis_answers(port), url=url) as server:
            yield server


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[str]:
    """An empty PostgreSQL cluster that runs; yields a SQLAlchemy URL (psycopg 3) of a superuser's database.

    `durable` ones wait for the disk and vacuum by themselves, as a hospital's does; tests of other things need not.
    """
    with postgres_cluster(durable=durable) as cluster, cluster.running():
        yield cluster.url


@dataclass(frozen=True)
class PostgresCluster:
    """The files of a PostgreSQL, which can be started again on the same port with what was committed."""

    folder: Path
    port: int
    user: str | None
    durable: bool
    address: str = LOOPBACK

    @property
    def url(self) -> str:
        """SQLAlchemy URL (psycopg 3) of a superuser's database."""
        return f"postgresql+psycopg://inlay@{self.address}:{self.port}/postgres"

    def server(self) -> Server:
        """The server on these files; whoever is connected when it ends is cut off."""
        settings = [
            f"fsync={'on' if self.durable else 'off'}",
            f"listen_addresses={','.join(sorted({LOOPBACK, self.address}))}",
            f"unix_socket_directories={self.folder}",
            f"port={self.port}",
            # It comes once in a minute, and gives statistics to whichever test is on: a test that looks at what is read
            # is to find the same in every run. Whoever wants them says ANALYZE.
            f"autovacuum={'on' if self.durable else 'off'}",
        ]
        command = [str(find_program("postgres")), "-D", str(self.folder / "data")]
        command += [part for item in settings for part in ("-c", item)]
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for connections to end.
        return Server(
            command,
            self.folder / "log",
            lambda: _postgres_answers(self.port),
            user=self.user,
            url=self.url,
            ending=signal.SIGINT,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """The server, up to the end of the block."""
        with self.server():
            yield


@contextmanager
def postgres_cluster(
    *, durable: bool = False, below: Path | None = None, address: str = LOOPBACK
) -> Iterator[PostgresCluster]:
    """The files of an empty cluster, in a folder `below` that one; nothing runs yet.

    It listens on loopback, and on an `address` of a private network where one is given.
    """
    user = _unprivileged_user()
    folder = Path(tempfile.mkdtemp(prefix="inlay-postgres-", dir=below))
    try:
        _give_to(folder, user)
        flags = ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=inlay", "--no-sync"]
        subprocess.run(
            [str(find_program("initdb")), *flags, "-D", str(folder / "data")],
            check=True,
            user=user,
            cwd=folder,
            capture_output=True,
            env=_plain_env(),
        )
        if address != LOOPBACK:
            with (folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {address}/24 trust\n")
        yield PostgresCluster(folder, free_port(), user, durable, address)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_database(server_url: str, name: str) -> Iterator[str]:
    """A fresh database on a running server; yields its URL and drops it afterwards."""
    import psycopg
    from psycopg import sql

    plain = server_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield server_url.rsplit("/", 1)[0] + "/" + name
    finally:
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: the account to use instead, None where we are not root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _give_to(folder: Path, user: str | None) -> None:
    if user is not None:
        shutil.chown(folder, user)


def _plain_env() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}


class Server:
    """A server program in a `with` block: it answers from the start on, may be ended within, and is gone afterwards."""

    def __init__(
        self,
        command: list[str],
        log: Path,
        answers: Callable[[], bool],
        user: str | None = None,
        url: str = "",
        ending: signal.Signals = signal.SIGTERM,
        env: Mapping[str, str] | None = None,
        patience: float = START_SECONDS,
    ) -> None:
        self.url = url
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._log = log
        self._answers = answers
        self._user = user
        self._ending = ending
        self._env = env
        self._patience = patience

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers; raises RuntimeError where it does not."""
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self._user,
                cwd=self._log.parent,
                env=_plain_env() if self._env is None else dict(self._env),
            )
        try:
            _wait(self.process, self._answers, self._log, self._patience)
        except RuntimeError:
            self.stop()
            raise

    def stop(self, number: signal.Signals | None = None) -> None:
        """End it by that signal, by default its orderly one, and by SIGKILL when it does not heed it."""
        if self.process is None:
            return
        self.process.send_signal(number or self._ending)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


@contextmanager
def running(command: list[str], log: Path, answers: Callable[[], bool], user: str | None = None) -> Iterator[None]:
    """A server process from when it answers to the end of the block."""
    with Server(command, log, answers, user):
        yield


def _wait(process: subprocess.Popen[bytes], answers: Callable[[], bool], log: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{process.args!r} did not come up:\n{tail}")
        time.sleep(0.05)


def _redis_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _postgres_answers(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(f"postgresql://inlay@127.0.0.1:{port}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
