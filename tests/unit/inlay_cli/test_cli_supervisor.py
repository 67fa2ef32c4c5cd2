"""Keeping processes running, and ending them together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from inlay_cli import supervisor
from inlay_cli.parsing import CommandError
from inlay_cli.supervisor import Program, Supervisor, delay_after, only_one, require_free, stop_on_signals

# Bounds hangs: shorter than the sleeps of the children, whose end is not to be waited for.
SECONDS = 50.0


def python(script: str) -> tuple[str, ...]:
    """A command that runs a few lines of Python."""
    return (sys.executable, "-c", script)


def wait_for(path: Path, lines: int, seconds: float = SECONDS) -> list[str]:
    """The first lines of a file, as soon as they are there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = path.read_text().splitlines() if path.exists() else []
        if len(found) >= lines:
            return found[:lines]
        time.sleep(0.02)
    raise AssertionError(f"{path.name} did not get {lines} lines")


def alive(pid: int) -> bool:
    """Whether a process exists that is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def ends(pid: int, seconds: float = SECONDS) -> bool:
    """Whether a process is gone, now or later: a signal is carried out when the kernel gets to it."""
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_delay_doubles_and_is_bounded() -> None:
    """The pause before a restart starts at half a second, doubles, and never exceeds thirty seconds."""
    assert [delay_after(deaths) for deaths in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_killed_child_comes_back_and_all_end_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that dies by SIGKILL is started again; after stop no child and no grandchild is left."""
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.05)
    pids = tmp_path / "pids"
    script = (
        "import os, subprocess, sys, time\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}} {{grandchild.pid}}\\n')\n"
        "time.sleep(60)\n"
    )
    said: list[str] = []
    stop = threading.Event()
    thread = threading.Thread(target=Supervisor([Program("sleeper", python(script))], said.append).run, args=(stop,))
    thread.start()
    try:
        first, orphan = map(int, wait_for(pids, 1)[0].split())
        os.kill(first, signal.SIGKILL)
        second, grandchild = map(int, wait_for(pids, 2)[1].split())
    finally:
        stop.set()
        thread.join(SECONDS)
    assert second != first
    assert said == ["sleeper ended (killed by SIGKILL); starting it again in 0.05 s"]
    assert all(ends(pid) for pid in (first, orphan, second, grandchild))


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending does not hang on a child that ignores SIGTERM."""
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.3)
    ready = tmp_path / "ready"
    script = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(ready)!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        "time.sleep(60)\n"
    )
    stop = threading.Event()
    thread = threading.Thread(target=Supervisor([Program("deaf", python(script))], lambda _: None).run, args=(stop,))
    thread.start()
    pid = int(wait_for(ready, 1)[0])
    stop.set()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert ends(pid)


def test_children_get_sigterm_first(tmp_path: Path) -> None:
    """A child has the chance to finish: it sees SIGTERM before anything worse."""
    ready, farewell = tmp_path / "ready", tmp_path / "farewell"
    script = (
        "import pathlib, signal, sys, time\n"
        "def finish(*_):\n"
        f"    pathlib.Path({str(farewell)!r}).write_text('done')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, finish)\n"
        f"pathlib.Path({str(ready)!r}).write_text('1\\n')\n"
        "time.sleep(60)\n"
    )
    stop = threading.Event()
    thread = threading.Thread(target=Supervisor([Program("polite", python(script))], lambda _: None).run, args=(stop,))
    thread.start()
    wait_for(ready, 1)
    stop.set()
    thread.join(SECONDS)
    assert farewell.read_text() == "done"


def test_one_home_has_one_supervisor(tmp_path: Path) -> None:
    """A second `inlay up` in the same data folder is refused, with the first one's process number; later it may."""
    script = (
        "from inlay_cli.supervisor import only_one; from pathlib import Path\n"
        f"with only_one(Path({str(tmp_path)!r})): pass"
    )
    with only_one(tmp_path):
        second = subprocess.run(python(script), capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"in use by another `inlay up` (process {os.getpid()})" in second.stderr
    assert subprocess.run(python(script), check=False).returncode == 0


def test_a_taken_port_is_named_with_its_setting() -> None:
    """A port in use is reported before anything starts, with the variable that changes it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"127\.0\.0\.1:{port} .*set INLAY_HTTP_PORT"):
            require_free("127.0.0.1", port, "INLAY_HTTP_PORT")
    require_free("127.0.0.1", port, "INLAY_HTTP_PORT")


def test_signals_set_the_event_and_are_given_back() -> None:
    """Within the block SIGTERM asks for an orderly end; afterwards it does what it did before."""
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """SIGKILL of the supervisor ends the supervised process too."""
    pids = tmp_path / "pids"
    child = f"import os; open({str(pids)!r}, 'w').write(f'{{os.getpid()}}\\n'); import time; time.sleep(60)"
    follow = f"import os; from inlay_cli.parent import die_with_parent; die_with_parent(os.getppid()); {child}"
    parent = subprocess.Popen(python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {follow!r}])"))
    pid = int(wait_for(pids, 1)[0])
    parent.kill()
    parent.wait()
    assert ends(pid)
