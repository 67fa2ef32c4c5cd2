"""A database as the first schema held it, filled by plain statements: what every later version must take over."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, text

from inlay_core.domain.audit import Kind, Tag, event_of, seal
from inlay_core.persistence import schema
from inlay_testkit.core import MONDAY, RADIOLOGIST

RAW = b"MSH|^~\\&|RIS|HOSP|||20260302080000||ORM^O01|C1|P|2.3.1\r"
TEXT = "No pleural effusion."


def fill_first_release(engine: Engine, *, reports: int = 3) -> None:
    """The schema 0001 with reports, one of them signed, their orders, patients, jobs, messages and a sealed trail."""
    schema.upgrade(engine, "0001")
    with engine.begin() as connection:
        for number in range(reports):
            _report(connection, number)
        _trail(connection, reports)


def _report(connection: Connection, number: int) -> None:
    now = datetime(2026, 3, 2, 8, number, tzinfo=UTC)
    # SQLite keeps no zone.
    moment = now if connection.dialect.name == "postgresql" else now.replace(tzinfo=None).isoformat(" ", "microseconds")
    _insert(
        connection,
        "patients",
        id=f"p{number}",
        assigner="HOSP",
        identifier=f"MRN{number}",
        name='{"family":"Testperson","given":"Tina","middle":"","prefix":"","suffix":""}',
        version=1,
        updated_at=moment,
    )
    _insert(
        connection,
        "orders",
        id=f"o{number}",
        assigner="RIS",
        placer_number=f"P{number}",
        accession_number=f"A{number}",
        accession_assigner="RIS",
        study_instance_uid=f"1.2.{number}",
        patient_id=f"p{number}",
        modality="DX",
        priority=1,
        status="scheduled",
        version=1,
        created_at=moment,
        updated_at=moment,
    )
    status = "signed" if number == 0 else "registered"
    _insert(
        connection,
        "reports",
        id=f"r{number}",
        order_id=f"o{number}",
        version=1,
        status=status,
        created_at=moment,
        updated_at=moment,
        signed_at=moment if number == 0 else None,
    )
    fragment = {"id": "f1", "text": TEXT, "origin": "clinician", "locked": True, "warnings": [], "job_id": None}
    signature = {"signer_id": "dr-1", "signer_name": "Dr. Ada Reader", "signed_at": now.isoformat(), "version": 1}
    body = {
        "sections": [{"name": "findings", "fragments": [fragment]}],
        "author": {"id": "ris-1", "name": "RIS", "kind": "system"},
        "event": None,
        "job_id": None,
        "reason": None,
        "signature": signature if number == 0 else None,
    }
    _insert(
        connection,
        "report_versions",
        report_id=f"r{number}",
        version=1,
        status=status,
        updated_at=moment,
        body=json.dumps(body),
    )
    _insert(
        connection,
        "jobs",
        id=f"j{number}",
        report_id=f"r{number}",
        kind="draft",
        base_version=1,
        priority=1,
        state="queued",
        request="{}",
        attempts=0,
        fence=0,
        cancel_requested=False,
        created_at=moment,
    )
    _insert(
        connection,
        "messages",
        id=f"m{number}",
        received_at=moment,
        peer="127.0.0.1",
        sending_application="RIS",
        sending_facility="HOSP",
        control_id=f"C{number}",
        sha256="0" * 64,
        message_type="ORM^O01",
        declared_charset="",
        used_charset="ascii",
        raw=RAW,
        ack=b"MSA|AA",
        outcome="accepted",
        flags="[]",
        order_ids=f'["o{number}"]',
    )


def _trail(connection: Connection, reports: int) -> None:
    events = [
        event_of(f"e{n}", MONDAY, RADIOLOGIST, Tag.INTAKE_REPORT_REGISTERED, (Kind.REPORT, f"r{n}"), report_id=f"r{n}")
        for n in range(reports)
    ]
    for event in events:
        _insert(
            connection,
            "audit_events",
            id=event.id,
            tag=str(event.tag),
            report_id=event.report_id,
            body=event.canonical(),
            is_sealed=True,
        )
    for link in seal((event.id, event.canonical()) for event in events):
        _insert(
            connection,
            "audit_links",
            position=link.position,
            event_id=link.event_id,
            previous=link.previous,
            hash=link.hash,
        )


def _insert(connection: Connection, table: str, **values: object) -> None:
    columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({places})"), values)  # noqa: S608 (our own names)
