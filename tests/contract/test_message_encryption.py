"""Encryption of stored messages: what the column holds, what still works, and how keys are changed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select, text

from inlay_core.application.reencrypting import reencrypt_messages
from inlay_core.domain.errors import Fault, Forbidden, Invalid, Unavailable
from inlay_core.persistence import schema
from inlay_core.persistence.encryption import KeyRing, read_ring
from inlay_core.persistence.engine import open_database
from inlay_core.persistence.tables import MESSAGES
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_testkit.core import ADMIN, RADIOLOGIST, Ward, envelope, order_command

OLD = KeyRing("old", {"old": b"o" * 32})
BOTH = KeyRing("new", {"old": b"o" * 32, "new": b"n" * 32})
NEW = KeyRing("new", {"new": b"n" * 32})
OFF = KeyRing("", {"new": b"n" * 32})
RAW = b"MSH|^~\\&|RIS\rPID|||MRN1||Testperson^Tina"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A migrated SQLite file."""
    opened = open_database(f"sqlite:///{tmp_path / 'inlay.sqlite'}")
    schema.upgrade(opened)
    yield opened
    opened.dispose()


def _receive(engine: Engine, ring: KeyRing | None, number: str = "1") -> Ward:
    ward = Ward(SqlUnitOfWork(engine, ring=ring), prefix=f"m{number}")
    ward.receive(order_command(number), message=envelope(f"C{number}", RAW))
    return ward


def _columns(engine: Engine) -> list[tuple[str | None, bytes]]:
    with engine.connect() as connection:
        rows = connection.execute(select(MESSAGES.c.raw_key, MESSAGES.c.raw).order_by(MESSAGES.c.control_id))
        return [(row.raw_key, row.raw) for row in rows]


def _raws(engine: Engine, ring: KeyRing | None) -> list[bytes]:
    with SqlUnitOfWork(engine, read_only=True, ring=ring) as uow:
        return [message.envelope.raw for message in uow.messages.received()]


def _reencrypt(engine: Engine, ring: KeyRing | None, batch: int = 200) -> int:
    return reencrypt_messages(*Ward(SqlUnitOfWork(engine, ring=ring), prefix="r").trio, ADMIN, batch=batch)


def test_the_column_holds_no_patient_and_the_message_reads_as_it_came(engine: Engine) -> None:
    """On disk are the key's name, a nonce and ciphertext; whoever has the key reads the bytes as they came."""
    _receive(engine, OLD)
    ((key, stored),) = _columns(engine)
    assert key == "old"
    assert b"Testperson" not in stored
    assert _raws(engine, OLD) == [RAW]


def test_a_repeated_message_is_still_known(engine: Engine) -> None:
    """The digest of the plain bytes is what makes a repeat one: the stored answer is given again, whatever the key."""
    _receive(engine, OLD)
    again = Ward(SqlUnitOfWork(engine, ring=BOTH), prefix="again")
    received = again.receive(order_command("1"), message=envelope("C1", RAW))
    assert received.repeated
    assert len(_columns(engine)) == 1


def test_without_encryption_nothing_changes(engine: Engine) -> None:
    """Off by default: the bytes are stored as they came, and stay readable once a ring is there."""
    _receive(engine, None)
    assert _columns(engine) == [(None, RAW)]
    assert _raws(engine, NEW) == [RAW]


def test_keys_are_changed_in_batches_that_can_be_interrupted(engine: Engine) -> None:
    """Plain and old messages come under the new key; a second run finds nothing; afterwards the old key can go."""
    _receive(engine, None, "1")
    for number in ("2", "3", "4"):
        _receive(engine, OLD, number)
    assert _reencrypt(engine, BOTH, batch=3) == 4
    assert {key for key, _ in _columns(engine)} == {"new"}
    assert _reencrypt(engine, BOTH) == 0
    assert _raws(engine, NEW) == [RAW] * 4
    with SqlUnitOfWork(engine) as uow:
        told = [event.detail for event in uow.audit.unsealed() if event.tag == "admin:message:reencrypted"]
    assert told == [{"count": 3}, {"count": 1}]


def test_encryption_can_be_taken_back(engine: Engine) -> None:
    """A ring without a current key stores in plain, and brings back what was encrypted."""
    _receive(engine, NEW)
    assert _reencrypt(engine, OFF) == 1
    assert _columns(engine) == [(None, RAW)]


def test_a_missing_key_is_an_error_that_may_pass(engine: Engine) -> None:
    """Without the key a message cannot be read or encrypted anew: Unavailable, naming the setting, never the bytes."""
    _receive(engine, OLD)
    for ring in (None, NEW):
        with pytest.raises(Unavailable) as missing:
            _raws(engine, ring)
        assert missing.value.place == "INLAY_MESSAGE_KEYS"
    with pytest.raises(Unavailable):
        _reencrypt(engine, NEW)
    with pytest.raises(Invalid):
        _reencrypt(engine, None)


def test_bytes_that_were_moved_to_another_row_do_not_open(engine: Engine) -> None:
    """Ciphertext is bound to its row: swapped, or changed by a bit, it is a fault and not another patient's message."""
    _receive(engine, NEW, "1")
    _receive(engine, NEW, "2")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE messages SET raw = (SELECT raw FROM messages WHERE control_id = 'C2') WHERE control_id = 'C1'")
        )
    with pytest.raises(Fault):
        _raws(engine, NEW)


def test_only_an_administrator_changes_keys(engine: Engine) -> None:
    """A radiologist does not."""
    with pytest.raises(Forbidden):
        reencrypt_messages(*Ward(SqlUnitOfWork(engine, ring=NEW)).trio, RADIOLOGIST)


@given(st.binary(max_size=300), st.text(max_size=20))
def test_any_bytes_come_back(plain: bytes, row_id: str) -> None:
    """Encryption and decryption are inverse, and no two ciphertexts are alike."""
    key, first = NEW.encrypt(plain, row_id)
    assert key is not None
    assert NEW.decrypt(key, first, row_id) == plain
    assert NEW.encrypt(plain, row_id)[1] != first


def _file(folder: Path, text_: str) -> str:
    path = folder / "keys.toml"
    path.write_text(text_)
    return str(path)


def test_a_key_ring_is_read_from_its_file(tmp_path: Path) -> None:
    """Names, keys and the current one; no file, no ring."""
    key = base64.b64encode(b"k" * 32).decode()
    ring = read_ring(_file(tmp_path, f'current = "a"\n[keys]\na = "{key}"\nb = "{key}"\n'))
    assert ring == KeyRing("a", {"a": b"k" * 32, "b": b"k" * 32})
    assert "kkkk" not in repr(ring)
    assert read_ring("") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no toml",
        'current = "a"',
        'current = "b"\n[keys]\na = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="',
        'current = "a"\n[keys]\na = "c2hvcnQ="',
        'current = "a"\n[keys]\na = "not base64!"',
        'current = "a"\n[keys]\na = 7',
    ],
)
def test_a_key_ring_that_cannot_be_used_stops_the_process(tmp_path: Path, content: str) -> None:
    """The setting is named, and nothing of the file is quoted."""
    with pytest.raises(Invalid) as refused:
        read_ring(_file(tmp_path, content))
    assert refused.value.place == "INLAY_MESSAGE_KEYS"
    assert "c2hvcnQ" not in str(refused.value)
