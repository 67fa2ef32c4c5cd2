"""How the processes start: quickly where no model is needed, and in the house's order under `inlay up`."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inlay_testkit.day.holding import cpu_seconds, libraries
from inlay_testkit.drills.processes import answers
from inlay_testkit.peers import free_port

# Promised: ready in under two seconds on an ordinary machine. A start waits for nobody, so that it takes as long as it
# computes; the time on the clock would be that of whatever else the machine does.
PROMISED_SECONDS = 2.0
TRIES = 3
# Bounds hangs.
PATIENCE_SECONDS = 60


def environment(home: Path, **settings: object) -> dict[str, str]:
    """A process environment with settings of its own."""
    ours = {"INLAY_HOME": str(home)} | {f"INLAY_{name.upper()}": str(value) for name, value in settings.items()}
    return {name: value for name, value in os.environ.items() if not name.startswith("INLAY_")} | ours


def listens(port: int) -> bool:
    """Whether connections are accepted."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def taken_until_ready(command: str, port: int, env: dict[str, str]) -> tuple[float, set[str]]:
    """CPU seconds of `inlay COMMAND` until it does its work, and the libraries it has loaded; end it again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    process = subprocess.Popen([sys.executable, "-m", "inlay_cli", command], env=env, stderr=subprocess.DEVNULL)
    try:
        while time.monotonic() < deadline:
            # Gunicorn listens before it has loaded the application.
            if answers(port, "/livez") if command == "serve" else listens(port):
                return cpu_seconds(process.pid), {Path(path).name for path in libraries(process.pid)}
            time.sleep(0.02)
        raise AssertionError(f"inlay {command} did not get ready")
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("command", "setting"), [("serve", "http_port"), ("listen", "mllp_port"), ("listen", "dicom_port")]
)
def test_light_processes_compute_for_less_than_two_seconds(command: str, setting: str, tmp_path: Path) -> None:
    """Until `inlay serve` and `inlay listen` are ready they compute for less than two seconds, and load no torch."""
    subprocess.run(
        [sys.executable, "-m", "inlay_cli", "db", "upgrade"], env=environment(tmp_path), check=True, capture_output=True
    )
    times = []
    for _ in range(TRIES):
        port = free_port()
        ports = {name: free_port() for name in ("http_port", "mllp_port", "dicom_port")} | {setting: port}
        seconds, loaded = taken_until_ready(command, port, environment(tmp_path, **ports))
        assert [name for name in loaded if "python" in name], "what is loaded can be read"
        assert [name for name in loaded if "torch" in name] == []
        times.append(seconds)
        if times[-1] < PROMISED_SECONDS:
            return
    raise AssertionError(f"the best of {TRIES} starts took {min(times):.2f} s of CPU")


def test_up_starts_restarts_and_ends(tmp_path: Path) -> None:
    """`inlay up` brings its processes up, replaces one that is killed, refuses a second one, and ends with SIGTERM."""
    port = free_port()
    env = environment(tmp_path, mllp_port=port, http_port=free_port(), dicom_port=free_port())
    command = [sys.executable, "-m", "inlay_cli", "up", "--without", "work", "--without", "serve"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        _await_line(tmp_path / "log", "listener.ready", 2)
        second = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        os.kill(_child_of(process.pid, "listen"), signal.SIGKILL)
        _await_line(tmp_path / "log", "listener.ready", 4)
    finally:
        process.terminate()
        status = process.wait(PATIENCE_SECONDS)
    printed = (tmp_path / "log").read_text()
    assert status == 0
    assert second.returncode == 1
    assert f"in use by another `inlay up` (process {process.pid})" in second.stderr
    assert "listen ended (killed by SIGKILL); starting it again in 0.5 s" in printed
    assert printed.rstrip().endswith("inlay: stopped")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def _await_line(log: Path, text: str, times: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while log.read_text().count(text) < times:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def _child_of(parent: int, name: str) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(pid) for pid in children if name in Path(f"/proc/{pid}/cmdline").read_text().split("\0"))
