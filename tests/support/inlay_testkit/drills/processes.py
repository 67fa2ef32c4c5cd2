"""Processes that die: Inlay's own, started again as a supervisor would."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from inlay_testkit.day.holding import children
from inlay_testkit.peers import STOP_SECONDS

# What a process of Inlay logs when it is ready.
READY = {"listen": "listener.ready", "relay": "relay.ready", "work": "model.loaded"}


class Victim:
    """A process of Inlay that is started again as soon as it is dead.

    Start it from the main thread: children that end with their parent end with the thread that started them.
    """

    def __init__(self, name: str, env: dict[str, str], log: Path, command: Sequence[str] = ()) -> None:
        self.name = name
        self._env = env
        self._log = log
        self._command = tuple(command) or (sys.executable, "-m", "inlay_cli", "--parent", str(os.getpid()), name)
        self.kills = 0
        self.deaths = 0
        self.ready_since: float | None = None
        self.start()

    def start(self) -> None:
        """Begin a life."""
        self.ready_since = None
        self._lives_before = self._lives_seen()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, env=self._env, stdout=log, stderr=log)

    def look(self) -> bool:
        """Whether this life has got ready."""
        if self.ready_since is None and self._lives_seen() > self._lives_before:
            self.ready_since = time.monotonic()
        return self.ready_since is not None

    def tend(self) -> None:
        """Begin another life if this one has ended by itself."""
        if self.process.poll() is not None:
            self.deaths += 1
            self.start()

    def kill(self) -> None:
        """SIGKILL, and another life."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.kills += 1
        self.start()

    def end(self) -> None:
        """The last death, an orderly one."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _lives_seen(self) -> int:
        return self._log.read_text(errors="replace").count(READY[self.name]) if self._log.exists() else 0


class Served(Victim):
    """The api, which says by HTTP that it is ready."""

    def __init__(self, port: int, env: dict[str, str], log: Path) -> None:
        self._port = port
        super().__init__("serve", env, log)

    def look(self) -> bool:
        """Whether this life answers at its port."""
        if self.ready_since is None and answers(self._port):
            self.ready_since = time.monotonic()
        return self.ready_since is not None

    def kill(self) -> None:
        """SIGKILL of all its processes at once, as where a container ends, and another life."""
        self.process.send_signal(signal.SIGSTOP)
        for pid in children(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        super().kill()

    def _lives_seen(self) -> int:
        return 0


def answers(port: int, path: str = "/readyz") -> bool:
    """Whether an api on this machine answers there with 200: that it is ready, or with `/livez` that it runs."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
