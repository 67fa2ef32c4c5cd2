"""Commands on an embedded home: database, audit trail, check, settings."""

import json
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from inlay_cli.main import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with ports that nobody listens on."""
    monkeypatch.setenv("INLAY_HOME", str(tmp_path))
    monkeypatch.setenv("INLAY_HTTP_PORT", "1")
    monkeypatch.setenv("INLAY_MLLP_PORT", "1")
    monkeypatch.setenv("INLAY_DICOM_PORT", "1")
    return tmp_path


def test_db_current_of_nothing_is_empty(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A database without a schema says so."""
    assert main(["db", "current"]) == 0
    assert capsys.readouterr().out == "empty\n"


def test_db_upgrade_makes_the_schema_and_may_be_repeated(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Upgrade prints the newest revision, twice the same; current agrees."""
    assert [main(["db", "upgrade"]), main(["db", "upgrade"]), main(["db", "current"])] == [0, 0, 0]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert len(set(printed)) == 1
    assert printed[0] != "empty"


def test_audit_verify_of_a_new_home_holds(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty trail holds, for people and for programs."""
    main(["db", "upgrade"])
    capsys.readouterr()
    assert main(["audit", "verify"]) == 0
    assert capsys.readouterr().out.startswith("The audit trail holds: 0 events chained")
    assert main(["audit", "verify", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["holds"], told["sealed"], told["unsealed"]) == (True, 0, 0)


def test_audit_export_is_recorded_itself(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second export contains the event of the first, as JSON lines."""
    main(["db", "upgrade"])
    main(["audit", "export"])
    capsys.readouterr()
    assert main(["audit", "export"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2
    assert all(row["event"]["actor"]["id"].startswith("cli:") for row in rows)


def test_check_names_what_cannot_be_used(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part that is missing is told with what to do, and the status is 1."""
    assert main(["check"]) == 1
    printed = capsys.readouterr().out
    assert "run `inlay db upgrade`" in printed
    assert "nothing listens on 127.0.0.1:1" in printed


def test_check_json_has_every_part(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After an upgrade and with a watched folder, database and images are found."""
    main(["db", "upgrade"])
    (home / "images").mkdir()
    capsys.readouterr()
    assert main(["check", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["database"]["ok"] is True
    assert found["images"]["ok"] is True
    assert found["http"]["ok"] is False


def test_check_may_be_asked_for_some_parts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a container the listeners of others are none of its parts; a part that does not exist is a misuse."""
    assert main(["db", "upgrade"]) == 0
    capsys.readouterr()
    assert main(["check", "--json", "--only", "database", "--only", "broker"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["database", "broker"]
    with pytest.raises(SystemExit) as misused:
        main(["check", "--only", "databse"])
    assert misused.value.code == 2


def test_check_says_which_checkpoint_the_workers_have(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name and digest; one that is not the expected one is a fault, and a worker that fell silent tells nothing."""
    from inlay_cli.environment import read_settings
    from inlay_core import bootstrap
    from inlay_core.application.administration import tell_of_worker
    from inlay_core.application.ports import WorkerSeen

    def found() -> tuple[int, str]:
        status = main(["check", "--only", "model", "--json"])
        return status, json.loads(capsys.readouterr().out)["model"]["found"]

    main(["db", "upgrade"])
    capsys.readouterr()
    assert found() == (0, "no worker is there to tell of its checkpoint")
    now, (ours, other) = bootstrap.clock(), ("a" * 64, "b" * 64)
    old = now - timedelta(hours=1)
    uow = bootstrap.unit_of_work(read_settings())
    for host, digest, seen in (("new", ours, now), ("old", other, old)):
        tell_of_worker(uow, WorkerSeen(host, host, "tiny", digest, (), "cpu", 0, seen, seen))
    assert found() == (0, f"tiny {ours}; INLAY_MODEL_DIGEST is empty: workers take any")
    monkeypatch.setenv("INLAY_MODEL_DIGEST", ours)
    assert found() == (0, f"tiny {ours}; as INLAY_MODEL_DIGEST expects")
    monkeypatch.setenv("INLAY_MODEL_DIGEST", other)
    status, said = found()
    assert (status, said.startswith(f"the worker on new has tiny {ours}, and INLAY_MODEL_DIGEST expects")) == (1, True)


def test_check_never_prints_a_password(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """URLs with passwords appear neither among the settings nor in an error."""
    monkeypatch.setenv("INLAY_DATABASE_URL", "postgresql://inlay:hunter2@127.0.0.1:1/inlay")
    monkeypatch.setenv("INLAY_BROKER_URL", "redis://:hunter2@127.0.0.1:1/0")
    assert main(["check", "--settings"]) == 0
    assert main(["check"]) == 1
    printed = capsys.readouterr()
    assert "hunter2" not in printed.out + printed.err
    assert "INLAY_DATABASE_URL" in printed.out


def test_check_prints_settings_as_their_variables_give_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is left to the worker is auto, and a switch is true or false: no word of Python's."""
    assert main(["check", "--settings", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["INLAY_ACCELERATE"], shown["INLAY_DRAFT"], shown["INLAY_STEPS"]) == ("auto", "true", "16")


def test_a_bad_setting_is_named_without_its_value(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that cannot be read gives one line and status 78."""
    monkeypatch.setenv("INLAY_HTTP_PORT", "eighty")
    assert main(["db", "current"]) == 78
    assert capsys.readouterr().err == "inlay: INLAY_HTTP_PORT: Expected a whole number.\n"


def test_a_broken_chain_is_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An event changed behind Inlay's back makes verify fail with its position."""
    from inlay_cli.environment import opened, read_settings
    from inlay_core.application.trail import seal_trail

    main(["db", "upgrade"])
    main(["audit", "export"])
    with opened(read_settings()) as services:
        assert seal_trail(services.uow()) == 1
    assert main(["audit", "verify"]) == 0
    with sqlite3.connect(home / "inlay.sqlite") as database:
        database.execute("UPDATE audit_events SET body = replace(body, 'cli:', 'clj:')")
    database.close()
    capsys.readouterr()
    assert main(["audit", "verify"]) == 1
    assert "BROKEN at position 1" in capsys.readouterr().out
