"""The round trip as a script sees it, over the real processes and a small model of random weights."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PARTS = ["order to draft", "infill, length given", "infill, length searched for"]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`inlay bench round-trip` of the toy shape in an empty folder."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("INLAY_")}
    command = [
        sys.executable,
        "-m",
        "inlay_cli",
        "bench",
        "round-trip",
        "--shape",
        "toy",
        "--rounds",
        "1",
        "--warm",
        "1",
    ]
    return subprocess.run(
        [*command, *options], env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=400
    )


def test_every_stage_is_measured_and_every_lock_kept(tmp_path: Path) -> None:
    """A round is an order, its draft and two infills; the stages of each add up to what the client waited."""
    done = run(tmp_path, "--out", "figures.json", "--table", "figures.md")
    assert done.returncode == 0, (done.stdout, done.stderr)
    report = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert report["failed"] == []
    assert report["passes_left"] == {}
    assert report["locks"] == {"asked": 4, "kept": 4}
    assert report["model"]["model"] == "random-toy"
    assert list(report["stages"]) == PARTS
    draft, given, searched = (waits(report, part) for part in PARTS)
    assert 0 < draft["frame to acknowledgement"] < draft["frame to draft stored"] < draft["frame to last event"]
    assert draft["frame to draft stored"] + draft["draft stored to ORU"] == pytest.approx(
        draft["frame to ORU"], abs=1e-3
    )
    for infill in (given, searched):
        assert 0 < infill["engine alone"] < infill["in the worker, claim to stored"] < infill["POST to last event"]
        both = infill["engine alone"] + infill["service beside the engine"]
        assert both == pytest.approx(infill["POST to last event"], abs=1e-3)
    runs = report["runs"]
    assert runs[PARTS[1]]["tokens written in gaps"]["p50"] == 40
    assert runs[PARTS[0]]["canvases_seen"]["p50"] > 0
    table = (tmp_path / "figures.md").read_text(encoding="utf-8")
    assert done.stdout == table
    assert all(f"| {part} | p50 | p95 | rounds |" in table for part in PARTS)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """A folder that holds another checkpoint is refused and kept as it is."""
    other = tmp_path / "model"
    other.mkdir()
    (other / "inlay.json").write_text("{}", encoding="utf-8")
    done = run(tmp_path, "--model", str(other))
    assert done.returncode == 1
    assert "holds something else" in done.stderr
    assert [(file.name, file.read_text(encoding="utf-8")) for file in other.iterdir()] == [("inlay.json", "{}")]


def waits(report: dict[str, Any], part: str) -> dict[str, float]:
    """The one round's seconds by stage."""
    return {stage: seen["p50"] for stage, seen in report["stages"][part].items()}
