"""The canvases of a run whose result was taken in: to be played again, step by step."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "canvases",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_canvases_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_canvases")),
    )


def downgrade() -> None:
    op.drop_table("canvases")
