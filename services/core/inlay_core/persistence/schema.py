"""The schema's version: bringing a database up to date, and saying where it stands. Migrations ship in the wheel."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from sqlalchemy import Engine, text

if TYPE_CHECKING:
    from alembic.config import Config

# Any constant will do; it only has to be the same in every process that upgrades.
_UPGRADE_LOCK = 0x1A7A_0001


def upgrade(engine: Engine) -> str:
    """Bring the schema to the newest revision and return it. Processes that start together wait for each other."""
    from alembic import command

    config = _config()
    if engine.dialect.name == "postgresql":
        # With repeatable reads whoever waited for the lock would still see the schema from before it.
        engine = engine.execution_options(isolation_level="READ COMMITTED")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
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


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("inlay_core.persistence") / "migrations"))
    return config
