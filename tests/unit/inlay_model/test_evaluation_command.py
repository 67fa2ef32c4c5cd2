"""`inlay model eval`: options, output, and the suites from end to end on tiny models."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inlay_model import Engine
from inlay_model.__main__ import main
from inlay_model.accelerator.precision import packed_bytes
from inlay_model.evaluation import alternatives
from inlay_model.evaluation.answering import DiffusionCandidate
from inlay_model.evaluation.infill import LeftOut, fill, from_part, load_backends, phantom_case, to_part
from inlay_model.evaluation.interrupted import Arriving, finish, part_of
from inlay_model.evaluation.loaded import Placing, diffusion
from inlay_model.evaluation.speed import Timing, contestants, rounds, summary, table
from inlay_model.evaluation.workers import ProcessDied, spread
from inlay_model.loading import read_about
from inlay_model.provenance import FETCHED, digest_of_folder
from inlay_model.sibling import Sibling
from inlay_testkit.chat_server import chat_server
from inlay_testkit.looks import Looks
from inlay_testkit.tiny_diffusion import save_tiny
from inlay_testkit.tiny_sibling import save_tiny_sibling


@pytest.fixture(scope="module")
def sibling_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sibling."""
    return save_tiny_sibling(tmp_path_factory.mktemp("tiny-sibling"))


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny diffusion checkpoint whose canvas holds a phantom's report in its coarse vocabulary."""
    folder = save_tiny(tmp_path_factory.mktemp("wide"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"canvas_length": 256}))
    return str(folder)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `inlay model eval` prints; it must end well."""
    assert main(["eval", "--processes", "1", "--steps", "1", *arguments]) == 0
    return capsys.readouterr().out


def test_the_infill_suite_writes_figures_cases_table_and_plot(
    wide_folder: str, sibling_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command: JSON on the terminal, a line per case, the Markdown table and the plot as files."""
    out, drawn, written = tmp_path / "cases.jsonl", tmp_path / "plot.svg", tmp_path / "table.md"
    printed = run(
        capsys,
        *("--suite", "infill", "--model", wide_folder, "--sibling", str(sibling_folder), "--limit", "2"),
        *("--json", "--out", str(out), "--plot", str(drawn), "--table", str(written)),
    )
    figures = json.loads(printed)
    assert (figures["suite"], figures["n"], figures["seed"], figures["judge"]) == ("infill", 2, 1, "known findings")
    assert figures["diffusion"]["name"] == "tiny"
    assert figures["autoregressive"]["name"] == "tiny-sibling"
    assert {"diffusion", "autoregressive", "interaction"} <= set(figures["token_f1"])
    assert str(tmp_path) not in printed
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["phantom-1000000", "phantom-1000001"]
    assert "**interaction**" in written.read_text()
    assert drawn.read_text().startswith("<?xml")


def test_the_vqa_suite_compares_candidates_of_either_kind_and_an_endpoint(
    checkpoint_folder: Path, sibling_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each candidate is a column under the name given; an endpoint of the file is one more."""
    with chat_server(lambda _: "yes") as server:
        file = tmp_path / "endpoints.toml"
        file.write_text(f'[[candidate]]\nname = "vision"\nurl = "{server.url}"\nmodel = "v"\n')
        printed = run(
            capsys,
            *("--suite", "vqa", "--limit", "3", "--endpoints", str(file), "--cache", str(tmp_path / "kept")),
            *("--candidate", f"base={checkpoint_folder}", "--candidate", f"sibling={sibling_folder}"),
        )
        again = run(
            capsys,
            *("--suite", "vqa", "--limit", "3", "--endpoints", str(file), "--cache", str(tmp_path / "kept"), "--json"),
            *("--candidate", f"base={checkpoint_folder}"),
        )
        assert len(server.bodies) == 3
    assert printed.splitlines()[0] == "| accuracy | n | base | sibling | vision |"
    figures = json.loads(again)
    assert set(figures["sets"]["phantom"]["candidates"]) == {"base", "vision"}
    assert figures["sets"]["phantom"]["judges"] == "rules"


def test_the_infill_suite_may_be_judged_by_an_endpoint(
    wide_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verdicts are then the judge's, and its name and steadiness are part of the figures."""
    with chat_server(lambda _: '{"facts": [true]}') as server:
        file = tmp_path / "endpoints.toml"
        file.write_text(f'[[judge]]\nname = "kind"\nurl = "{server.url}"\nmodel = "m"\n')
        printed = run(
            capsys,
            *("--suite", "infill", "--model", wide_folder, "--limit", "2", "--json"),
            *("--endpoints", str(file), "--cache", str(tmp_path / "kept")),
        )
    figures = json.loads(printed)
    assert figures["judge"] == ["kind"]
    assert figures["judges"]["kind"]["same_in_both_orders"] == 1.0
    assert 0 <= figures["judged"]["diffusion"]["both"] <= 1


def test_cases_too_long_for_a_canvas_are_counted_and_too_few_left_are_no_comparison(
    checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is left out in silence, and nothing is compared on fewer than two cases."""
    arguments = ["--suite", "infill", "--model", str(checkpoint_folder), "--limit", "2", "--processes", "1"]
    assert main(["eval", *arguments, "--steps", "1"]) == 2
    assert "1 of 2 cases fit" in capsys.readouterr().err


def test_the_speed_suite_times_both_models(
    checkpoint_folder: Path, sibling_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row per model and number of steps, compared with the sibling; every step is taken where none is saved."""
    printed = run(
        capsys,
        *("--suite", "speed", "--model", str(checkpoint_folder), "--sibling", str(sibling_folder)),
        *("--limit", "1", "--device", "cpu", "--json"),
    )
    figures = json.loads(printed)
    assert figures["compared_with"] == "autoregressive sibling"
    assert figures["models"]["diffusion, 1 steps"]["passes"] == 1
    assert figures["models"]["autoregressive sibling"]["token_ms"] > 0
    assert figures["models"]["autoregressive sibling"]["faster"] == 1.0
    assert "| autoregressive sibling |" in table(figures)


def test_speed_is_of_pairs_and_prefill_the_difference(checkpoint_folder: Path) -> None:
    """How much faster is the median of the rounds' own ratios; prefill is what a known study saves."""
    first, *_, last = contestants(Engine.load(checkpoint_folder, device="cpu"), None, steps=(1,))
    timings = {
        first.title: [Timing(1.0, 0.8, 4, 10), Timing(2.0, 1.8, 4, 10), Timing(1.0, 0.9, 4, 10)],
        last.title: [Timing(4.0, 1.0, 4, 10), Timing(2.0, 1.0, 4, 10), Timing(3.0, 1.0, 4, 10)],
    }
    row = summary([first, last], timings)["models"][first.title]
    assert (row["faster"], row["latency_s"], row["passes"]) == (3.0, 1.0, 4)
    assert row["prefill_ms"] == pytest.approx(200)
    assert row["step_ms"] == pytest.approx(225)
    assert row["tokens_per_s"] == pytest.approx(10)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--limit", "0"],
        ["--seed", "0"],
        ["--suite", "infill", "--set", "vqa-rad=x"],
        ["--suite", "vqa", "--set", "mimic-cxr=x"],
        ["--suite", "infill", "--set", "mimic-cxr=x", "--set", "iu-xray=y"],
        ["--set", "unknown=x"],
        ["--set", "phantom=x"],
        ["--suite", "vqa", "--set", "slake"],
        ["--suite", "vqa", "--candidate", "nameless"],
        ["--suite", "phantom", "--endpoints", "judges.toml"],
        ["--seed", "1000000"],
        ["--limit", "1000001"],
    ],
)
def test_options_that_do_not_fit_are_refused_at_once(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Before any model is loaded, with the option's name."""
    with pytest.raises(SystemExit) as leaving:
        main(["eval", *wrong])
    assert leaving.value.code == 2
    assert "error" in capsys.readouterr().err


def test_named_errors_of_the_suites_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without data, a plot that cannot be written, an endpoints file that is none."""
    for arguments, code in (
        (["--suite", "infill", "--set", f"iu-xray={tmp_path}"], "dataset-problem"),
        (["--suite", "vqa", "--set", f"slake={tmp_path}"], "dataset-problem"),
        (["--plot", str(tmp_path / "plot.pdf")], "no-plot"),
        (["--suite", "vqa", "--endpoints", str(tmp_path / "none.toml")], "endpoint-problem"),
    ):
        assert main(["eval", "--processes", "1", *arguments]) == 2
        assert f"[{code}]" in capsys.readouterr().err


def test_what_would_fail_after_the_work_fails_before_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint that is not there is not what is complained of: it was not looked for yet."""
    judges = tmp_path / "judges.toml"
    judges.write_text('[[judge]]\nurl = "http://elsewhere/v1"\nmodel = "m"\n')
    (tmp_path / "file").touch()
    infill = ["--suite", "infill", "--model", str(tmp_path / "none")]
    for arguments, code in (
        ([*infill, "--limit", "1"], "dataset-problem"),
        ([*infill, "--endpoints", str(judges)], "endpoint-problem"),
        ([*infill, "--table", str(tmp_path / "none" / "table.md")], "bad-request"),
        ([*infill, "--table", str(tmp_path)], "bad-request"),
        ([*infill, "--out", str(tmp_path / "file" / "cases.jsonl")], "bad-request"),
        ([*infill, "--plot", str(tmp_path / "none" / "plot.svg")], "bad-request"),
    ):
        assert main(["eval", "--processes", "1", *arguments]) == 2
        assert f"[{code}]" in capsys.readouterr().err


def test_the_help_shows_a_command_per_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Every suite is explained, with an example to copy."""
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    shown = capsys.readouterr().out
    for suite in ("phantom", "infill", "alternatives", "vqa", "speed"):
        assert f"--suite {suite}" in shown


def test_the_alternatives_suite_writes_a_curve_where_it_is_asked_to(
    wide_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures and a plot; with --calibrate the checkpoint says the curve, and has another digest than before."""
    monkeypatch.setattr(alternatives, "FEWEST_TO_KEEP", 2)
    folder, drawn = Path(shutil.copytree(wide_folder, tmp_path / "copy")), tmp_path / "plot.svg"
    options = ("--suite", "alternatives", "--model", str(folder), "--limit", "2", "--json")
    plain = json.loads(run(capsys, *options))
    assert (plain["n"], "calibrated" in plain) == (2, False)
    assert read_about(folder, "x").calibration == ()
    figures = json.loads(run(capsys, *options, "--calibrate", "--plot", str(drawn)))
    assert figures["model"] == plain["model"] != figures["calibrated"]
    assert figures["calibrated"]["digest"] == digest_of_folder(folder)
    curve = read_about(folder, "x").calibration
    assert [[round(score, 4), round(p, 4)] for score, p in curve] == figures["curve"]
    assert "probability said" in drawn.read_text()


def test_a_curve_that_could_not_be_written_is_refused_before_the_work(
    checkpoint_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too few phantoms, a folder that says nothing of itself, one that was fetched, and another suite."""
    copy = Path(shutil.copytree(checkpoint_folder, tmp_path / "copy"))
    options = ["eval", "--processes", "1", "--suite", "alternatives", "--calibrate", "--model", str(copy)]
    assert main([*options, "--limit", "3"]) == 2
    assert "at least 100 phantoms; --limit says 3" in capsys.readouterr().err
    (copy / FETCHED).write_text("{}")
    assert main(options) == 2
    assert "Copy it first" in capsys.readouterr().err
    (copy / "inlay.json").unlink()
    assert main(options) == 2
    assert "has none" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eval", "--suite", "phantom", "--calibrate"])


# ── a run that is cut short ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_cut_short_goes_on_where_it_stopped(
    checkpoint_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer is on disk when it comes; the same command asks only what is missing, and leaves no part behind."""
    out = tmp_path / "new" / "answers.jsonl"
    options = ["--suite", "vqa", "--limit", "4", "--candidate", f"base={checkpoint_folder}", "--out", str(out)]
    asked: list[str] = []
    answer = DiffusionCandidate.__call__

    def stops_at_third(candidate: DiffusionCandidate, image: Any, question: str) -> str:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(question)
        return answer(candidate, image, question)

    monkeypatch.setattr(DiffusionCandidate, "__call__", stops_at_third)
    assert main(["eval", "--processes", "1", "--steps", "1", *options]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert len(part_of(out).read_text().splitlines()) == 2
    monkeypatch.setattr(DiffusionCandidate, "__call__", lambda *given: asked.append(given[2]) or answer(*given))
    run(capsys, *options)
    assert len(asked) == 4
    assert [json.loads(line)["question"] for line in out.read_text().splitlines()] == asked
    assert not part_of(out).exists()


def test_results_of_another_run_are_not_taken(tmp_path: Path) -> None:
    """Another checkpoint, number of steps or version is another run; a line cut short is as if it were not there."""
    out = tmp_path / "cases.jsonl"
    one = Arriving(out, {"steps": 16})
    one.add("a", {"text": "x"})
    Arriving(out, {"steps": 8}).add("a", {"text": "other"})
    with part_of(out).open("a") as file:
        file.write('{"run": "cut sho')
    again = Arriving(out, {"steps": 16})
    assert again.results == {"a": {"text": "x"}}
    again.add("b", {"text": "y"})
    assert Arriving(out, {"steps": 16}).results == {"a": {"text": "x"}, "b": {"text": "y"}}
    finish(out)
    assert Arriving(out, {"steps": 16}).results == {}


def test_what_is_kept_of_a_filling_makes_it_again(image: np.ndarray, wide_folder: str) -> None:
    """Texts are kept; scores and verdicts follow from them and the case. A case left out stays out."""
    case = phantom_case(1_000_000)
    whole = fill(load_backends(wide_folder, None, Placing("cpu")), image, case, steps=1)
    for found in (whole, LeftOut(case.id, "canvas-overflow")):
        name, kept = to_part(found)
        assert name == case.id
        assert from_part(case, json.loads(json.dumps(kept))) == found


def test_packed_experts_are_evaluated_like_others(checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The precision is part of the figures, and what answers has packed experts; one that does not fit is named."""
    options = ["--suite", "vqa", "--limit", "1", "--candidate", f"base={checkpoint_folder}", "--json"]
    assert json.loads(run(capsys, *options, "--precision", "fp8"))["precision"] == "fp8"
    assert packed_bytes(diffusion(str(checkpoint_folder), Placing("cpu", "fp8")).checkpoint.model) > 0
    assert main(["eval", "--processes", "1", *options, "--precision", "4bit"]) == 2
    assert "multiples of 64" in capsys.readouterr().err


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_cases_are_spread_over_processes(processes: int) -> None:
    """Every case has one result, in whatever order; an error of a process is raised here."""
    assert sorted(spread(partial(map, abs), range(-4, 1), processes)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="invalid literal"):
        list(spread(partial(map, int), ["1", "2", "no number"], processes))


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run() -> None:
    """Nobody waits for ever for results that cannot come, and the message says how it ended."""
    with pytest.raises(ProcessDied, match="status 3"):
        list(spread(partial(map, os._exit), [3, 3], processes=2))


def test_each_contestant_looks_at_the_image_in_every_round(checkpoint_folder: Path, sibling_folder: Path) -> None:
    """All draft the same phantoms; the first draft of each in a round pays for its look, and the second for none."""
    engine, sibling = Engine.load(checkpoint_folder, device="cpu"), Sibling.load(sibling_folder, device="cpu")
    with Looks() as looks:
        entrants = [
            replace(entrant, draft=looks.of(entrant.title, entrant.draft))
            for entrant in contestants(engine, sibling, steps=(1, 2))
        ]
        for _ in rounds(entrants, 1, 1):
            pass
    each = [(entrant.title, look) for entrant in entrants for look in (1, 0)]
    assert len(entrants) == 4
    assert sorted(looks.found) == sorted(each * 2)
