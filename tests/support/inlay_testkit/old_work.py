"""Years of finished work in a PostgreSQL within minutes: signed reports with orders, jobs, messages and their trail.

The rows are made in the database by `generate_series`, in the columns of the newest schema.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine, text

# Rows of a table at a time: progress is told between them.
_BATCH: Final = 100_000
# A patient has so many reports.
_REPORTS_PER_PATIENT: Final = 4
_WHEN: Final = "timestamptz '2026-03-01' - (CAST(:most AS integer) - n) * interval '1 minute'"
_NUMBERS: Final = "generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n"
_BODY: Final = (
    '{"sections":[{"name":"findings","fragments":[{"id":"f1","text":"No pleural effusion.","origin":"clinician",'
    '"locked":true,"warnings":[],"job_id":null}]}],"author":{"id":"dr-1","name":"Dr. Ada Reader","kind":"person"},'
    '"event":"sign","job_id":null,"reason":null,"signature":{"signer_id":"dr-1","signer_name":"Dr. Ada Reader",'
    '"signed_at":"2026-01-01T00:00:00+00:00","version":1}}'
)
# Columns and what they hold for the n-th report; tables in the order of their foreign keys.
_TABLES: Final[dict[str, dict[str, str]]] = {
    "patients": {
        "id": "'old-p' || n",
        "assigner": "'HOSP'",
        "identifier": "'OLD' || n",
        "version": "1",
        "updated_at": _WHEN,
    },
    "orders": {
        "id": "'old-o' || n",
        "assigner": "'RIS'",
        "placer_number": "'OLD' || n",
        "accession_number": "'OLDA' || n",
        "accession_assigner": "'RIS'",
        "study_instance_uid": "'2.25.9' || n",
        "patient_id": f"'old-p' || n / {_REPORTS_PER_PATIENT}",
        "modality": "'DX'",
        "priority": "n % 3",
        "status": "'scheduled'",
        "version": "1",
        "created_at": _WHEN,
        "updated_at": _WHEN,
    },
    "reports": {
        "id": "'old-r' || n",
        "order_id": "'old-o' || n",
        "version": "1",
        "status": "'signed'",
        "created_at": _WHEN,
        "updated_at": _WHEN,
        "signed_at": _WHEN,
    },
    "report_versions": {
        "report_id": "'old-r' || n",
        "version": "1",
        "status": "'signed'",
        "updated_at": _WHEN,
        "body": ":body",
    },
    "jobs": {
        "id": "'old-j' || n",
        "report_id": "'old-r' || n",
        "kind": "'draft'",
        "base_version": "1",
        "priority": "n % 3",
        "state": "'succeeded'",
        "request": "'{}'",
        "attempts": "1",
        "fence": "1",
        "cancel_requested": "false",
        "created_at": _WHEN,
        "started_at": _WHEN,
        "finished_at": _WHEN,
    },
    "messages": {
        "id": "'old-m' || n",
        "received_at": _WHEN,
        "peer": "''",
        "sending_application": "'RIS'",
        "sending_facility": "'HOSP'",
        "control_id": "'OLD' || n",
        "sha256": "md5(n::text)",
        "message_type": "'ORM^O01'",
        "declared_charset": "''",
        "used_charset": "'ascii'",
        "raw": "decode(repeat('41', 600), 'hex')",
        "ack": "'MSA'",
        "outcome": "'accepted'",
        "flags": "'[]'",
        "order_ids": "'[\"old-o' || n || '\"]'",
    },
    "outbox": {
        "id": "'old-i' || n",
        "destination": "CASE WHEN n % 2 = 0 THEN 'celery' ELSE 'oru' END",
        "key": "'old-r' || n",
        "payload": "'{}'",
        "control_id": "'OLD' || n",
        "state": "'delivered'",
        "attempts": "1",
        "created_at": _WHEN,
        "next_attempt_at": _WHEN,
        "delivered_at": _WHEN,
    },
    "audit_events": {
        "id": "'old-e' || n",
        "tag": "'worker:report:drafted'",
        "report_id": "'old-r' || n",
        "body": "'{}'",
        "is_sealed": "true",
    },
    "audit_links": {
        "position": "n + 1",
        "event_id": "'old-e' || n",
        "previous": "repeat('0', 64)",
        "hash": "repeat('0', 64)",
    },
}


def fill(engine: Engine, reports: int, say: Callable[[str], None] = lambda _: None) -> None:
    """So many signed reports, and everything that led to them; then VACUUM ANALYZE, as autovacuum would in time.

    The role must be a superuser: foreign keys are not looked up row by row.
    """
    for table, columns in _TABLES.items():
        rows = -(-reports // _REPORTS_PER_PATIENT) if table == "patients" else reports
        chosen = ", ".join(columns.values())
        statement = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {_NUMBERS}"  # noqa: S608 (our own names)
        for first in range(0, rows, _BATCH):
            last = min(first + _BATCH, rows) - 1
            given = {"first": first, "last": last, "most": reports, "body": _BODY}
            with engine.begin() as connection:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SET LOCAL session_replication_role = replica"))
                used = {name: value for name, value in given.items() if f":{name}" in statement}
                connection.execute(text(statement), used)
            say(f"{table} {last + 1:,}/{rows:,}")
    say("vacuum")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
