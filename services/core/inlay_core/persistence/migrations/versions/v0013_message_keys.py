"""The key that a message's bytes are encrypted with; NULL: they are not."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("raw_key", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("messages", "raw_key")
