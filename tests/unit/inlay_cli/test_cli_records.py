"""Commands that look after records: checkpoints, purge, encryption."""

from __future__ import annotations

import base64
import json
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from inlay_cli.environment import opened, read_settings
from inlay_cli.main import main
from inlay_core.application.trail import seal_trail
from inlay_testkit.core import StillClock, Ward, order_command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own with a schema."""
    monkeypatch.setenv("INLAY_HOME", str(tmp_path))
    main(["db", "upgrade"])
    return tmp_path


def _receive(now: datetime | None = None) -> None:
    """One order, of today or of then."""
    with opened(read_settings()) as services:
        Ward(services.uow(), StillClock(now or services.clock())).receive(order_command("1"))
        seal_trail(services.uow())


def test_a_checkpoint_that_was_kept_finds_a_trail_that_was_cut(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`audit checkpoint` prints what `audit verify --checkpoint` holds the chain to, with stored ones removed too."""
    _receive()
    capsys.readouterr()
    assert main(["audit", "checkpoint"]) == 0
    kept = tmp_path / "kept.jws"
    kept.write_text(capsys.readouterr().out)
    assert main(["audit", "verify", "--checkpoint", str(kept)]) == 0
    assert "signed checkpoints that fit: 1" in capsys.readouterr().out
    with sqlite3.connect(home / "inlay.sqlite") as database:
        database.execute("DELETE FROM audit_links WHERE position > 1")
        database.execute("DELETE FROM audit_events WHERE seq > 1")
        database.execute("DELETE FROM audit_checkpoints")
    database.close()
    assert main(["audit", "verify"]) == 0
    capsys.readouterr()
    assert main(["audit", "verify", "--checkpoint", str(kept), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["break"]["reason"] == "end-missing"


def test_keys_are_public(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `audit keys` prints verifies, and signs nothing."""
    capsys.readouterr()
    assert main(["audit", "keys"]) == 0
    (key,) = json.loads(capsys.readouterr().out)["keys"]
    assert key["crv"] == "P-256"
    assert "d" not in key


def test_a_file_without_checkpoints_is_said(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty or missing file is no proof that the trail holds."""
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for path in (empty, tmp_path / "nowhere"):
        assert main(["audit", "verify", "--checkpoint", str(path)]) == 1
    assert "holds no checkpoint" in capsys.readouterr().err


def test_purge_tells_first_and_does_it_when_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --apply nothing is changed; an old message of an open report stays in any case."""
    with opened(read_settings()) as services:
        _receive(services.clock() - timedelta(days=100))
    monkeypatch.setenv("INLAY_KEEP_MESSAGES_DAYS", "30")
    with sqlite3.connect(home / "inlay.sqlite") as database:
        assert main(["purge", "--kind", "messages"]) == 0
        assert "nothing to let go, 1 kept for open reports" in capsys.readouterr().out
        database.execute("UPDATE reports SET status = 'cancelled'")
        database.commit()
        assert main(["purge", "--kind", "messages"]) == 0
        assert "1 would go" in capsys.readouterr().out
        assert database.execute("SELECT count(*) FROM messages").fetchone() == (1,)
        assert main(["purge", "--apply", "--json"]) == 0
        told = {row["kind"]: row["count"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
        assert told == {"messages": 1, "jobs": 0, "progress": 0, "outbox": 0, "images": 0, "audit": 0}
        assert database.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    database.close()


def test_stored_messages_come_under_a_key(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`db reencrypt` says how many; a second time there is none. Without keys it says what is missing."""
    _receive()
    capsys.readouterr()
    assert main(["db", "reencrypt"]) == 1
    assert "INLAY_MESSAGE_KEYS" in capsys.readouterr().err
    keys = tmp_path / "keys.toml"
    keys.write_text(f'current = "a"\n[keys]\na = "{base64.b64encode(b"k" * 32).decode()}"\n')
    monkeypatch.setenv("INLAY_MESSAGE_KEYS", str(keys))
    assert main(["db", "reencrypt"]) == 0
    assert main(["db", "reencrypt"]) == 0
    assert capsys.readouterr().out.split("\n")[:2] == ["1 messages encrypted anew", "0 messages encrypted anew"]
