"""The one door to the driver: runs statements and turns its errors into ours, without the values they quote."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Dialect,
    Executable,
    Insert,
    LargeBinary,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    func,
    insert,
    select,
    tuple_,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from inlay_core.application.ports import NO_DATABASE
from inlay_core.domain.errors import DomainError, Fault, Race, Unavailable
from inlay_core.persistence.tables import METADATA

# PostgreSQL: unique_violation, serialization_failure, deadlock_detected. Whoever gets one may simply run again.
_RACES: Final = frozenset({"23505", "40001", "40P01"})

# PostgreSQL: undefined_table, undefined_column; SQLite says so in words.
_NO_SUCH: Final = frozenset({"42P01", "42703"})
_NO_SUCH_WORDS: Final = ("no such table", "no such column", "has no column named")

# Tables in the order of their foreign keys.
_POSITIONS: Final = {table: position for position, table in enumerate(METADATA.sorted_tables)}


@dataclass(frozen=True, slots=True)
class LookUp:
    """The rows of a table whose `keys` have given values. Its statements are built once: that costs more than a run."""

    table: Table
    keys: tuple[str, ...]
    order: tuple[str, ...] = ("id",)
    # Empty: all columns.
    columns: tuple[str, ...] = ()

    def where(self, condition: ColumnElement[bool]) -> Select[Any]:
        """The statement for a condition on the keys."""
        wanted = [self.table.c[name] for name in (*self.keys, *self.columns)] if self.columns else [self.table]
        return select(*wanted).where(condition).order_by(*(self.table.c[name] for name in self.order))


@functools.cache
def _of_one(look_up: LookUp) -> Select[Any]:
    return look_up.where(and_(*(look_up.table.c[name] == bindparam(name) for name in look_up.keys)))


@functools.cache
def _of_several(look_up: LookUp) -> Select[Any]:
    columns = tuple_(*(look_up.table.c[name] for name in look_up.keys))
    return look_up.where(columns.in_(bindparam("sought", expanding=True)))


@functools.cache
def _insert(table: Table) -> Insert:
    # inline: no key that the database makes is asked back.
    return insert(table).inline()


@functools.cache
def _insert_of_rows(table: Table, names: tuple[str, ...], dialect: Dialect) -> tuple[str, _Binders]:
    """One statement for any number of rows, which come as one JSON text, and what binds each of the columns.

    As many statements as rows are parsed, sent and answered one by one, also where they travel together. The rows are
    inserted in their order: sequences rely on it.
    """
    types = [table.c[name].type.dialect_impl(dialect) for name in names]
    given = rows_of_json([(name, kind.compile(dialect)) for name, kind in zip(names, types, strict=True)])
    listed = ", ".join(names)
    text = f"INSERT INTO {table.name} ({listed}) SELECT {listed} FROM {given} ORDER BY place"  # noqa: S608
    return text, tuple((name, _binder(kind, dialect)) for name, kind in zip(names, types, strict=True))


def _binder(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any]:
    """What makes a value ready for JSON; bytes are, but for `_as_text`: the driver's wrapper is for parameters."""
    return _as_it_is if isinstance(kind, LargeBinary) else kind.bind_processor(dialect) or _as_it_is


_Binders = tuple[tuple[str, Callable[[Any], Any]], ...]


def rows_of_json(columns: Sequence[tuple[str, str]]) -> str:
    """`given`, in the FROM of PostgreSQL: rows with these columns (name, type), and their `place` in the one JSON."""
    typed = ", ".join(f"{name} {kind}" for name, kind in columns)
    listed = ", ".join(name for name, _ in columns)
    return f"ROWS FROM (json_to_recordset(%s::json) AS ({typed})) WITH ORDINALITY AS given ({listed}, place)"


def _as_it_is(value: Any) -> Any:
    return value


def _as_text(value: Any) -> str:
    """A moment, a date or bytes as PostgreSQL reads them."""
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value.isoformat())


class Statements:
    """Statements of one transaction, and the audit duty: which aggregates it changed and which it recorded.

    New rows wait until a statement could meet them, and go to the database together: what a transaction costs is
    how often it waits for the database, not how much it says.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.changed: set[tuple[str, str]] = set()
        self.recorded: set[tuple[str, str]] = set()
        self._waiting: dict[Table, list[dict[str, Any]]] = {}
        # What `foresee` fetched: rows by the values of their keys, also where there are none.
        self._foreseen: dict[LookUp, dict[tuple[str, ...], list[Row[Any]]]] = {}

    @property
    def is_postgresql(self) -> bool:
        """Whether the database knows SKIP LOCKED."""
        return self._connection.dialect.name == "postgresql"

    def run(self, statement: Executable, parameters: dict[str, Any] | None = None) -> CursorResult[Any]:
        """Execute; raise Race, Unavailable or Fault."""
        self.flush()
        # It may change rows that were fetched before.
        if not isinstance(statement, Select):
            self._foreseen.clear()
        return self._execute(statement, parameters)

    def insert(self, table: Table, values: dict[str, Any]) -> None:
        """Insert a row; it is in the database, or raises there, when the next statement could meet it."""
        self._waiting.setdefault(table, []).append(values)

    def flush(self) -> None:
        """Insert what waits, in its order, referred rows first; raise like `run`."""
        if self._waiting:
            with self._sending():
                self._send()

    def commit(self, *, single: bool = False) -> None:
        """Insert what waits and make everything permanent, in one trip; raise like `run`.

        `single`: what waits is one statement, which on PostgreSQL is all of the transaction.
        """
        try:
            with contextlib.nullcontext() if single or not self._waiting else self._sending():
                self._send()
                self._commit()
        except BaseException:
            self._end_transaction()
            raise
        self.forget()

    def _commit(self) -> None:
        try:
            self._connection.commit()
        except DBAPIError as error:
            raise translated(error) from None

    def _end_transaction(self) -> None:
        """Roll back what could not be committed: to SQLAlchemy a refused COMMIT is the end, also where a row was it."""
        if not self._connection.invalidated and not self._connection.closed:
            with contextlib.suppress(self._connection.dialect.loaded_dbapi.Error):
                self._connection.connection.rollback()

    @property
    def waiting(self) -> int:
        """How many statements wait to be sent."""
        return len(self._waiting)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for look_up, found in self._foreseen.items():
            for row in waiting.get(look_up.table, ()):
                found.pop(tuple(row[key] for key in look_up.keys), None)
        for table in sorted(waiting, key=_POSITIONS.__getitem__):
            self._insert(table, waiting[table])

    def with_rows(self, text: str, rows: Sequence[Mapping[str, Any]]) -> Sequence[Row[Any]]:
        """Run a statement of PostgreSQL that is `given` rows (`rows_of_json`)."""
        self.flush()
        self._foreseen.clear()
        return self._execute_given(text, rows).all()

    def _execute_given(self, text: str, rows: Sequence[Mapping[str, Any]]) -> CursorResult[Any]:
        try:
            return self._connection.exec_driver_sql(text, (json.dumps(rows, default=_as_text),))
        except DBAPIError as error:
            raise translated(error) from None

    def _insert(self, table: Table, rows: Sequence[dict[str, Any]]) -> None:
        if self.is_postgresql:
            text, binders = _insert_of_rows(table, tuple(rows[0]), self._connection.dialect)
            self._execute_given(text, [{name: bind(row[name]) for name, bind in binders} for row in rows])
        else:
            self._execute(_insert(table), rows)

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        """Statements inside give no rows; on PostgreSQL they are sent together and answered together."""
        if not self.is_postgresql:
            yield
            return
        driver: Any = self._connection.connection.driver_connection
        try:
            with driver.pipeline():
                yield
        except self._connection.dialect.loaded_dbapi.Error as error:
            raise _meaning(error) from None

    def _execute(self, statement: Executable, parameters: Any) -> CursorResult[Any]:
        try:
            return self._connection.execute(statement, parameters)
        except DBAPIError as error:
            raise translated(error) from None

    def forget(self) -> None:
        """Nothing waits, is foreseen, changed or recorded any more."""
        self._waiting.clear()
        self._foreseen.clear()
        self.changed.clear()
        self.recorded.clear()

    def one(self, statement: Executable) -> Row[Any] | None:
        """The first row, if there is one."""
        return self.run(statement).first()

    def all(self, statement: Executable) -> Sequence[Row[Any]]:
        """All rows."""
        return self.run(statement).all()

    def matching(self, look_up: LookUp, *values: str) -> Sequence[Row[Any]]:
        """The rows whose keys have these values; what was foreseen is not asked again."""
        if self._awaits(look_up, values):
            self.flush()
        foreseen = self._foreseen.get(look_up, {})
        if values in foreseen:
            return foreseen[values]
        return self._execute(_of_one(look_up), dict(zip(look_up.keys, values, strict=True))).all()

    def foresee(self, look_up: LookUp, sought: Iterable[tuple[str, ...]]) -> None:
        """Fetch the rows of several look-ups at once. The transaction sees one state, so nobody else changes them."""
        wanted = sorted(set(sought))
        if not wanted:
            return
        self.flush()
        found: dict[tuple[str, ...], list[Row[Any]]] = {values: [] for values in wanted}
        for row in self._execute(_of_several(look_up), {"sought": wanted}):
            found[tuple(getattr(row, name) for name in look_up.keys)].append(row)
        self._foreseen[look_up] = found

    def _awaits(self, look_up: LookUp, values: tuple[str, ...]) -> bool:
        """Whether a row that waits has these values."""
        wanted = list(zip(look_up.keys, values, strict=True))
        return any(all(row[key] == value for key, value in wanted) for row in self._waiting.get(look_up.table, ()))

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
    if error.connection_invalidated:
        return _unavailable()
    return _meaning(error.orig)


def _meaning(error: BaseException | None) -> DomainError:
    """Our error for one of sqlite3 or psycopg, which both name their classes as PEP 249 does."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if getattr(error, "sqlstate", None) in _RACES or ("IntegrityError" in kinds and "UNIQUE constraint" in str(error)):
        return Race("lost-race", "Another transaction was first.")
    if getattr(error, "sqlstate", None) in _NO_SUCH or (
        "OperationalError" in kinds and any(words in str(error) for words in _NO_SUCH_WORDS)
    ):
        return Unavailable("schema-differs", "The database has no schema of this version; run `inlay db upgrade`.")
    if "OperationalError" in kinds:
        return _unavailable()
    return Fault("database-refused", f"The database refused a statement ({type(error).__name__}).")


def _unavailable() -> Unavailable:
    return Unavailable(NO_DATABASE, "The database does not answer or is locked.")
