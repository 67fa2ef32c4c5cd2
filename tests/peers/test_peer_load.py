"""A short form of `make load`: a day of a few studies on real PostgreSQL, Redis, gunicorn, listener, relay, worker."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inlay_testkit.day.holding import children
from inlay_testkit.day.shown import draw, table
from inlay_testkit.day.worker import Pace
from inlay_testkit.load import Options, run

pytestmark = [pytest.mark.peers, pytest.mark.slow]

STAGES = {
    "frame to ACK",
    "order and images to queued",
    "queue wait, stat draft",
    "queue wait, urgent draft",
    "queue wait, routine draft",
    "queue wait, infill",
    "drafting",
    "infilling",
    "version to ORU received",
    "worklist read",
    "report read",
    "edit",
    "sign",
    "infill to first canvas",
    "infill to last event",
    "order sent late",
}


def test_a_short_day_loses_nothing_and_measures_each_stage(tmp_path: Path) -> None:
    """Every order is drafted and read, every stage has its figures, the engine is named, the picture is drawn."""
    said: list[str] = []
    options = Options(
        studies=24, compress=17_280.0, seed=1, pace=Pace(0.04, 0.02, steps=4), workers=1, readers=3, durable=False
    )
    report = run(options, tmp_path, said.append)
    assert report["holds"], report
    assert report["outcome"]["acknowledged"] == 24
    assert set(report["stages"]) == STAGES
    assert report["stages"]["frame to ACK"]["count"] == 24
    assert report["stages"]["infill to last event"]["count"] == report["day"]["infills"]
    assert report["stages"]["drafting"]["p50"] >= 0.04
    assert "PACED" in report["engine"]["says"]
    assert any("orders 24/24" in line for line in said)
    holding = report["holding"]["processes"]
    assert {"serve", "listen", "relay", "work-1", "clients"} <= set(holding)
    assert holding["serve"]["processes"]["end"] >= 2
    assert all(row["heap_mb"]["end"] > 1.0 <= row["files"]["end"] for row in holding.values())
    assert report["holding"]["connections"]["end"] >= 1
    draw(report, tmp_path / "day.svg")
    picture = (tmp_path / "day.svg").read_text()
    assert "frame to ACK" in picture
    assert "memory (PSS), MB" in picture
    assert "| relay |" in table({"command": "", **report})
    assert "PACED" in table({"command": "", **report})


def test_a_run_that_is_told_to_end_takes_its_servers_with_it() -> None:
    """SIGTERM, as to a soak in the background: PostgreSQL, Redis and Inlay's processes are gone when it has ended."""
    command = [sys.executable, "-m", "inlay_testkit.load", "--studies", "9", "--compress", "96", "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        assert any("orders 0/9" in line for line in run.stderr)
        started = children(run.pid)
        run.send_signal(signal.SIGTERM)
        run.stderr.read()
        assert run.wait(60) == 128 + signal.SIGTERM
    assert len(started) >= 6
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
