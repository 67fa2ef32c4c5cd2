"""What only a real database can show: the migrated schema, tampering with its rows, errors without values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, select, text, update

from inlay_core.application import queries, trail
from inlay_core.application.ports import Standing
from inlay_core.domain.audit import Kind, Tag, event_of
from inlay_core.domain.errors import Fault, Race, Unavailable
from inlay_core.persistence import schema
from inlay_core.persistence.engine import open_database
from inlay_core.persistence.statements import Statements
from inlay_core.persistence.tables import AUDIT_EVENTS, AUDIT_LINKS, METADATA, ORDERS
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_testkit.core import EHR, MONDAY, Ward, order_command
from inlay_testkit.uow_contract import in_threads


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A migrated SQLite file."""
    opened = open_database(f"sqlite:///{tmp_path / 'inlay.sqlite'}")
    schema.upgrade(opened)
    yield opened
    opened.dispose()


def test_the_migrated_schema_is_the_one_of_the_tables(engine: Engine) -> None:
    """Migrations and tables agree in every column, key and index."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_the_schema_can_be_taken_back(engine: Engine) -> None:
    """Each migration has a way back that leaves nothing behind."""
    from alembic import command

    config = schema._config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert schema.current(engine) is None
    with engine.connect() as connection:
        names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
    assert set(names) <= {"alembic_version"}


def test_processes_that_upgrade_together_do_not_disturb_each_other(tmp_path: Path) -> None:
    """`inlay up` may start several processes on an empty folder."""
    url = f"sqlite:///{tmp_path / 'fresh.sqlite'}"

    def upgrade(_number: int) -> str:
        opened = open_database(url)
        try:
            return schema.upgrade(opened)
        finally:
            opened.dispose()

    assert set(in_threads(upgrade, 3)) == {schema.newest()}


def test_many_may_find_a_new_file_at_once(tmp_path: Path) -> None:
    """One of them makes it a file with a write-ahead log; SQLite would have the others fail instead of waiting."""
    for number in range(40):
        opened = [open_database(f"sqlite:///{tmp_path / str(number)}.sqlite") for _ in range(6)]

        def connect(at: int, opened: list[Engine] = opened) -> str:
            with opened[at].connect() as connection:
                return str(connection.execute(text("PRAGMA journal_mode")).scalar_one())

        assert set(in_threads(connect, 6)) == {"wal"}
        for engine in opened:
            engine.dispose()


def test_sqlite_is_opened_safely(engine: Engine) -> None:
    """Write-ahead log, foreign keys, full synchronisation and a long busy time hold on every connection."""
    with engine.connect() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 20_000}


def _sealed_ward(engine: Engine) -> SqlUnitOfWork:
    uow = SqlUnitOfWork(engine)
    Ward(uow).drafted()
    trail.seal_trail(uow)
    assert trail.verify_trail(uow).holds
    return uow


TAMPERINGS: dict[str, tuple[Callable[[], str], str]] = {
    "actor": (lambda: "UPDATE audit_events SET body = replace(body, 'RIS', 'SIR') WHERE seq = 3", "event-changed"),
    "report column": (lambda: "UPDATE audit_events SET report_id = 'elsewhere' WHERE seq = 3", "event-changed"),
    "tag column": (lambda: "UPDATE audit_events SET tag = 'reader:report:read' WHERE seq = 3", "event-changed"),
    "not json": (lambda: "UPDATE audit_events SET body = 'gone' WHERE seq = 3", "event-changed"),
    "event deleted": (lambda: "DELETE FROM audit_events WHERE seq = 3", "event-missing"),
    "link deleted": (lambda: "DELETE FROM audit_links WHERE position = 3", "link-missing"),
    "hash": (lambda: "UPDATE audit_links SET hash = previous WHERE position = 3", "event-changed"),
    "previous": (lambda: "UPDATE audit_links SET previous = hash WHERE position = 3", "previous-hash-differs"),
}


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_tampering_with_the_rows_is_found(engine: Engine, kind: str) -> None:
    """Whatever is changed in the tables behind our back, verification names the place and the reason."""
    uow = _sealed_ward(engine)
    statement, reason = TAMPERINGS[kind]
    with engine.begin() as connection:
        connection.execute(text(statement()))
    broken = trail.verify_trail(uow).first_break
    assert broken is not None
    assert (broken.position, broken.reason) == (3, reason)


def test_an_event_slipped_in_afterwards_is_seen_as_unsealed(engine: Engine) -> None:
    """A row that claims to be sealed but is in no link is counted as the unsealed tail."""
    uow = _sealed_ward(engine)
    with engine.begin() as connection:
        row = connection.execute(select(AUDIT_EVENTS).limit(1)).one()
        values = {"id": "forged", "tag": row.tag, "report_id": row.report_id, "body": row.body, "is_sealed": True}
        connection.execute(AUDIT_EVENTS.insert().values(values))
    found = trail.verify_trail(uow)
    assert (found.holds, found.unsealed) == (True, 1)


def test_an_event_cannot_be_sealed_twice(engine: Engine) -> None:
    """Marking sealed events as unsealed makes the sealer fail loudly instead of chaining them again."""
    uow = _sealed_ward(engine)
    with engine.begin() as connection:
        connection.execute(update(AUDIT_EVENTS).values(is_sealed=False))
        links = connection.execute(select(AUDIT_LINKS)).all()
    with pytest.raises(Race):
        trail.seal_trail(uow)
    with engine.connect() as connection:
        assert connection.execute(select(AUDIT_LINKS)).all() == links


def test_errors_of_the_database_carry_no_values(engine: Engine) -> None:
    """Unique and other violations become our errors, without statement, parameters or the row that they quote."""
    ward = Ward(SqlUnitOfWork(engine))
    ward.receive(order_command(reason="Testperson coughs"))
    with ward.uow as uow:
        order = uow.orders.by_placer("RIS", "P1")
        assert order is not None
        with pytest.raises(Race) as race:  # noqa: PT012 (an added row may reach the database late)
            uow.orders.add(order)
            uow.commit()
    assert race.value.__cause__ is None
    assert "Testperson" not in str(race.value)
    with engine.connect() as connection, pytest.raises(Fault) as fault:
        Statements(connection).run(update(ORDERS).values(assigner=None))
    assert "RIS" not in str(fault.value)
    assert fault.value.code == "database-refused"


def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    """A file that cannot be opened is an error that may pass, not a defect."""
    opened = open_database(f"sqlite:///{tmp_path}/sub/inlay.sqlite")
    (tmp_path / "sub").rmdir()
    with pytest.raises(Unavailable), SqlUnitOfWork(opened):
        pass
    opened.dispose()


def test_a_database_without_its_tables_says_what_to_run(tmp_path: Path) -> None:
    """An empty database, or one of an older version, is told apart from one that is away, with its remedy."""
    opened = open_database(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    with SqlUnitOfWork(opened) as uow, pytest.raises(Unavailable, match="inlay db upgrade") as empty:
        uow.switches.all()
    assert empty.value.code == "schema-differs"
    schema.upgrade(opened)
    with opened.begin() as connection:
        connection.execute(text("ALTER TABLE switches DROP COLUMN changed_by"))
    with SqlUnitOfWork(opened) as uow, pytest.raises(Unavailable, match="inlay db upgrade"):
        uow.switches.all()
    opened.dispose()


def test_a_read_only_unit_of_work_commits_no_change(engine: Engine) -> None:
    """What was opened for reading cannot store a change, even an audited one."""
    report = Ward(SqlUnitOfWork(engine)).order()
    reader = SqlUnitOfWork(engine, read_only=True)
    with pytest.raises(Fault) as refused:
        Ward(reader, prefix="r").receive(order_command("2"))
    assert refused.value.code == "read-only"
    with reader:
        assert reader.reports.get(report.id) == report


def test_readings_of_several_threads_wait_for_the_lock(engine: Engine) -> None:
    """A unit of work for one statement takes the write lock with it, and waits for it rather than fail."""
    ward = Ward(SqlUnitOfWork(engine))
    report = ward.drafted()
    standing = Standing.of(queries.read_report(ward.uow, EHR, report.id))

    def read(number: int) -> int:
        single = SqlUnitOfWork(engine, single=True)
        names = [f"{number}-{n}" for n in range(10)]
        events = [event_of(name, MONDAY, EHR, Tag.READER_REPORT_READ, (Kind.REPORT, report.id)) for name in names]
        return sum(len(queries.record_while(single, [(event, standing)])) for event in events)

    assert in_threads(read, 4) == [10] * 4
    assert trail.verify_trail(ward.uow).unsealed > 40
