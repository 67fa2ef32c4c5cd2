"""Signed checkpoints: what a chain that fits in itself does not show (a cut end, a rewritten trail) is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from joserfc.jwk import ECKey
from sqlalchemy import Connection, Engine, delete, select, text, update

from inlay_core.application.trail import kept_checkpoints, make_checkpoint, seal_trail, verify_trail
from inlay_core.domain.audit import Checkpoint, seal
from inlay_core.domain.errors import Invalid
from inlay_core.notary import JwsNotary, notary_of
from inlay_core.persistence import schema
from inlay_core.persistence.engine import open_database
from inlay_core.persistence.tables import AUDIT_CHECKPOINTS, AUDIT_EVENTS, AUDIT_LINKS
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_core.settings import Settings
from inlay_testkit.core import AUDITOR, MONDAY, StillClock, Ward, order_command
from inlay_testkit.memory import Memory


def notary() -> JwsNotary:
    """A notary with a key of its own."""
    key = ECKey.generate_key("P-256", private=True)
    key.ensure_kid()
    return JwsNotary(key)


NOTARY = notary()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A migrated SQLite file with a sealed trail."""
    opened = open_database(f"sqlite:///{tmp_path / 'inlay.sqlite'}")
    schema.upgrade(opened)
    Ward(SqlUnitOfWork(opened)).drafted()
    seal_trail(SqlUnitOfWork(opened))
    return opened


def _rechain(connection: Connection, kept: list[tuple[str, str]]) -> None:
    """What a forger with the whole database does: make a chain that fits in itself."""
    connection.execute(delete(AUDIT_LINKS))
    for link in seal(kept):
        values = {"position": link.position, "event_id": link.event_id, "previous": link.previous, "hash": link.hash}
        connection.execute(AUDIT_LINKS.insert().values(values))


def _bodies(connection: Connection) -> list[tuple[str, str]]:
    rows = connection.execute(select(AUDIT_EVENTS.c.id, AUDIT_EVENTS.c.body).order_by(AUDIT_EVENTS.c.seq))
    return [(row.id, row.body) for row in rows]


def _cut(connection: Connection) -> None:
    kept = _bodies(connection)[:-2]
    connection.execute(delete(AUDIT_EVENTS).where(AUDIT_EVENTS.c.id.not_in([key for key, _ in kept])))
    _rechain(connection, kept)


def _rewrite(connection: Connection) -> None:
    key, body = _bodies(connection)[0]
    connection.execute(
        update(AUDIT_EVENTS).where(AUDIT_EVENTS.c.id == key).values(body=body.replace("success", "refused"))
    )
    _rechain(connection, _bodies(connection))


def _reorder(connection: Connection) -> None:
    _rechain(connection, _bodies(connection)[::-1])


FORGERIES: dict[str, tuple[Callable[[Connection], None], str]] = {
    "cut": (_cut, "end-missing"),
    "rewritten": (_rewrite, "checkpoint-differs"),
    "reordered": (_reorder, "checkpoint-differs"),
}


@pytest.mark.parametrize("kind", FORGERIES)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "exported"])
def test_a_forged_chain_that_fits_in_itself_is_found_by_a_checkpoint(engine: Engine, kind: str, stored: bool) -> None:
    """Cutting the end, rewriting or reordering is found, by the stored checkpoint and by an exported copy alone."""
    uow = SqlUnitOfWork(engine)
    token = make_checkpoint(uow, StillClock(), NOTARY)
    assert token is not None
    assert verify_trail(uow, NOTARY, [token]).holds
    forge, reason = FORGERIES[kind]
    with engine.begin() as connection:
        forge(connection)
        if not stored:
            connection.execute(delete(AUDIT_CHECKPOINTS))
    assert verify_trail(uow).holds, "the forgery is one that the chain alone does not show"
    broken = verify_trail(uow, NOTARY, [] if stored else [token]).first_break
    assert broken is not None
    assert broken.reason == reason


def test_a_checkpoint_of_another_key_counts_for_nothing(engine: Engine) -> None:
    """A forger with a key of their own is found: stored, it breaks the trail; handed in, it is refused."""
    uow = SqlUnitOfWork(engine)
    forged = make_checkpoint(uow, StillClock(), notary())
    assert forged is not None
    broken = verify_trail(uow, NOTARY).first_break
    assert broken is not None
    assert broken.reason == "checkpoint-not-signed"
    with pytest.raises(Invalid):
        verify_trail(uow, NOTARY, [forged])


def test_a_cut_that_nobody_signed_hides_nothing(engine: Engine) -> None:
    """Taking the beginning away breaks the chain: only a signed cut lets the walk begin later."""
    uow = SqlUnitOfWork(engine)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_links WHERE position <= 2"))
    found = verify_trail(uow, NOTARY)
    assert found.first_break is not None
    assert found.first_break.reason == "link-missing"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_checkpoints_are_made_once_per_head_and_kept_in_order(tmp_path: Path, kind: str) -> None:
    """A trail that did not grow gets no second checkpoint; all are exported, the oldest first."""
    if kind == "sqlite":
        opened = open_database(f"sqlite:///{tmp_path / 'inlay.sqlite'}")
        schema.upgrade(opened)
        ward = Ward(SqlUnitOfWork(opened))
    else:
        ward = Ward(Memory()())
    assert make_checkpoint(ward.uow, StillClock(), NOTARY) is None
    tokens = []
    for number in ("1", "2"):
        ward.receive(order_command(number))
        seal_trail(ward.uow)
        tokens.append(make_checkpoint(ward.uow, StillClock(), NOTARY))
        assert make_checkpoint(ward.uow, StillClock(), NOTARY) is None
    assert kept_checkpoints(ward.uow, AUDITOR) == tokens
    found = verify_trail(ward.uow, NOTARY)
    assert (found.holds, found.checkpoints) == (True, 2)


def test_a_checkpoint_is_read_back_only_as_it_was_signed() -> None:
    """Position, hash, time and kind survive; a changed token and one of another type are refused."""
    checkpoint = Checkpoint(7, "a" * 64, MONDAY, is_cut=True)
    token = NOTARY.sign(checkpoint)
    assert NOTARY.read(token + "\n") == checkpoint
    head, body, signature = token.split(".")
    for wrong in (f"{head}.{body[:-2]}AA.{signature}", f"{head}.{body}.", "", "no token"):
        with pytest.raises(Invalid):
            NOTARY.read(wrong)


def test_the_key_is_made_in_the_home_of_an_embedded_database_only(tmp_path: Path) -> None:
    """Machines that share a database need a key that they share; one alone makes its own, readable by it alone."""
    own = notary_of(Settings(home=tmp_path))
    assert own is not None
    again = notary_of(Settings(home=tmp_path))
    assert again is not None
    assert again.public_keys == own.public_keys
    assert (tmp_path / "keys" / "audit-key.json").stat().st_mode & 0o077 == 0
    assert notary_of(Settings(home=tmp_path, database_url="postgresql://db/inlay")) is None


def test_a_key_that_was_replaced_can_stay_trusted(tmp_path: Path) -> None:
    """Checkpoints of an earlier key hold where its public half is named; otherwise they do not."""
    old = notary_of(Settings(home=tmp_path / "old"))
    assert old is not None
    token = old.sign(Checkpoint(1, "a" * 64, MONDAY))
    trusted = tmp_path / "old.json"
    trusted.write_text(old.public_keys)
    renewed = notary_of(Settings(home=tmp_path / "new", audit_trusted_keys=str(trusted)))
    assert renewed is not None
    assert renewed.read(token).position == 1
    alone = notary_of(Settings(home=tmp_path / "new"))
    assert alone is not None
    with pytest.raises(Invalid):
        alone.read(token)
