"""The one door to the driver: runs statements and turns its errors into ours, without the values they quote."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Dialect,
    Executable,
    Insert,
    LargeBinary,
    Result,
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
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
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

    @property
    def wanted(self) -> Sequence[str]:
        """The names of the columns that are asked for."""
        return (*self.keys, *self.columns) if self.columns else self.table.c.keys()

    def where(self, condition: ColumnElement[bool]) -> Select[Any]:
        """The statement for a condition on the keys."""
        wanted, order = ([self.table.c[name] for name in names] for names in (self.wanted, self.order))
        return select(*wanted).where(condition).order_by(*order)


@functools.cache
def _of_one(look_up: LookUp) -> Select[Any]:
    return look_up.where(and_(*(look_up.table.c[name] == bindparam(name) for name in look_up.keys)))


@functools.cache
def _of_several(look_up: LookUp) -> Select[Any]:
    columns = tuple_(*(look_up.table.c[name] for name in look_up.keys))
    return look_up.where(columns.in_(bindparam("sought", expanding=True)))


@functools.cache
def _of_each(look_up: LookUp, dialect: Dialect) -> tuple[str, _Readers]:
    """`_of_several` of PostgreSQL, one array per key, and what reads each column of an answer.

    For each of the arrays' rows it looks into the index. Told of several at once, a planner that has no statistics yet
    reads the whole table, or all rows of the sender, and keeps that plan while the table grows. A subquery with OFFSET
    is never made part of a join.
    """
    arrays = ", ".join(f"%({name})s::text[]" for name in look_up.keys)
    fits = " AND ".join(f"{look_up.table.name}.{name} = given.{name}" for name in look_up.keys)
    wanted, order = (", ".join(f"found.{name}" for name in names) for names in (look_up.wanted, look_up.order))
    text = f"""
        SELECT {wanted} FROM unnest({arrays}) AS given ({", ".join(look_up.keys)})
        JOIN LATERAL (SELECT * FROM {look_up.table.name} WHERE {fits} OFFSET 0) AS found ON true
        ORDER BY {order}
    """  # noqa: S608 (no word of it comes from outside)
    types = (look_up.table.c[name].type.dialect_impl(dialect) for name in look_up.wanted)
    return text, tuple(kind.result_processor(dialect, None) or _as_it_is for kind in types)


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


_Readers = tuple[Callable[[Any], Any], ...]
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
        """On PostgreSQL, statements inside are sent together and answered together; only the driver sees their rows."""
        if not self.is_postgresql:
            yield
            return
        driver: Any = self._connection.connection.driver_connection
        try:
            with driver.pipeline():
                yield
        except self._connection.dialect.loaded_dbapi.Error as error:
            if driver.closed and not self._connection.invalidated:
                # SQLAlchemy was not there, and would want to roll back on a connection that is lost.
                self._connection.invalidate(error)
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

    def foresee(self, sought: Mapping[LookUp, Iterable[tuple[str, ...]]]) -> None:
        """Fetch the rows of several look-ups at once. The transaction sees one state, so nobody else changes them."""
        wanted = {look_up: sorted(set(keys)) for look_up, keys in sought.items()}
        wanted = {look_up: keys for look_up, keys in wanted.items() if keys}
        self.flush()
        for (look_up, keys), rows in zip(wanted.items(), self._of_all(wanted), strict=True):
            found: dict[tuple[str, ...], list[Row[Any]]] = {values: [] for values in keys}
            for row in rows:
                found[tuple(getattr(row, name) for name in look_up.keys)].append(row)
            self._foreseen[look_up] = found

    def _of_all(self, wanted: Mapping[LookUp, Sequence[tuple[str, ...]]]) -> list[Sequence[Row[Any]]]:
        """The rows of each look-up; on PostgreSQL all are asked in one trip, the beginning of the transaction too."""
        if not self.is_postgresql:
            return [self._execute(_of_several(each), {"sought": keys}).all() for each, keys in wanted.items()]
        driver: Any = self._connection.connection.driver_connection
        asked = [(look_up, *_of_each(look_up, self._connection.dialect), keys) for look_up, keys in wanted.items()]
        with self._sending():
            cursors = [driver.execute(text, _arrays(look_up, keys)) for look_up, text, _, keys in asked]
        return [_rows(look_up, readers, each) for (look_up, _, readers, _), each in zip(asked, cursors, strict=True)]

    def _awaits(self, look_up: LookUp, values: tuple[str, ...]) -> bool:
        """Whether a row that waits has these values."""
        wanted = values if len(values) > 1 else values[0]
        return wanted in map(itemgetter(*look_up.keys), self._waiting.get(look_up.table, ()))

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


def _arrays(look_up: LookUp, keys: Sequence[tuple[str, ...]]) -> dict[str, list[str]]:
    """The values of each key."""
    return dict(zip(look_up.keys, map(list, zip(*keys, strict=True)), strict=True))


def _rows(look_up: LookUp, readers: _Readers, given: Iterable[tuple[Any, ...]]) -> Sequence[Row[Any]]:
    """What the driver gave as rows of SQLAlchemy, which knows nothing of what goes out in a pipeline."""
    read = ([reader(value) for reader, value in zip(readers, row, strict=True)] for row in given)
    result: Result[Any] = IteratorResult(SimpleResultMetaData(look_up.wanted), read)
    return result.all()


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
