"""The schema's version: bringing a database up to date, and saying where it stands. Migrations ship in the wheel."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from alembic.config import Config

# Any constant will do; it only has to be the same in every process that upgrades.
_UPGRADE_LOCK = 0x1A7A_0001


# PostgreSQL: deadlock_detected. A migration locks table after table, as do the processes that work meanwhile, in an
# order of their own; the one that is ended has changed nothing. Each time somebody else goes on, so a handful will do.
_DEADLOCK = "40P01"
_ATTEMPTS = 8


def upgrade(engine: Engine, revision: str = "head") -> str:
    """Bring the schema to a revision and return the newest. Processes that start together wait for each other."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return _upgraded(engine, revision)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _DEADLOCK:
                raise
    return _upgraded(engine, revision)


def _upgraded(engine: Engine, revision: str) -> str:
    from alembic import command

    config = _config()
    if engine.dialect.name == "postgresql":
        # With repeatable reads whoever waited for the lock would still see the schema from before it.
        engine = engine.execution_options(isolation_level="READ COMMITTED")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # Who upgrades together waits for the first; a migration takes its time, but gives up rather than wait for
            # a table: everybody who came after it would wait behind it.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            patience = connection.execute(text("SHOW lock_timeout")).scalar_one()
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            connection.execute(text("SELECT set_config('lock_timeout', :patience, true)"), {"patience": patience})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return newest()


def current(engine: Engine) -> str | None:
    """The revision of the database; None when it has no schema yet."""
    from alembic.migration import MigrationContext

    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest() -> str:
    """The newest revision that this code knows."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def revisions() -> list[str]:
    """Every revision that this code knows, the first one first."""
    from alembic.script import ScriptDirectory

    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("inlay_core.persistence") / "migrations"))
    return config
