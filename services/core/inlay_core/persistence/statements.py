"""The one door to the driver: runs statements and turns its errors into ours, without the values they quote."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, CursorResult, Executable, Insert, Row, Select, Table, bindparam, func, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from inlay_core.domain.errors import DomainError, Fault, Race, Unavailable

# PostgreSQL: unique_violation, serialization_failure, deadlock_detected. Whoever gets one may simply run again.
_RACES: Final = frozenset({"23505", "40001", "40P01"})


@functools.cache
def _lookup(table: Table, columns: tuple[str, ...], order: tuple[str, ...]) -> Select[Any]:
    wanted = [table.c[name] == bindparam(name) for name in columns]
    return select(table).where(*wanted).order_by(*(table.c[name] for name in order))


@functools.cache
def _insert(table: Table) -> Insert:
    # inline: no key that the database makes is asked back.
    return insert(table).inline()


class Statements:
    """Statements of one transaction, and the audit duty: which aggregates it changed and which it recorded."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.changed: set[tuple[str, str]] = set()
        self.recorded: set[tuple[str, str]] = set()
        # Rows that nothing in this transaction reads: they go to the database together, before its commit.
        self._deferred: dict[Table, list[dict[str, Any]]] = {}

    @property
    def is_postgresql(self) -> bool:
        """Whether the database knows SKIP LOCKED."""
        return self._connection.dialect.name == "postgresql"

    def run(self, statement: Executable, parameters: dict[str, Any] | None = None) -> CursorResult[Any]:
        """Execute; raise Race, Unavailable or Fault."""
        try:
            return self._connection.execute(statement, parameters)
        except DBAPIError as error:
            raise translated(error) from None

    def insert(self, table: Table, values: dict[str, Any]) -> None:
        """Insert a row. The statement is built once per table: building it costs more than sending it."""
        try:
            self._connection.execute(_insert(table), values)
        except DBAPIError as error:
            raise translated(error) from None

    def defer(self, table: Table, values: dict[str, Any]) -> None:
        """Insert a row together with others of its table, in this order, before the commit."""
        self._deferred.setdefault(table, []).append(values)

    def flush(self) -> None:
        """Insert what was deferred; raise like `run`."""
        deferred, self._deferred = self._deferred, {}
        for table, rows in deferred.items():
            try:
                self._connection.execute(_insert(table), rows)
            except DBAPIError as error:
                raise translated(error) from None

    def forget(self) -> None:
        """Nothing is deferred, changed or recorded any more."""
        self._deferred.clear()
        self.changed.clear()
        self.recorded.clear()

    def one(self, statement: Executable) -> Row[Any] | None:
        """The first row, if there is one."""
        return self.run(statement).first()

    def all(self, statement: Executable) -> Sequence[Row[Any]]:
        """All rows."""
        return self.run(statement).all()

    def matching(self, table: Table, order: tuple[str, ...] = ("id",), **values: Any) -> Sequence[Row[Any]]:
        """The rows whose columns have these values, in that order. The statement is built once per set of columns."""
        return self.run(_lookup(table, tuple(values), order), values).all()

    def is_alone(self, name: int) -> bool:
        """Whether this transaction is the only one of this name; it remains so until its end.

        A writer of SQLite always is. On PostgreSQL this tries an advisory lock rather than wait for one: under
        repeatable reads the transaction that waited would go on with what it saw before.
        """
        if not self.is_postgresql:
            return True
        return bool(self.run(select(func.pg_try_advisory_xact_lock(name))).scalar_one())

    def must_change_one(self, statement: Executable) -> None:
        """Execute an update that has to find its row; raise Race when another transaction was first."""
        if self.run(statement).rowcount != 1:
            raise Race("lost-race", "Another transaction changed the record first.")


def translated(error: DBAPIError) -> DomainError:
    """Our error for the driver's. The driver's text quotes rows, so nothing of it is kept."""
    state = getattr(error.orig, "sqlstate", None)
    if state in _RACES or (isinstance(error, IntegrityError) and "UNIQUE constraint" in str(error.orig)):
        return Race("lost-race", "Another transaction was first.")
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return Unavailable("database-unavailable", "The database does not answer or is locked.")
    return Fault("database-refused", f"The database refused a statement ({type(error.orig).__name__}).")
