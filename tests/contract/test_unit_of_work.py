"""The contract of the unit of work, on the fake and on SQLite; PostgreSQL runs it in tests/peers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inlay_core.application.ports import NewUnitOfWork
from inlay_core.persistence import schema
from inlay_core.persistence.engine import open_database
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_testkit.memory import Memory
from inlay_testkit.uow_contract import ConcurrencyContract, UnitOfWorkContract


class TestMemory(UnitOfWorkContract):
    """The fake that other tests build on."""

    @pytest.fixture
    def new_uow(self) -> NewUnitOfWork:
        """Units of work on a fresh memory."""
        return Memory()


class TestMemoryConcurrency(ConcurrencyContract):
    """The fake, from several threads."""

    @pytest.fixture
    def new_uow(self) -> NewUnitOfWork:
        """Units of work on a fresh memory."""
        return Memory()


@pytest.fixture
def sqlite_uow(tmp_path: Path) -> Iterator[NewUnitOfWork]:
    """Units of work on a fresh SQLite file with the migrated schema."""
    engine = open_database(f"sqlite:///{tmp_path / 'inlay.sqlite'}")
    schema.upgrade(engine)
    yield lambda: SqlUnitOfWork(engine)
    engine.dispose()


class TestSqlite(UnitOfWorkContract):
    """The embedded database."""

    @pytest.fixture
    def new_uow(self, sqlite_uow: NewUnitOfWork) -> NewUnitOfWork:
        """Units of work on a fresh file."""
        return sqlite_uow


class TestSqliteConcurrency(ConcurrencyContract):
    """The embedded database, from several threads with connections of their own."""

    @pytest.fixture
    def new_uow(self, sqlite_uow: NewUnitOfWork) -> NewUnitOfWork:
        """Units of work on a fresh file."""
        return sqlite_uow
