"""The commands of administration and oversight, on an installation with one drafted report."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from inlay_cli import main as entry
from inlay_testkit.installation import Installation


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An installation that the commands find, with a draft and a job that waits."""
    made = Installation(tmp_path)
    made.order("1", wake=False)
    made.ward.draft()
    made.order("2", wake=False)
    monkeypatch.setenv("INLAY_HOME", str(tmp_path))
    yield made
    made.services.close()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit status of a command line and what it printed."""
    status = entry.main(words)
    return status, capsys.readouterr().out


def test_stop_list_and_resume(site: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """What is stopped is listed with its name and ends with 1; after resuming nothing is, and the trail has both."""
    assert run(capsys, "switch", "list") == (0, "Nothing is stopped by a switch.\n")
    name = "generation?use=draft&site=RIS"
    assert run(capsys, "switch", "stop", "--use", "draft", "--site", "RIS") == (0, f"{name}: stopped\n")
    status, printed = run(capsys, "switch", "list", "--json")
    assert (status, json.loads(printed)["name"]) == (1, name)
    assert run(capsys, "switch", "resume", "--use", "draft", "--site", "RIS")[0] == 0
    assert run(capsys, "switch", "list")[0] == 0
    with site.services.reader() as uow:
        tags = [str(event.tag) for event in uow.audit.unsealed()]
    assert tags[-2:] == ["admin:switch:stopped", "admin:switch:started"]


def test_status_tells_how_it_stands(site: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs, senders and workers are there, in words and as JSON; nothing of a patient is."""
    status, printed = run(capsys, "status")
    assert status == 0
    assert "1 draft queued (routine)" in printed
    assert "Workers:\n  none" in printed
    body = json.loads(run(capsys, "status", "--json")[1])
    assert body["queues"][0]["state"] == "queued"
    for planted in site.PLANTED:
        if len(planted) > 2:
            assert planted not in printed


def test_stats_as_table_json_and_csv(site: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """The same figures in three forms, and per draft; that they were read is recorded."""
    status, printed = run(capsys, "stats", "--by", "all")
    assert status == 0
    assert printed.splitlines()[1].split()[:2] == ["all", "test"]
    row = json.loads(run(capsys, "stats", "--by", "all", "--json")[1])
    assert (row["step"], row["drafts"], row["signed"]) == ("all", 1, 0)
    listed = run(capsys, "stats", "--csv")[1]
    assert listed.startswith("step,model,")
    drafts = run(capsys, "stats", "--reports", "--csv")[1]
    assert len(drafts.splitlines()) == 2
    assert "RIS,DX,open" in drafts
    assert "test" in run(capsys, "stats", "--reports")[1]
    assert "heart" not in printed + listed + drafts
    assert run(capsys, "stats", "--until", "2020-01-01") == (0, "No draft came in these days.\n")
    with site.services.reader() as uow:
        assert [str(event.tag) for event in uow.audit.unsealed()].count("reader:access:usage") == 6


def test_a_day_that_is_none_is_said(site: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names it."""
    assert entry.main(["stats", "--since", "yesterday"]) == 1
    assert "bad-day at since" in capsys.readouterr().err


def test_studies_are_made_from_lines(site: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made, listed, read out and closed; a line that is no JSON is named."""
    case = {"label": "1", "drafts": {"a": {"findings": "One."}, "b": {"findings": "Two."}}}
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(case) + "\n\n" + json.dumps(case) + "\n", encoding="utf-8")
    arms = ["--arms", "a", "b", "--cases", str(file)]
    status, printed = run(capsys, "study", "create", "pilot", *arms)
    assert status == 0
    study = printed.split()[0]
    assert printed == f"{study}  pilot: 2 cases\n"
    assert run(capsys, "study", "list") == (0, f"{study}  pilot  2 cases\n")
    assert json.loads(run(capsys, "study", "results", study)[1])["grades"] == 0
    assert run(capsys, "study", "export", study, "--csv") == (0, "")
    assert run(capsys, "study", "close", study) == (0, "pilot is closed\n")
    assert "closed" in run(capsys, "study", "list")[1]
    file.write_text("{", encoding="utf-8")
    assert entry.main(["study", "create", "other", *arms]) == 1
    assert "line 1: not JSON" in capsys.readouterr().err
    assert entry.main(["study", "create", "other"]) == 2
