"""The contract of the unit of work on a real PostgreSQL."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from inlay_core.application import intake, queries
from inlay_core.application.ports import NO_DATABASE, Arrival, NewUnitOfWork, OrderCommand, Received, Sought
from inlay_core.domain.audit import Kind, Tag, event_of
from inlay_core.domain.errors import Fault, Unavailable
from inlay_core.persistence import schema
from inlay_core.persistence.engine import open_database
from inlay_core.persistence.tables import METADATA
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_testkit.core import EHR, MONDAY, Ward, ack, envelope, order_command
from inlay_testkit.retention_contract import RetentionContract
from inlay_testkit.uow_contract import ConcurrencyContract, UnitOfWorkContract, in_threads

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def engine(postgres_server_url: str) -> Iterator[Engine]:
    """A migrated database on INLAY_TEST_POSTGRES_URL, or else on a server of our own."""
    opened = open_database(os.environ.get("INLAY_TEST_POSTGRES_URL") or postgres_server_url)
    schema.upgrade(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def postgres_uow(engine: Engine) -> NewUnitOfWork:
    """Units of work on emptied tables."""
    with engine.begin() as connection:
        names = ", ".join(table.name for table in METADATA.sorted_tables)
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
    return lambda: SqlUnitOfWork(engine)


class TestPostgresql(UnitOfWorkContract):
    """The database of a hospital."""

    @pytest.fixture
    def new_uow(self, postgres_uow: NewUnitOfWork) -> NewUnitOfWork:
        """Units of work on emptied tables."""
        return postgres_uow


class TestPostgresqlConcurrency(ConcurrencyContract):
    """The database of a hospital, from several connections at once."""

    @pytest.fixture
    def new_uow(self, postgres_uow: NewUnitOfWork) -> NewUnitOfWork:
        """Units of work on emptied tables."""
        return postgres_uow


class TestPostgresqlRetention(RetentionContract):
    """Letting go on the database of a hospital."""

    @pytest.fixture
    def new_uow(self, postgres_uow: NewUnitOfWork) -> NewUnitOfWork:
        """Units of work on emptied tables."""
        return postgres_uow

    @pytest.fixture
    def tamper(self, engine: Engine) -> Callable[[], None]:
        """Change an event behind its back."""

        def change() -> None:
            with engine.begin() as connection:
                statement = "UPDATE audit_events SET body = replace(body, 'success', 'refused') WHERE seq = 1"
                connection.execute(text(statement))

        return change


def test_the_migrated_schema_is_the_one_of_the_tables(engine: Engine) -> None:
    """On PostgreSQL, too, migrations and tables agree in every column, key and index."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_processes_that_upgrade_together_do_not_disturb_each_other(postgres_url: str) -> None:
    """Several pods that start on an empty database leave it with one schema."""

    def upgrade(_number: int) -> str:
        opened = open_database(postgres_url)
        try:
            return schema.upgrade(opened)
        finally:
            opened.dispose()

    assert set(in_threads(upgrade, 3)) == {schema.newest()}


def test_a_connection_that_died_while_it_lay_idle_is_replaced(
    postgres_uow: NewUnitOfWork, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the database was away, whoever comes next meets no dead connection."""
    monkeypatch.setattr("inlay_core.persistence.engine._SURELY_ALIVE_SECONDS", 0.0)
    with postgres_uow() as uow:
        assert uow.reports.get("x") is None
    end_sessions(engine)
    with postgres_uow() as uow:
        assert uow.reports.get("x") is None
    # The other dead ones are not for the tests after this, which may come before a connection is asked.
    engine.dispose()


def test_a_connection_that_died_a_moment_ago_is_no_trouble_of_the_next(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is looked up on it is unavailable, whoever sent it is told so, and the next group gets a living one."""
    # However long the moment takes here, it is one in which nobody asks whether the connection lives.
    monkeypatch.setattr("inlay_core.persistence.engine._SURELY_ALIVE_SECONDS", math.inf)
    engine = open_database(postgres_url)
    schema.upgrade(engine)
    new_uow = partial(SqlUnitOfWork, engine)
    sought = Sought(messages=[("RIS", "HOSP", "M1")], placers=[("RIS", "P1")])
    with new_uow() as uow:
        uow.foresee(sought)
    end_sessions(engine)
    with new_uow() as uow, pytest.raises(Unavailable) as unavailable:
        uow.foresee(sought)
    assert unavailable.value.code == NO_DATABASE
    with new_uow() as uow:
        uow.foresee(sought)
        assert uow.orders.by_placer("RIS", "P1") is None
    engine.dispose()


def end_sessions(engine: Engine) -> None:
    """End everybody else's connection to this database, and wait until they have ended."""
    killer = open_database(engine.url.render_as_string(hide_password=False))
    with killer.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    killer.dispose()


def test_intake_reads_no_more_of_a_table_the_more_it_holds(postgres_url: str) -> None:
    """Before the database has statistics, too, a group of messages is looked for in the index: nothing else is read."""
    engine = open_database(postgres_url)
    schema.upgrade(engine)
    ward, groups, size = Ward(SqlUnitOfWork(engine)), 40, 8
    for group in range(groups):
        numbers = [f"{group}x{number}" for number in range(size)]
        arrivals = [Arrival(envelope(f"M{n}"), partial(_one_order, n), ack) for n in numbers]
        assert all(isinstance(each, Received) for each in intake.receive_messages(*ward.trio, arrivals))
    # A session tells what it read at the latest when it ends.
    engine.dispose()
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) AS read FROM pg_stat_user_tables")
        )
        read = {row.relname: row.read for row in rows}
    engine.dispose()
    assert read["messages"] == 0
    # The foreign key of each order asks for its patient, and nothing else does.
    assert read["patients"] <= groups * size


def _one_order(number: str) -> Sequence[OrderCommand]:
    return (order_command(number),)


def test_one_statement_is_a_transaction_by_itself(engine: Engine, postgres_uow: NewUnitOfWork) -> None:
    """A unit of work for one statement commits it at once, and refuses to be used for several."""
    ward = Ward(postgres_uow())
    report = ward.drafted()
    single = SqlUnitOfWork(engine, single=True)
    event = event_of("once", MONDAY, EHR, Tag.READER_REPORT_READ, (Kind.REPORT, report.id), report_id=report.id)
    queries.record_accesses(single, [event])
    assert ward.tags(report.id)[-1] == Tag.READER_REPORT_READ
    with single as uow:
        uow.audit.record(replace(event, id="twice"))
        uow.assertions.add("issuer", "jti", MONDAY)
        with pytest.raises(Fault, match="one statement"):
            uow.commit()
    with postgres_uow() as uow:
        assert uow.audit.get("twice") is None
