"""HL7 v2 in full: merged patients, steps of orders, prior reports, and the bytes of what was sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Columns that may be empty and have no constraints: SQLite adds them in place, without copying a table.
    op.add_column("patients", sa.Column("merged_into", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_patients_merged_into"), "patients", ["merged_into"], unique=False)
    op.add_column("orders", sa.Column("requested_procedure_id", sa.Text(), nullable=True))
    op.add_column("orders", sa.Column("steps", sa.Text(), nullable=True))
    op.add_column("outbox", sa.Column("message", sa.LargeBinary(), nullable=True))
    op.create_index("ix_outbox_state", "outbox", ["state", "seq"], unique=False)
    op.create_index("ix_messages_received_at", "messages", ["received_at", "id"], unique=False)
    op.create_table(
        "prior_reports",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.String(length=64), nullable=False),
        sa.Column("assigner", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=True),
        sa.Column("procedure_code", sa.Text(), nullable=True),
        sa.Column("procedure_system", sa.Text(), nullable=True),
        sa.Column("procedure_text", sa.Text(), nullable=True),
        sa.Column("modality", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("performed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sections", sa.Text(), nullable=False),
        sa.Column("message_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name=op.f("fk_prior_reports_patient_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prior_reports")),
        sa.UniqueConstraint("assigner", "number", name=op.f("uq_prior_reports_assigner_number")),
    )
    op.create_index(op.f("ix_prior_reports_patient_id"), "prior_reports", ["patient_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_prior_reports_patient_id"), table_name="prior_reports")
    op.drop_table("prior_reports")
    op.drop_index("ix_messages_received_at", table_name="messages")
    op.drop_index("ix_outbox_state", table_name="outbox")
    op.drop_column("outbox", "message")
    op.drop_column("orders", "steps")
    op.drop_column("orders", "requested_procedure_id")
    op.drop_index(op.f("ix_patients_merged_into"), table_name="patients")
    op.drop_column("patients", "merged_into")
