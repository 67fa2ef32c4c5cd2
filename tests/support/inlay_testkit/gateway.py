"""Gateway processes for tests: started with settings of their own, their log read line by line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inlay_testkit.mllp import SECONDS

PROGRAM = """
import os
from inlay_core.settings import Settings
from inlay_gateway.{name} import run
run(Settings.from_env(os.environ))
"""


class Process:
    """A gateway process whose log lines are read as they come."""

    def __init__(self, name: str, home: Path, **settings: str) -> None:
        environment = {**os.environ, "INLAY_HOME": str(home), **settings}
        self.begun = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(name=name)], env=environment, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []

    def line(self, event: str) -> dict[str, object]:
        """The next log line of that event."""
        assert self._process.stderr is not None
        for text in self._process.stderr:
            self.log.append(text)
            found: dict[str, object] = json.loads(text)
            if found["event"] == event:
                return found
        raise AssertionError(self.log)

    def end(self) -> int:
        """SIGTERM; the exit status."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.stderr is not None
        self.log += self._process.stderr
        return self._process.wait(SECONDS)

    def discard(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait(SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def process(name: str, home: Path, **settings: str) -> Iterator[Process]:
    """A gateway process that is gone afterwards."""
    running = Process(name, home, **settings)
    try:
        yield running
    finally:
        running.discard()
