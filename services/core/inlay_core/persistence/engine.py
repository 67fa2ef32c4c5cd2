"""Opening the database: SQLite with the settings that make it safe, PostgreSQL with repeatable reads."""

from __future__ import annotations

import math
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError

# Writers of SQLite queue for the lock; one transaction takes milliseconds, so this is hundreds of them.
_BUSY_MILLISECONDS: Final = 20_000
_BUSY_PAUSE_SECONDS: Final = 0.01

# To ask a connection whether it lives costs as much as to use it. Whoever meets one that died since gets Unavailable,
# as if it had died a moment later, and the pool drops its others.
_SURELY_ALIVE_SECONDS: Final = 1.0
_USED: Final = "inlay_used"
# A connection that does not come up in this time is of a server that is away; a session that holds its transaction
# open for so long belongs to a process that hangs, and what it has locked is given to others.
_CONNECT_SECONDS: Final = 5
_IDLE_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class DatabaseLimits:
    """PostgreSQL: connections kept per process; seconds to wait for one, for a statement, for a lock (0: for ever)."""

    pool: int = 10
    wait_seconds: float = 10.0
    statement_seconds: float = 30.0
    lock_seconds: float = 5.0


READ_ONLY: Final = "inlay_read_only"
"""Execution option of connections that only read: on SQLite they do not take the write lock."""


def open_database(url: str, limits: DatabaseLimits = DatabaseLimits()) -> Engine:
    """The engine for a URL (`sqlite:///...` or `postgresql+psycopg://...`). Parameters never appear in errors."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    # Repeatable reads turn every lost update into an error that the use case answers by running again.
    engine = create_engine(
        parsed,
        hide_parameters=True,
        isolation_level="REPEATABLE READ",
        pool_size=limits.pool,
        max_overflow=limits.pool,
        pool_timeout=limits.wait_seconds,
        connect_args={"connect_timeout": _CONNECT_SECONDS, "options": _session(parsed, limits)},
    )
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _look_whether_alive)
    return engine


def _note_use(_connection: Any, record: Any) -> None:
    record.info[_USED] = time.monotonic()


def _look_whether_alive(connection: Any, record: Any, _proxy: Any) -> None:
    """Ask a connection that lay idle whether it lives; the pool replaces the dead by a new one."""
    if time.monotonic() - record.info.get(_USED, -math.inf) < _SURELY_ALIVE_SECONDS:
        return
    try:
        before, connection.autocommit = connection.autocommit, True
        connection.execute("SELECT 1")
        connection.autocommit = before
    except psycopg.Error:
        raise DisconnectionError from None


def _session(url: URL, limits: DatabaseLimits) -> str:
    """What each session begins with, after what the URL itself asks for."""
    given = url.query.get("options", "")
    milliseconds = {
        "statement_timeout": limits.statement_seconds * 1000,
        "lock_timeout": limits.lock_seconds * 1000,
        "idle_in_transaction_session_timeout": _IDLE_SECONDS * 1000,
    }
    words = [given if isinstance(given, str) else " ".join(given)]
    words += [f"-c {name}={round(value)}" for name, value in milliseconds.items()]
    return " ".join(words).strip()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions by itself: _begin_sqlite chooses how they begin.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={_BUSY_MILLISECONDS}",
        "foreign_keys=ON",
        # An acknowledged order must survive a power failure; WAL alone would lose the last transactions.
        "synchronous=FULL",
    ):
        connection.execute(f"PRAGMA {pragma}")
    _write_ahead(connection)


def _write_ahead(connection: Any) -> None:
    # Of several that find a new file one changes it; SQLite has the others fail at once instead of waiting.
    until = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_BUSY_PAUSE_SECONDS)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # Deferred writers fail with "database is locked" as soon as two of them upgrade; immediate ones queue.
    reads = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
