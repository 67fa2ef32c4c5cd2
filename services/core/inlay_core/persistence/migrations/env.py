"""Runs migrations on the connection that schema.py hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from inlay_core.persistence.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite can change little in place; batch mode copies the table where needed.
    render_as_batch=True,
    # The caller's transaction holds the lock that keeps two upgrades apart; it must span all steps.
    transactional_ddl=True,
)
context.run_migrations()
