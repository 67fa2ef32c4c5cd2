"""Opening the database: SQLite with the settings that make it safe, PostgreSQL with repeatable reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url

# Writers of SQLite queue for the lock; one transaction takes milliseconds, so this is hundreds of them.
_BUSY_MILLISECONDS: Final = 20_000

READ_ONLY: Final = "inlay_read_only"
"""Execution option of connections that only read: on SQLite they do not take the write lock."""


def open_database(url: str) -> Engine:
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
    return create_engine(
        parsed, hide_parameters=True, isolation_level="REPEATABLE READ", pool_pre_ping=True, pool_size=10
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions by itself: _begin_sqlite chooses how they begin.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_MILLISECONDS}",
        # An acknowledged order must survive a power failure; WAL alone would lose the last transactions.
        "synchronous=FULL",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # Deferred writers fail with "database is locked" as soon as two of them upgrade; immediate ones queue.
    reads = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
