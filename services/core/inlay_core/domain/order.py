"""Orders: the request for an imaging procedure, and how newer messages change it. Older ones never overwrite."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from inlay_core.domain.patient import Patient, Provider


class Priority(StrEnum):
    """How urgent the order is; `rank` sorts, STAT first."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"

    @property
    def rank(self) -> int:
        """0 is served first."""
        return list(Priority).index(self)


class OrderStatus(StrEnum):
    """Where the imaging procedure stands, as the RIS tells it."""

    SCHEDULED = "scheduled"
    ON_HOLD = "on-hold"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DISCONTINUED = "discontinued"
    REPLACED = "replaced"

    @property
    def is_closed(self) -> bool:
        """The procedure will not take place (any more)."""
        return self in (OrderStatus.CANCELLED, OrderStatus.DISCONTINUED, OrderStatus.REPLACED)


@dataclass(frozen=True, slots=True)
class Procedure:
    """What is to be done: code, its system and its text."""

    code: str | None = None
    system: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class PriorStudy:
    """An earlier study of the patient, as an archive tells of it."""

    study_instance_uid: str
    studied_at: datetime
    description: str = ""
    modalities: tuple[str, ...] = ()
    accession_number: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """An order, identified by `assigner` + `placer_number`, and by `accession_assigner` + `accession_number`.

    `reason` is free text and counts as identifying. `message_time` is the time of the newest message applied.
    `studied_at` is when the study was made, as its images say; None until somebody has read one. `priors` are earlier
    studies of the patient, the newest first; None until an archive was asked.
    """

    id: str
    assigner: str
    patient: Patient
    placer_number: str | None = None
    filler_number: str | None = None
    accession_number: str | None = None
    accession_assigner: str = ""
    study_instance_uid: str | None = None
    requested_procedure_id: str | None = None
    # Scheduled procedure steps of the accession.
    steps: tuple[str, ...] = ()
    procedure: Procedure = Procedure()
    modality: str | None = None
    reason: str | None = None
    priority: Priority = Priority.ROUTINE
    ordering_provider: Provider | None = None
    scheduled_at: datetime | None = None
    studied_at: datetime | None = None
    priors: tuple[PriorStudy, ...] | None = None
    status: OrderStatus = OrderStatus.SCHEDULED
    message_time: datetime | None = None
    version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def is_older(self, message_time: datetime | None) -> bool:
        """Whether a message of that time is older than what this order already knows; unknown times are not."""
        return message_time is not None and self.message_time is not None and message_time < self.message_time
