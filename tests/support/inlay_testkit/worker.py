"""A worker process with a fake model, to be watched, ended and killed: `python -m inlay_testkit.worker`.

Settings come from the environment as for `inlay work`; FAKE_STEPS and FAKE_STEP_SECONDS say how long a job takes.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inlay_core.settings import Settings
from inlay_testkit.engine import FakeModel

# What must come comes within this, however busy the machine: it bounds hangs, and says nothing of speed.
PATIENCE_SECONDS = 60.0


@dataclass
class WorkerProcess:
    """A running worker and its log so far."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        """What it has written to stdout and stderr."""
        return self.log_file.read_text(errors="replace")

    def end(self, number: signal.Signals = signal.SIGTERM, patience: float = PATIENCE_SECONDS) -> int:
        """Send a signal and wait for the end; return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(patience)


@contextmanager
def worker_process(
    settings: Settings,
    *,
    steps: int = 2,
    step_seconds: float = 0.0,
    patience: float = PATIENCE_SECONDS,
    more: Mapping[str, str] | None = None,
) -> Iterator[WorkerProcess]:
    """A worker on the same home, database and broker as `settings`; it is killed at the end if it still runs.

    `more` is further environment.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INLAY_")} | {
        "INLAY_HOME": str(settings.home.absolute()),
        "INLAY_DATABASE_URL": settings.database,
        "INLAY_BROKER_URL": settings.broker_url,
        "INLAY_LEASE_SECONDS": str(settings.lease_seconds),
        "INLAY_FORGOTTEN_SECONDS": str(settings.forgotten_seconds),
        "INLAY_LOG_LEVEL": "debug",
        "FAKE_STEPS": str(steps),
        "FAKE_STEP_SECONDS": str(step_seconds),
        "PYTHONPATH": os.pathsep.join(sys.path),
        **(more or {}),
    }
    settings.home.mkdir(parents=True, exist_ok=True)
    log_file = settings.home / f"worker-{time.monotonic_ns()}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "inlay_testkit.worker"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    worker = WorkerProcess(process, log_file)
    try:
        wait_until(lambda: " ready." in worker.log or process.poll() is not None, patience)
        assert process.poll() is None, worker.log
        yield worker
    finally:
        process.kill()
        process.wait()


def wait_until(happened: Callable[[], bool], patience: float = PATIENCE_SECONDS) -> None:
    """Look until it has happened; fail after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError("It did not happen in time.")
        time.sleep(0.02)


def main() -> int:
    """Work with the fake model until told to end."""
    from inlay_worker.celery_app import run

    seconds = float(os.environ["FAKE_STEP_SECONDS"])
    model = FakeModel(steps=int(os.environ["FAKE_STEPS"]), before_step=lambda _: time.sleep(seconds))
    return run(Settings.from_env(os.environ), lambda _: model)


if __name__ == "__main__":
    sys.exit(main())
