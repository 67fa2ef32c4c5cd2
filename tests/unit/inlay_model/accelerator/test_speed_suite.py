import json
from pathlib import Path

import pytest

from inlay_model.accelerator.record import Record, ratios
from inlay_model.accelerator.speed26b import PARTS, main
from inlay_model.evaluation.bench import main as bench


def test_every_figure_is_on_disk_as_soon_as_it_is_measured(tmp_path: Path) -> None:
    """A later run goes on from the file; what failed is kept as an error until it succeeds."""
    file = tmp_path / "record.json"
    record = Record(file, {"suite": "speed26b"})
    record.measure("ours", "draft16_s", [0.3, 0.2, 0.4])
    assert json.loads(file.read_text())["ours"]["draft16_s"] == 0.3
    assert json.loads(file.read_text())["spread"]["ours.draft16_s"] == {"low": 0.2, "high": 0.4, "rounds": 3}

    def fails() -> None:
        raise RuntimeError("out of memory")

    again = Record(file, {})
    assert not again.attempt("ours", "step_ms", fails)
    assert json.loads(file.read_text())["errors"] == {"ours.step_ms": "RuntimeError: out of memory"}
    again.put("ours", "step_ms", 20.0)
    assert json.loads(file.read_text())["errors"] == {}


def test_ratios_are_those_of_measured_pairs_only() -> None:
    """Slower side over faster side; a side that is missing or failed gives no ratio."""
    figures = {"ours": {"draft16_s": 0.25, "step_ms": 18.0}, "transformers_compiled": {"draft16_s": 0.5}}
    assert ratios({**figures, "floor_step_ms": 12.0}) == {
        "draft16_over_transformers_compiled": 2.0,
        "step_over_floor": 1.5,
    }


def test_parts_measured_in_one_place_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Later figures replace earlier ones and their errors; ratios are made anew; another kind of machine is refused.

    Of each part the day stays that on which it was measured.
    """
    where = {
        "suite": "speed26b",
        "machine": {"device": "H200"},
        "versions": {"torch": "2.11"},
        "shape": {"canvas": 256},
    }
    ours = {"ours": {"draft16_s": 0.3}, "errors": {"sibling_compiled.tokens256_s": "?", "ours.step_ms": "?"}}
    ours["dates"] = {"ours": "2026-11-28", "floor": "2026-11-28"}
    theirs = {
        "sibling_compiled": {"tokens256_s": 2.4},
        "ours": {"step_ms": 17.0},
        "floor_step_ms": 13.0,
        "dates": {"floor": "2026-11-29"},
    }
    files = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    elsewhere = {**where, "machine": {"device": "H100"}, "date": "2026-11-30"}
    said = ({**where, **ours, "date": "2026-11-28"}, {**where, **theirs, "date": "2026-11-29"}, elsewhere)
    for file, figures in zip(files, said, strict=True):
        file.write_text(json.dumps(figures))
    out = tmp_path / "whole.json"
    assert main(["--merge", *map(str, files[:2]), "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert (found["ours"], found["date"], found["errors"]) == ({"draft16_s": 0.3, "step_ms": 17.0}, "2026-11-29", {})
    assert found["dates"] == {"ours": "2026-11-28", "floor": "2026-11-29"}
    assert found["ratios"] == {"draft16_over_sibling_compiled": 8.0, "step_over_floor": 1.308}
    with pytest.raises(SystemExit):
        main(["--merge", *map(str, files), "--out", str(out)])
    assert "differ in machine" in capsys.readouterr().err


def test_the_suite_rehearses_on_a_small_shape(tmp_path: Path) -> None:
    """Through `bench --suite`: parity, our side and the infill are measured on any device, without an error."""
    file = tmp_path / "record.json"
    parts = "floor,parity,tiles,tiles-fp8,shapes,anatomy,anatomy8,ours,infill,fp8,4bit"
    assert bench(["--suite", "speed26b", "--toy", "--rounds", "1", "--parts", parts, "--out", str(file)]) == 0
    found = json.loads(file.read_text())
    assert "errors" not in found or not found["errors"]
    assert found["parity"]["same_seed_same_text"]
    assert found["parity"]["library_bf16"]["distance"] == 0.0
    assert 0.0 < found["parity"]["ours_float32"]["distance"] < 1e-5
    for name in ("step_ms", "draft16_s", "draft48_s", "infill8_s", "infill8_search_s", "batch8_step_ms"):
        assert found["ours"][name] > 0
    assert set(found["anatomy8_ms"]) == set(found["anatomy_ms"]) >= {"decoder", "head", "draw", "layer_experts"}
    assert found["passes"]["bf16"]["fast"]
    assert found["shape"]["toy"]
    assert set(found["dates"]) == set(parts.split(","))


def test_the_real_shape_needs_a_gpu_and_parts_have_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown parts are refused; the help names all of them."""
    with pytest.raises(SystemExit):
        main(["--parts", "nothing"])
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in PARTS)
