"""A clock that stands still, ids that count, people, and ready-made orders for tests of the core."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from inlay_core.application import drafting, intake
from inlay_core.application.ports import (
    DEFAULT_SITE,
    Action,
    Envelope,
    Generated,
    OrderCommand,
    PatientFields,
    Received,
    Site,
    UnitOfWork,
    Verdict,
)
from inlay_core.domain.identity import Actor, ActorKind, Role, system
from inlay_core.domain.patient import PersonName
from inlay_core.domain.report import Report

MONDAY = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)

RIS = Actor("ris-1", "RIS", frozenset({Role.RIS}), ActorKind.SYSTEM)
EHR = Actor("ehr-1", "EHR", frozenset({Role.EHR}), ActorKind.SYSTEM)
RADIOLOGIST = Actor("dr-1", "Dr. Ada Reader", frozenset({Role.RADIOLOGIST}))
COLLEAGUE = Actor("dr-2", "Dr. Ben Second", frozenset({Role.RADIOLOGIST}))
ADMIN = Actor("admin-1", "Admin", frozenset({Role.ADMIN}))
AUDITOR = Actor("auditor-1", "Auditor", frozenset({Role.AUDITOR}))
WORKER = system("worker")
RELAY = system("relay")

DRAFT = Generated(
    {"model": "test", "seed": 1},
    texts=(
        ("findings", "The heart is normal. No pleural effusion.\nNo pneumothorax. "),
        ("impression", "No acute findings."),
    ),
)


class StillClock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: datetime = MONDAY) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """The present moment."""
        return self.now

    def advance(self, seconds: float) -> datetime:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)
        return self.now


def counting_ids(prefix: str = "id") -> Callable[[], str]:
    """Ids that count: id-1, id-2, ..."""
    numbers = itertools.count(1)
    return lambda: f"{prefix}-{next(numbers)}"


def order_command(number: str = "1", **changes: Any) -> OrderCommand:
    """A new order of a made-up patient."""
    command = OrderCommand(
        Action.NEW,
        assigner="RIS",
        placer_number=f"P{number}",
        accession_number=f"A{number}",
        accession_assigner="RIS",
        study_instance_uid=f"1.2.826.0.1.{number}" if number.isdecimal() else None,
        patient=PatientFields(
            "HOSP", f"MRN{number}", name=PersonName("Testperson", "Tina"), birth_date=date(1970, 1, 2), sex="female"
        ),
        procedure_code="36643-5",
        procedure_system="LN",
        procedure_text="Chest X-ray",
        modality="DX",
        message_time=MONDAY,
    )
    return replace(command, **changes)


def envelope(control_id: str = "M1", raw: bytes | None = None, **changes: Any) -> Envelope:
    """A message as it arrived from the test RIS."""
    body = raw if raw is not None else b"MSH|" + control_id.encode()
    return replace(Envelope(body, "RIS", "HOSP", control_id, "ORM^O01", peer="127.0.0.1"), **changes)


def ack(verdict: Verdict) -> bytes:
    """An acknowledgement that says what the verdict was."""
    return f"{'AA' if verdict.accepted else 'AE'}|{verdict.message_id}|{' '.join(verdict.flags)}".encode()


class Ward:
    """A unit of work with clock, ids and site, and the steps that most tests start from."""

    def __init__(
        self, uow: UnitOfWork, clock: StillClock | None = None, site: Site = DEFAULT_SITE, prefix: str = "id"
    ) -> None:
        self.uow = uow
        self.clock = clock or StillClock()
        self.new_id = counting_ids(prefix)
        self.site = site

    @property
    def trio(self) -> tuple[UnitOfWork, StillClock, Callable[[], str]]:
        """The first three arguments of a use case."""
        return self.uow, self.clock, self.new_id

    def receive(self, *commands: OrderCommand, message: Envelope | None = None) -> Received:
        """Have the RIS send a message with these orders."""
        arrived = message or envelope(f"M-{self.new_id()}")
        return intake.receive_message(*self.trio, arrived, lambda: commands, acknowledge=ack, site=self.site)

    def order(self, number: str = "1", **changes: Any) -> Report:
        """A new order; return its report."""
        received = self.receive(order_command(number, **changes))
        with self.uow as uow:
            report = uow.reports.by_order(received.order_ids[0])
        assert report is not None
        return report

    def draft(self, generated: Generated = DRAFT, studied_at: datetime | None = None) -> Report:
        """Have the worker take the next job to its end; return the report. `studied_at` is what the images say."""
        claimed = drafting.claim_next(*self.trio, WORKER, site=self.site)
        assert claimed is not None
        fence = claimed.job.fence
        drafting.start_generation(*self.trio, WORKER, claimed.job.id, fence=fence, studied_at=studied_at)
        applied = drafting.apply_result(
            *self.trio, WORKER, claimed.job.id, fence=fence, generated=generated, site=self.site
        )
        assert applied.report is not None
        return applied.report

    def drafted(self, number: str = "1", **changes: Any) -> Report:
        """A new order with its draft."""
        self.order(number, **changes)
        return self.draft()

    def report(self, report_id: str) -> Report:
        """The newest version of a report."""
        with self.uow as uow:
            found = uow.reports.get(report_id)
        assert found is not None
        return found

    def tags(self, report_id: str) -> list[str]:
        """What the trail of a report says, in order."""
        with self.uow as uow:
            return [str(event.tag) for event in uow.audit.of_report(report_id)]
