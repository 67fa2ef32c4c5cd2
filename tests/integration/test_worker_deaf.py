"""A worker that consumes nothing is noticed: by its own readiness while it lives, else by `inlay check`."""

import json
import signal
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from inlay_cli.commands import check
from inlay_core.domain.job import JobState
from inlay_testkit.installation import Installation
from inlay_testkit.peers import free_port
from inlay_testkit.worker import PATIENCE_SECONDS, wait_until, worker_process

# In seconds: a round of wake-ups here.
ROUND = 0.3


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Installation]:
    """An installation whose rounds of wake-ups are short."""
    installed = Installation(tmp_path, forgotten_seconds=ROUND)
    yield installed
    installed.services.close()


def ready(port: int, timeout: float = PATIENCE_SECONDS) -> str:
    """What /readyz says; raises TimeoutError where nothing is said in time."""
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().read().decode().strip()
    finally:
        connection.close()


def checked(site: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status of `inlay check --only worker`, and what it found."""
    monkeypatch.setenv("INLAY_HOME", str(site.settings.home))
    monkeypatch.setenv("INLAY_FORGOTTEN_SECONDS", str(ROUND))
    status = check.main(["--only", "worker", "--json"])
    return status, json.loads(capsys.readouterr().out)["worker"]["found"]


def test_a_stopped_worker_is_noticed(
    site: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGSTOP: it answers no probe, and the check says that jobs wait. SIGCONT: the job is done and all is well."""
    port = free_port()
    more = {"INLAY_METRICS_PORT": str(port), "INLAY_FORGOTTEN_SECONDS": str(ROUND)}
    assert checked(site, monkeypatch, capsys) == (0, "none is there, and no job waits for one")
    with worker_process(site.settings, more=more) as worker:
        wait_until(lambda: ready(port) == "ok")
        wait_until(lambda: checked(site, monkeypatch, capsys) == (0, "1 there, 0 silent"))
        worker.process.send_signal(signal.SIGSTOP)
        report = site.order("1")
        with pytest.raises(TimeoutError):
            ready(port, 2.0)
        time.sleep(4 * ROUND)
        status, found = checked(site, monkeypatch, capsys)
        assert (status, found) == (1, "1 jobs wait, and no worker takes them (1 there, 0 silent)")
        worker.process.send_signal(signal.SIGCONT)
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
        assert ready(port) == "ok"
        assert checked(site, monkeypatch, capsys) == (0, "1 there, 0 silent")
        assert worker.end() == 0


def test_a_worker_that_hears_no_wake_up_is_noticed(
    site: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It lives, answers, and looks at nothing: its readiness says so, and so does the check, until it is woken."""
    port = free_port()
    more = {"INLAY_METRICS_PORT": str(port), "INLAY_FORGOTTEN_SECONDS": str(ROUND)}
    with worker_process(site.settings, more=more) as worker:
        wait_until(lambda: ready(port) == "ok")
        # It looks once when it starts; that look is over.
        wait_until(lambda: "] succeeded in" in worker.log)
        report = site.order("1", wake=False)
        wait_until(lambda: "hears no wake-up" in ready(port))
        wait_until(lambda: checked(site, monkeypatch, capsys)[0] == 1)
        site.wakeup.wake([site.job(report).id])
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
        wait_until(lambda: ready(port) == "ok")
