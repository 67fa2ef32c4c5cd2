from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from inlay_cli import main as entry
from inlay_core.application.ports import Delivery, Destination
from inlay_core.bootstrap import bootstrap, upgrade_database
from inlay_core.settings import Settings
from inlay_gateway.answers import senders_of
from inlay_gateway.reception import Reception
from inlay_testkit.core import Ward
from inlay_testkit.mllp import order_message


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation of the embedded mode that commands find."""
    monkeypatch.setenv("INLAY_HOME", str(tmp_path))
    monkeypatch.setenv("INLAY_ORU_TARGET", "127.0.0.1:9")
    upgrade_database(Settings(home=tmp_path))
    return tmp_path


def receive(home: Path, payload: bytes) -> None:
    """Have the listener take a message."""
    services = bootstrap(Settings(home=home))
    Reception(services.uow, services.clock, services.new_id, senders_of(services.settings)).take(payload, "peer")
    services.close()


def test_explain_shows_each_field_and_what_comes_of_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The accession number is shown at the field that the mapping names, and the answer at the end."""
    message = tmp_path / "order.hl7"
    message.write_bytes(order_message("1"))
    assert entry.main(["hl7", "explain", str(message)]) == 0
    printed = capsys.readouterr().out
    (row,) = [line for line in printed.splitlines() if line.startswith("OBR-18")]
    assert row.split() == ["OBR-18", "A1", "accession_number"]
    assert "answer    AA" in printed
    mapping = tmp_path / "hl7.toml"
    mapping.write_text('[default]\naccession_number = ["OBR-2"]')
    assert entry.main(["hl7", "explain", str(message), "--mapping", str(mapping), "--json"]) == 0
    rows = {row["place"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert "accession_number" in rows["OBR-2"]["uses"]
    assert rows["OBR-18"]["uses"] == []


def test_explain_says_why_a_message_would_be_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, the code, the condition and the place; fields that were read are shown all the same."""
    message = tmp_path / "order.hl7"
    message.write_bytes(order_message("1").replace(b"19700102", b"tomorrow"))
    assert entry.main(["hl7", "explain", str(message)]) == 1
    printed = capsys.readouterr().out
    assert "answer   AE" in printed
    assert "condition 102 at PID-7" in printed
    assert "PID-3" in printed


def test_a_mapping_with_a_mistake_names_file_key_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says what to mend and where."""
    message, mapping = tmp_path / "order.hl7", tmp_path / "hl7.toml"
    message.write_bytes(order_message("1"))
    mapping.write_text('[sender."RIS|HOSP".OMI]\nacession_number = ["IPC-1"]')
    assert entry.main(["hl7", "explain", str(message), "--mapping", str(mapping)]) == 78
    said = capsys.readouterr().err
    assert str(mapping) in said
    assert 'sender."RIS|HOSP".OMI.acession_number: unknown key; did you mean accession_number?' in said


def test_replay_is_a_dry_run_until_it_is_applied(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run shows the difference, the second shows it again and keeps it, the third has nothing to show."""
    receive(home, order_message("1"))
    mapping = tmp_path / "hl7.toml"
    mapping.write_text('[default]\naccession_number = ["OBR-2"]')
    told = []
    for arguments in ([], ["--apply"], []):
        assert entry.main(["hl7", "replay", "--mapping", str(mapping), *arguments]) == 0
        told.append(capsys.readouterr().out)
    assert all("accession_number: A1 -> P1" in each for each in told[:2])
    assert "1 messages, 1 different, 0 refused. Nothing was changed" in told[0]
    assert "Done." in told[1]
    assert "1 messages, 0 different" in told[2]


def park(home: Path) -> str:
    """A result that nobody took; return its id."""
    services = bootstrap(Settings(home=home, oru_target="127.0.0.1:9"))
    Ward(services.uow(), site=services.site).drafted()
    with services.uow() as uow:
        (item,) = uow.outbox.in_state(Delivery.PENDING, 10)
        assert item.destination == Destination.ORU
        uow.outbox.save(replace(item, state=Delivery.DEAD, last_error="ae-102", attempts=3))
        uow.commit()
    services.close()
    return item.id


def test_parked_results_are_listed_and_queued_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`dead` names what the receiver said and exits with 1; `resend` queues it, and then nothing is parked."""
    assert entry.main(["hl7", "dead"]) == 0
    assert capsys.readouterr().out == "Nothing is parked.\n"
    item_id = park(home)
    assert entry.main(["hl7", "dead", "--json"]) == 1
    listed = json.loads(capsys.readouterr().out)
    assert (listed["id"], listed["error"], listed["destination"]) == (item_id, "ae-102", "oru")
    assert entry.main(["hl7", "resend", "--all"]) == 0
    assert f"{item_id}  queued for oru as {listed['control_id']}" in capsys.readouterr().out
    assert entry.main(["hl7", "dead"]) == 0
    capsys.readouterr()
    assert entry.main(["hl7", "resend", item_id]) == 1
    assert "not queued: Only what was parked" in capsys.readouterr().out


def test_resend_wants_to_know_what(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither ids nor --all is a misuse, and so is an unknown part."""
    assert entry.main(["hl7", "resend"]) == 2
    assert entry.main(["hl7", "frobnicate"]) == 2
    assert "inlay hl7 --help" in capsys.readouterr().err
    assert entry.main(["hl7"]) == 2


def test_every_part_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    """`inlay hl7 PART --help` exits with 0 and shows the part in use."""
    from inlay_cli.commands.hl7 import PARTS

    for name in PARTS:
        with pytest.raises(SystemExit) as ended:
            entry.main(["hl7", name, "--help"])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert f"inlay hl7 {name}" in printed
        assert "examples:" in printed
