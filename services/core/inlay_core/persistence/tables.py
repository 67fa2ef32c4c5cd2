"""The tables. Unique keys, not checks, make creates idempotent; the migrations build exactly this.

Nothing refers to audit rows and they refer to nothing, so that no cascade can ever take them away.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from inlay_core.persistence.columns import JsonText, Moment

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID: Final = String(64)
# SQLite numbers rows by itself only where the type is spelled INTEGER.
_SEQUENCE: Final = BigInteger().with_variant(Integer(), "sqlite")

PATIENTS: Final = Table(
    "patients",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("assigner", Text, nullable=False),
    Column("identifier", Text, nullable=False),
    Column("name", JsonText),
    Column("birth_date", Date),
    Column("sex", Text),
    # The record that took this one's place (ADT^A40). No foreign key: SQLite would have to copy the table for one.
    Column("merged_into", _ID),
    Column("message_time", Moment),
    Column("version", Integer, nullable=False),
    Column("updated_at", Moment),
    UniqueConstraint("assigner", "identifier"),
    Index(None, "identifier"),
    Index(None, "merged_into"),
)

ORDERS: Final = Table(
    "orders",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("assigner", Text, nullable=False),
    Column("placer_number", Text),
    Column("filler_number", Text),
    Column("accession_number", Text),
    Column("accession_assigner", Text, nullable=False),
    Column("study_instance_uid", Text),
    Column("requested_procedure_id", Text),
    # Scheduled procedure steps of this accession, in the order of the message.
    Column("steps", JsonText),
    Column("patient_id", _ID, ForeignKey("patients.id"), nullable=False),
    Column("procedure_code", Text),
    Column("procedure_system", Text),
    Column("procedure_text", Text),
    Column("modality", Text),
    Column("reason", Text),
    Column("priority", Integer, nullable=False),
    Column("ordering_provider", JsonText),
    Column("scheduled_at", Moment),
    Column("studied_at", Moment),
    Column("priors", JsonText),
    Column("status", String(32), nullable=False),
    Column("message_time", Moment),
    Column("version", Integer, nullable=False),
    Column("created_at", Moment),
    Column("updated_at", Moment),
    UniqueConstraint("assigner", "placer_number"),
    UniqueConstraint("accession_assigner", "accession_number"),
    Index(None, "assigner", "filler_number"),
    Index(None, "accession_number"),
    Index(None, "study_instance_uid"),
    Index(None, "patient_id"),
)

PRIOR_REPORTS: Final = Table(
    "prior_reports",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("patient_id", _ID, ForeignKey("patients.id"), nullable=False),
    # Who numbers, and the number (filler number, else accession, else placer number): one row per prior report.
    Column("assigner", Text, nullable=False),
    Column("number", Text, nullable=False),
    Column("accession_number", Text),
    Column("procedure_code", Text),
    Column("procedure_system", Text),
    Column("procedure_text", Text),
    Column("modality", Text),
    Column("status", String(32), nullable=False),
    Column("performed_at", Moment),
    Column("reported_at", Moment),
    # [[code, title, text], ...]
    Column("sections", JsonText, nullable=False),
    Column("message_time", Moment),
    Column("version", Integer, nullable=False),
    Column("created_at", Moment),
    Column("updated_at", Moment),
    UniqueConstraint("assigner", "number"),
    Index(None, "patient_id"),
)

REPORTS: Final = Table(
    "reports",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("order_id", _ID, ForeignKey("orders.id"), nullable=False, unique=True),
    Column("version", Integer, nullable=False),
    Column("status", String(32), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("signed_at", Moment),
    Index(None, "status", "updated_at"),
    Index(None, "updated_at"),
)

REPORT_VERSIONS: Final = Table(
    "report_versions",
    METADATA,
    Column("report_id", _ID, ForeignKey("reports.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("status", String(32), nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("body", JsonText, nullable=False),
    # Figures are made of what was drafted in a span of time.
    Index("ix_report_versions_drafted", "status", "updated_at", "report_id"),
)

JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("report_id", _ID, ForeignKey("reports.id"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("base_version", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", String(32), nullable=False),
    Column("request", JsonText, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("lease_until", Moment),
    Column("not_before", Moment),
    Column("woken_at", Moment),
    Column("reason_code", Text),
    Column("reason_text", Text),
    Column("run_record", JsonText),
    Column("alternatives", JsonText),
    Column("cancel_requested", Boolean, nullable=False),
    Column("requested_by", Text),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    # W3C Trace Context; its length in version 00.
    Column("traceparent", String(55)),
    # The order in which jobs are claimed.
    Index("ix_jobs_claim", "state", "priority", "created_at"),
)

MESSAGES: Final = Table(
    "messages",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("received_at", Moment, nullable=False),
    Column("peer", Text, nullable=False),
    Column("sending_application", Text, nullable=False),
    Column("sending_facility", Text, nullable=False),
    Column("control_id", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("message_type", Text, nullable=False),
    Column("message_time", Moment),
    Column("declared_charset", Text, nullable=False),
    Column("used_charset", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    # The key that `raw` is encrypted with; NULL where it is not.
    Column("raw_key", String(64)),
    Column("ack", LargeBinary, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("error_category", String(16)),
    Column("error_code", Text),
    Column("error_place", Text),
    Column("flags", JsonText, nullable=False),
    Column("order_ids", JsonText, nullable=False),
    UniqueConstraint("sending_application", "sending_facility", "control_id", "sha256", name="uq_messages_key"),
    # Stored messages are gone through in the order of their arrival.
    Index("ix_messages_received_at", "received_at", "id"),
)

OUTBOX: Final = Table(
    "outbox",
    METADATA,
    # Rises in the order of writing, which is the order of delivery within a key.
    Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("id", _ID, nullable=False, unique=True),
    Column("destination", String(32), nullable=False),
    Column("key", _ID, nullable=False),
    Column("payload", JsonText, nullable=False),
    Column("control_id", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("next_attempt_at", Moment, nullable=False),
    Column("lease_until", Moment),
    Column("delivered_at", Moment),
    Column("last_error", Text),
    # The bytes of the first attempt: repetitions send the same ones.
    Column("message", LargeBinary),
    Column("traceparent", String(55)),
    Index("ix_outbox_due", "destination", "state", "next_attempt_at"),
    Index("ix_outbox_key", "destination", "key", "state", "seq"),
    Index("ix_outbox_state", "state", "seq"),
)

AUDIT_EVENTS: Final = Table(
    "audit_events",
    METADATA,
    Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("id", _ID, nullable=False, unique=True),
    Column("tag", String(64), nullable=False),
    Column("report_id", _ID, index=True),
    # The canonical JSON that is hashed; the columns beside it only find it.
    Column("body", Text, nullable=False),
    Column("is_sealed", Boolean, nullable=False, server_default=false()),
    Index("ix_audit_events_sealing", "is_sealed", "seq"),
)

AUDIT_LINKS: Final = Table(
    "audit_links",
    METADATA,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", _ID, nullable=False, unique=True),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

# The chain's head at a moment, signed (JWS): what is exported to show later that nothing was cut off or rewritten.
AUDIT_CHECKPOINTS: Final = Table(
    "audit_checkpoints",
    METADATA,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("is_cut", Boolean, primary_key=True),
    Column("made_at", Moment, nullable=False),
    Column("token", Text, nullable=False),
)

# How far each receiver of the trail has got along the chain.
AUDIT_CURSORS: Final = Table(
    "audit_cursors",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("lease_until", Moment),
)

PROGRESS: Final = Table(
    "progress",
    METADATA,
    Column("job_id", _ID, primary_key=True),
    # Milliseconds: 32 bits are too few.
    Column("sequence", BigInteger, nullable=False),
    Column("step", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("accepted", JsonText, nullable=False),
    Column("updated_at", Moment, nullable=False),
)

# What was shown while a job ran whose result was taken in. It stays as long as the run record of the job.
CANVASES: Final = Table(
    "canvases",
    METADATA,
    Column("job_id", _ID, ForeignKey("jobs.id"), primary_key=True),
    # Compressed JSON: one canvas is much like the next, and nobody asks for a single one.
    Column("body", LargeBinary, nullable=False),
)

SWITCHES: Final = Table(
    "switches",
    METADATA,
    # What it covers (application/switching.py), as text.
    Column("name", String(512), primary_key=True),
    Column("is_on", Boolean, nullable=False),
    Column("changed_at", Moment, nullable=False),
    Column("changed_by", Text, nullable=False),
)

# Assertions of clients that were redeemed: none is good twice (SMART Backend Services, jti).
ASSERTIONS: Final = Table(
    "assertions",
    METADATA,
    Column("issuer", String(255), primary_key=True),
    Column("jti", String(255), primary_key=True),
    Column("expires_at", Moment, nullable=False),
    Index(None, "expires_at"),
)

SUBSCRIPTIONS: Final = Table(
    "subscriptions",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("filters", JsonText, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("reason", Text),
    Column("ends_at", Moment),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    Index(None, "state"),
)

# People that are logged in with a browser. The id is the digest of what their cookie holds.
SESSIONS: Final = Table(
    "sessions",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("actor", JsonText, nullable=False),
    Column("csrf", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index(None, "expires_at"),
)

# Workers that say now and then that they are there, idle ones as well.
WORKERS: Final = Table(
    "workers",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("host", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_digest", Text, nullable=False),
    Column("adapters", JsonText, nullable=False),
    Column("device", Text, nullable=False),
    Column("jobs", Integer, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
)

READER_STUDIES: Final = Table(
    "reader_studies",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("arms", JsonText, nullable=False),
    # [{"label": ..., "report_id": ..., "drafts": [{section: [sentence, ...]}, ...one per arm]}, ...]
    Column("cases", JsonText, nullable=False),
    Column("seed", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("closed_at", Moment),
)

READER_GRADES: Final = Table(
    "reader_grades",
    METADATA,
    Column("study_id", _ID, ForeignKey("reader_studies.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("reader_id", String(255), primary_key=True),
    Column("body", JsonText, nullable=False),
    Column("graded_at", Moment, nullable=False),
)
