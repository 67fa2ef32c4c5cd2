"""What oversight needs: drafts by time, and studies in which readers grade pairs of drafts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_report_versions_drafted", "report_versions", ["status", "updated_at", "report_id"])
    op.create_table(
        "reader_studies",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("arms", sa.Text(), nullable=False),
        sa.Column("cases", sa.Text(), nullable=False),
        sa.Column("seed", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reader_studies")),
        sa.UniqueConstraint("name", name=op.f("uq_reader_studies_name")),
    )
    op.create_table(
        "reader_grades",
        sa.Column("study_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("reader_id", sa.String(length=255), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("graded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["reader_studies.id"], name=op.f("fk_reader_grades_study_id_reader_studies")
        ),
        sa.PrimaryKeyConstraint("study_id", "number", "reader_id", name=op.f("pk_reader_grades")),
    )


def downgrade() -> None:
    op.drop_table("reader_grades")
    op.drop_table("reader_studies")
    op.drop_index("ix_report_versions_drafted", table_name="report_versions")
