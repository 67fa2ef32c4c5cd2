import json
from dataclasses import replace
from pathlib import Path

import pytest

from inlay_cli.commands.bench import not_accelerated
from inlay_cli.main import main
from inlay_cli.round_trip.rounds import logged
from inlay_cli.round_trip.stages import Seen, draft_stages, infill_stages, percentile, summary, table

JOB = Seen(claimed=10.3, started=10.4, stored=11.0, published=10.6, first_canvas=10.65, last_event=11.05, engine=0.5)


def test_a_draft_is_measured_from_its_frame() -> None:
    """Stages follow each other from the frame to the result that the RIS gets; the engine's time stands beside."""
    stages = draft_stages(10.0, 10.1, JOB, 11.2)
    assert {stage: round(seconds or 0, 3) for stage, seconds in stages.items()} == {
        "frame to acknowledgement": 0.1,
        "acknowledgement to claim": 0.2,
        "claim to images read": 0.1,
        "images read to first canvas (prefix, first step)": 0.2,
        "first canvas published to seen": 0.05,
        "first canvas published to stored": 0.4,
        "stored to last event": 0.05,
        "in the worker, claim to stored": 0.7,
        "frame to first canvas": 0.65,
        "frame to draft stored": 1.0,
        "frame to last event": 1.05,
        "draft stored to ORU": 0.2,
        "frame to ORU": 1.2,
        "engine alone": 0.5,
        "service beside the engine": 0.55,
    }


def test_what_was_not_seen_is_no_stage() -> None:
    """A canvas that was overtaken leaves its stages out, and the others stay; a summary counts rounds per stage."""
    unseen = replace(JOB, published=None, first_canvas=None, claimed=None)
    stages = infill_stages(10.0, 10.1, unseen)
    assert stages["POST to first canvas"] is None
    assert stages["202 to claim"] is None
    assert stages["images read to first canvas (prefix, first step)"] is None
    found = summary([stages, infill_stages(10.0, 10.1, JOB)])
    assert found["POST to first canvas"]["rounds"] == 1
    assert found["POST to last event"]["rounds"] == 2
    assert "POST to first canvas" not in summary([stages])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 10), (0.95, 19), (1.0, 20), (0.01, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    """The smallest one that so much of all does not exceed."""
    assert percentile([float(value) for value in range(1, 21)], share) == expected


def test_passes_that_were_not_accelerated_are_counted_with_what_failed_where() -> None:
    """Lines about anything else are not; where nothing was raised the text stands alone."""
    failed = {
        "event": "The accelerated %s failed (%s); %s.",
        "error_type": "torch.AcceleratorError",
        "error_at": "graphs.py:44 __call__",
    }
    left = "Left to the library's own passes: %s."
    assert not_accelerated([failed, {"event": "job.ended"}, {"event": left}, failed, {}]) == {
        "The accelerated %s failed (%s); %s. [torch.AcceleratorError at graphs.py:44 __call__]": 2,
        left: 1,
    }


def test_the_table_tells_what_went_wrong() -> None:
    """Failures, lost locks and passes that were not accelerated stand below the figures."""
    report = {
        "shape": "26b",
        "machine": {"device": "a GPU", "cpus": 16},
        "date": "2026-11-28",
        "stages": {"order to draft": {"frame to ORU": {"p50": 0.1, "p95": 0.25, "rounds": 3}}},
        "locks": {"asked": 4, "kept": 3},
        "failed": ["round 1: it did not come"],
        "passes_left": {"This model is not accelerated: %s.": 2},
    }
    said = table(report)
    assert "| frame to ORU | 100 | 250 | 3 |" in said
    assert "3 of 4 kept" in said
    assert "Failed: round 1: it did not come." in said
    assert "Not accelerated (2 times): This model is not accelerated" in said


def test_the_log_is_read_by_event(tmp_path: Path) -> None:
    """Lines of other events, lines that are no JSON and words that only mention the event do not count."""
    log = tmp_path / "log"
    lines = [{"event": "job.claimed", "job_id": "1"}, {"event": "job.ended", "reason": "job.claimed"}]
    log.write_text("\n".join([*map(json.dumps, lines), "inlay: stopped", '{"event": "job.claimed"{']), encoding="utf-8")
    assert logged(log, "job.claimed") == [lines[0]]
    assert logged(log) == lines


def test_a_bench_needs_its_shape(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a shape nothing is started."""
    with pytest.raises(SystemExit):
        main(["bench", "round-trip"])
    assert "--shape" in capsys.readouterr().err
