"""The contract of the unit of work on a real PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from inlay_core.application.ports import NewUnitOfWork
from inlay_core.persistence import schema
from inlay_core.persistence.engine import open_database
from inlay_core.persistence.tables import METADATA
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
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
