"""The demonstration as a script sees it: the main job, end to end, over the real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STEPS = ["order", "ack", "images", "draft", "fhir", "lock", "infill", "sign", "oru", "audit"]

pytestmark = pytest.mark.slow


def run_demo(folder: Path, *options: str, **settings: str) -> tuple[int, list[dict[str, Any]], str]:
    """`inlay demo --once --json` in an empty folder: exit status, its lines, and what it said on stderr."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("INLAY_")} | settings
    command = [sys.executable, "-m", "inlay_cli", "demo", "--once", "--json", *options]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=400)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_main_job_is_done(tmp_path: Path) -> None:
    """Every step goes well, in order; the draft is labelled, the locks come back, the trail holds, nothing is left."""
    status, rows, said = run_demo(tmp_path)
    told = {row["step"]: row for row in rows}
    assert status == 0, (rows[-1:], said)
    assert [row["step"] for row in rows] == STEPS
    assert all(row["ok"] is True and row["seconds"] >= 0 for row in rows)
    assert told["ack"]["code"] == "AA"
    assert told["images"]["job_before"] == "waiting-images"
    assert told["draft"]["canvases"] > 0
    assert told["draft"]["text"]["findings"]
    assert told["fhir"]["status"] == "partial"
    assert "AIAST" in told["fhir"]["security"]
    assert told["infill"]["locks_kept"] == len(told["lock"]["locked"]) > 0
    assert all(text in told["infill"]["text"]["findings"] for text in told["lock"]["locked"])
    assert told["oru"]["statuses"][0] == "R"
    assert told["oru"]["statuses"][-1] == "F"
    assert told["audit"]["holds"] is True
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_told_by_its_step(tmp_path: Path) -> None:
    """Without a usable model no worker takes the job: the last line says at which step, and the status is not 0."""
    status, rows, _ = run_demo(tmp_path, "--patience", "5", INLAY_MODEL=str(tmp_path / "nothing"))
    assert status == 1
    assert rows[-1]["step"] == "images"
    assert rows[-1]["ok"] is False
    assert rows[-1]["reason"]
