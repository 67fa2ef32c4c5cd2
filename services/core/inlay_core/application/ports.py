"""What the use cases need from outside, as protocols, and the plain values that cross them.

Adapters live elsewhere (persistence, gateway, integrations); fakes for tests fit the same contract tests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from enum import Enum, StrEnum
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Protocol, Self

from inlay_core.domain.audit import AuditEvent, Checkpoint, Link, Verification
from inlay_core.domain.errors import DomainError
from inlay_core.domain.fragment import SECTION_NAMES
from inlay_core.domain.infill import Choice, Dispute, Fill, LockDigest, ResolvedSection
from inlay_core.domain.job import Job, JobKind, JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.matching import PatientCheck
from inlay_core.domain.order import Order, OrderStatus, Priority
from inlay_core.domain.patient import Patient, PersonName, Provider
from inlay_core.domain.prior import Comparison, PriorReport, PriorSection, PriorStatus
from inlay_core.domain.reader_study import Grade, ReaderStudy
from inlay_core.domain.report import Author, Report
from inlay_core.domain.session import Session
from inlay_core.domain.subscription import Subscription
from inlay_core.domain.switch import Allowance

# ---------------------------------------------------------------------------------------------- site


@dataclass(frozen=True, slots=True)
class GenerationPolicy:
    """Which intended uses a site has switched on. The row `generation` in the database can stop both at once."""

    stopped: bool = False
    draft: bool = True
    infill: bool = True
    imported_text_allowed: bool = False

    def kinds(self) -> frozenset[JobKind]:
        """The kinds of job that may run."""
        if self.stopped:
            return frozenset()
        return frozenset(k for k, on in ((JobKind.DRAFT, self.draft), (JobKind.INFILL, self.infill)) if on)


class Told(StrEnum):
    """What a version tells other systems: the words that results are filtered by."""

    DRAFT = "draft"
    SIGNED = "signed"
    CORRECTED = "corrected"
    CANCELLED = "cancelled"
    WITHDRAWN = "withdrawn"


TOLD: Final[Mapping[Status, Told]] = MappingProxyType(
    {
        Status.DRAFTED: Told.DRAFT,
        Status.IN_REVIEW: Told.DRAFT,
        Status.SIGNED: Told.SIGNED,
        Status.AMENDED: Told.CORRECTED,
        Status.CORRECTED: Told.CORRECTED,
        Status.APPENDED: Told.CORRECTED,
        Status.CANCELLED: Told.CANCELLED,
        Status.ENTERED_IN_ERROR: Told.WITHDRAWN,
    }
)
"""What each status tells; of other statuses nobody is told."""

ORU_PREFIX: Final = "oru:"
"""Destinations of results are `oru` (the one target of the settings) and `oru:NAME` (those of the targets file)."""


ACK_PREFIX: Final = "ack:"
"""Destinations of application acknowledgements that have a connection of their own are `ack:NAME`, by target."""


@dataclass(frozen=True, slots=True)
class ResultFilter:
    """Which versions a destination gets. None does not restrict; a site is who assigned the order's numbers (MSH-4)."""

    destination: str
    statuses: frozenset[Told] | None = None
    sites: frozenset[str] | None = None
    modalities: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """The target's name in its file; empty for the one of the settings."""
        return self.destination.removeprefix(ORU_PREFIX) if self.destination.startswith(ORU_PREFIX) else ""

    def takes(self, report: Report, order: Order) -> bool:
        """Whether this version goes there."""
        return (
            (self.statuses is None or TOLD.get(report.status) in self.statuses)
            and (self.sites is None or bool(self.sites & {order.assigner, order.accession_assigner}))
            and (self.modalities is None or order.modality in self.modalities)
        )


@dataclass(frozen=True, slots=True)
class Site:
    """The choices of a site that use cases obey; built from the settings."""

    generation: GenerationPolicy = GenerationPolicy()
    # Destinations that get each publishable version of a report ("oru", later others).
    destinations: tuple[str, ...] = ()
    # Destinations that get some of them.
    results: tuple[ResultFilter, ...] = ()
    # How far an image must not contradict the order's patient.
    patient_check: PatientCheck = PatientCheck.PERSON
    # That of dates which people read.
    zone: tzinfo = UTC
    # Names of all sections in the order in which reports have them.
    section_order: tuple[str, ...] = SECTION_NAMES
    lease_seconds: float = 60.0
    max_attempts: int = 5
    # Delivery to other systems is tried for about two days with the back-off of publishing.py.
    max_deliveries: int = 60
    # Per priority: further orders are refused with Unavailable when that many draft jobs are open. 0 is no limit.
    max_open_jobs: int = 0


DEFAULT_SITE: Final = Site()
"""What a site that has chosen nothing obeys."""


# ---------------------------------------------------------------------------------------------- intake


class Delete(Enum):
    """HL7's `""`: the sender deletes the value. None means: the sender leaves it unchanged."""

    DELETE = "delete"


DELETE = Delete.DELETE
Deleted = Literal[Delete.DELETE]


class Action(StrEnum):
    """What an order message asks for (ORC-1): NW, CA, DC, RP, XO, SC."""

    NEW = "new"
    CANCEL = "cancel"
    DISCONTINUE = "discontinue"
    REPLACE = "replace"
    CHANGE = "change"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class PatientFields:
    """The patient as a message names them; `assigner` and `identifier` find the record."""

    assigner: str
    identifier: str
    name: PersonName | Deleted | None = None
    birth_date: date | Deleted | None = None
    sex: str | Deleted | None = None


@dataclass(frozen=True, slots=True)
class OrderCommand:
    """One order group of a message. None leaves a value unchanged, DELETE deletes it.

    `order_status` is the status that ORC-1 and ORC-5 say together; `message_time` is ORC-9, else MSH-7, in UTC;
    `place` names the group (`ORC[1]`) for errors.
    """

    action: Action
    assigner: str
    placer_number: str | None = None
    filler_number: str | Deleted | None = None
    accession_number: str | Deleted | None = None
    accession_assigner: str = ""
    requested_procedure_id: str | Deleted | None = None
    # Scheduled procedure steps; None leaves them unchanged.
    steps: tuple[str, ...] | None = None
    study_instance_uid: str | Deleted | None = None
    patient: PatientFields | None = None
    procedure_code: str | Deleted | None = None
    procedure_system: str | Deleted | None = None
    procedure_text: str | Deleted | None = None
    modality: str | Deleted | None = None
    reason: str | Deleted | None = None
    priority: Priority | Deleted | None = None
    ordering_provider: Provider | Deleted | None = None
    scheduled_at: datetime | Deleted | None = None
    order_status: OrderStatus | None = None
    message_time: datetime | None = None
    place: str = "ORC"


@dataclass(frozen=True, slots=True)
class OrderCondition:
    """What a conditional create looks for: any of the (assigner, number) pairs, or the study."""

    identifiers: tuple[tuple[str | None, str], ...] = ()
    study_instance_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of one order that was placed by itself: the order, and whether it (or its study) is new."""

    order: Order
    created: bool


@dataclass(frozen=True, slots=True)
class PatientUpdate:
    """What is known of a patient has changed (ADT^A08, A31). Patients without an order here are left alone."""

    patient: PatientFields
    message_time: datetime | None = None
    place: str = "PID"


@dataclass(frozen=True, slots=True)
class PatientMerge:
    """Two records are one person (ADT^A40): `patient` stays, the record of `assigner` and `identifier` goes."""

    patient: PatientFields
    assigner: str
    identifier: str
    message_time: datetime | None = None
    place: str = "MRG"


@dataclass(frozen=True, slots=True)
class PriorCommand:
    """A report that another system made (ORU^R01); the newest message about a number counts."""

    assigner: str
    number: str
    patient: PatientFields
    status: PriorStatus
    sections: tuple[PriorSection, ...] = ()
    accession_number: str | None = None
    procedure_code: str | None = None
    procedure_system: str | None = None
    procedure_text: str | None = None
    modality: str | None = None
    performed_at: datetime | None = None
    reported_at: datetime | None = None
    message_time: datetime | None = None
    place: str = "OBR"


Command = OrderCommand | PatientUpdate | PatientMerge | PriorCommand
"""Whatever a message can ask for."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as it arrived. `peer` names the channel, not a person; missing header fields are empty strings."""

    raw: bytes
    sending_application: str
    sending_facility: str
    control_id: str
    message_type: str = ""
    declared_charset: str = ""
    used_charset: str = ""
    message_time: datetime | None = None
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a message, for the builder of its acknowledgement. `error` is None when it was accepted."""

    message_id: str
    error: DomainError | None = None
    flags: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether its orders are on disk."""
        return self.error is None


Interpret = Callable[[], Sequence[Command]]
"""Parses the message that came in the envelope; raises Invalid, naming segment and field, when it is malformed."""

Acknowledge = Callable[[Verdict], bytes]
"""Builds the acknowledgement's bytes; called once per stored message, before the commit, sent after it."""


@dataclass(frozen=True, slots=True)
class Later:
    """An answer that goes out by the outbox: to whom, and its bytes by verdict and control id; None says nothing."""

    destination: str
    acknowledge: Callable[[Verdict, str], bytes | None]


class MessageOutcome(StrEnum):
    """What became of a stored message."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message at rest, its raw bytes and its acknowledgement included."""

    id: str
    received_at: datetime
    envelope: Envelope
    sha256: str
    outcome: MessageOutcome
    ack: bytes
    error_category: str | None = None
    error_code: str | None = None
    error_place: str | None = None
    flags: tuple[str, ...] = ()
    order_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that came in, what reads it before the transaction, and what builds its answer.

    `later` is a second answer, on a connection of its own; `traceparent` the trace that the message began.
    """

    envelope: Envelope
    interpret: Interpret
    acknowledge: Acknowledge
    later: Later | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """The answer to a message: bytes that may be sent, because the transaction is committed."""

    ack: bytes
    accepted: bool
    repeated: bool
    message_id: str
    order_ids: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------- generation


@dataclass(frozen=True, slots=True)
class ImageWanted:
    """What to look for: the study, or the accession number when the order carries no study."""

    study_instance_uid: str | None
    accession_number: str | None
    modality: str | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that this worker holds under `job.fence`. `sections` is set for infill: strings and gaps in order."""

    job: Job
    images: ImageWanted
    sections: tuple[ResolvedSection, ...] = ()
    # The order's free text, only where the site lets it reach the model.
    reason: str | None = None
    # What a draft is compared with, the newest first, only where the site lets imported text reach the model.
    comparisons: tuple[Comparison, ...] = ()
    # Who assigned the order's number. It chooses an adapter and does not reach the model.
    site: str = ""


@dataclass(frozen=True, slots=True)
class Generated:
    """What the model made. Drafts have `texts` (section, text); infills have `fills`, `disputes` and `alternatives`.

    `canvases` is what was shown meanwhile.
    """

    run_record: Mapping[str, Any]
    texts: tuple[tuple[str, str], ...] = ()
    fills: tuple[Fill, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    alternatives: tuple[Choice, ...] = ()
    canvases: tuple[StepProgress, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a result: the job's final state, and for an applied one the new version and the lock digests."""

    job: Job
    report: Report | None = None
    digests: tuple[LockDigest, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job whose images are missing, and what to look for."""

    job: Job
    images: ImageWanted


@dataclass(frozen=True, slots=True)
class Pulse:
    """The answer to a heartbeat: whether to stop between two denoising steps, and why."""

    stop: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One denoising step of a job. `accepted` are character spans of `text`; `sequence` rises."""

    job_id: str
    step: int
    steps: int
    text: str
    accepted: tuple[tuple[int, int], ...] = ()
    sequence: int = 0


class Progress(Protocol):
    """Canvases for those who watch. Losing one loses nothing: the database has the result."""

    def publish(self, job_id: str, step: int, steps: int, text: str, accepted: Sequence[tuple[int, int]] = ()) -> None:
        """Show one step; may drop it (throttled), never raises for a missing watcher."""
        ...

    def follow(self, job_id: str, after: int = 0) -> Iterator[StepProgress | None]:
        """Yield steps with a sequence above `after` as they come, and None when for a while nothing came.

        It never ends by itself: the caller looks at the job on None and stops.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of a study, as its source finds it again.

    `view` is how the patient was seen, as far as drafting cares: frontal, lateral, other, or empty where nobody said.
    """

    source: str
    locator: str
    study_instance_uid: str
    sop_instance_uid: str
    modality: str | None = None
    view_position: str | None = None
    view: str = ""


class ImageSource(Protocol):
    """Where studies come from: a folder, a PACS."""

    def find(self, study_instance_uid: str | None, accession_number: str | None) -> list[ImageRef]:
        """The images of the study, frontal view first; empty while it has not arrived."""
        ...

    def load(self, ref: ImageRef) -> bytes:
        """The DICOM file (part 10) of one image. Raises Unavailable when the source is away, NotFound when gone."""
        ...


class Wakeup(Protocol):
    """The broker, which is a hint only: losing a wake-up delays a job until the sweeper repeats it."""

    def wake(self, job_ids: Sequence[str]) -> None:
        """Tell workers that jobs are queued. Raises Unavailable when the broker is away."""
        ...

    def waiting(self) -> int:
        """How many wake-ups no worker has taken yet. Raises Unavailable when the broker is away."""
        ...


# ---------------------------------------------------------------------------------------------- outbox


class Destination(StrEnum):
    """Where outbox items go."""

    CELERY = "celery"
    ORU = "oru"
    DICOM = "dicom"
    SUBSCRIPTION = "subscription"
    FHIR = "fhir"


class Delivery(StrEnum):
    """Where an outbox item stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """Something to tell another system, written in the transaction of its cause. Items of one key keep their order.

    `payload` holds ids and numbers only. `control_id` (MSH-10) is the same at every attempt.
    """

    id: str
    destination: str
    key: str
    payload: Mapping[str, Any]
    created_at: datetime
    next_attempt_at: datetime
    control_id: str
    state: Delivery = Delivery.PENDING
    attempts: int = 0
    lease_until: datetime | None = None
    last_error: str | None = None
    delivered_at: datetime | None = None
    # What the first attempt sent: repetitions send the same bytes.
    message: bytes | None = None
    # The trace that it belongs to (W3C Trace Context).
    traceparent: str | None = None


# ---------------------------------------------------------------------------------------------- queries


@dataclass(frozen=True, slots=True)
class TimeBound:
    """A bound on a time: `op` is one of eq, ne, gt, ge, lt, le; the period is [start, end)."""

    op: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class ReportSearch:
    """What to look for; empty fields do not restrict, several values of one field are alternatives."""

    ids: tuple[str, ...] = ()
    order_ids: tuple[str, ...] = ()
    patient_ids: tuple[str, ...] = ()
    # (assigner or None for any, identifier)
    patient_identifiers: tuple[tuple[str | None, str], ...] = ()
    accessions: tuple[tuple[str | None, str], ...] = ()
    # None does not restrict; an empty tuple matches nothing.
    statuses: tuple[Status, ...] | None = None
    study_instance_uids: tuple[str, ...] = ()
    # (coding system as the order states it, or None for any; code, empty for orders without one)
    procedures: tuple[tuple[str | None, str], ...] = ()
    last_updated: tuple[TimeBound, ...] = ()
    signed: tuple[TimeBound, ...] = ()
    # When the study took place, or is to take place while its images have not said so.
    studied: tuple[TimeBound, ...] = ()


class Sort(StrEnum):
    """The order of results: `worklist` is STAT first, then age; `newest` and `oldest` are by last change.

    The others are by the study's time and by the time of sign-off; reports without one come last.
    """

    WORKLIST = "worklist"
    NEWEST = "newest"
    OLDEST = "oldest"
    STUDIED_FIRST = "studied-first"
    STUDIED_LAST = "studied-last"
    SIGNED_FIRST = "signed-first"
    SIGNED_LAST = "signed-last"


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A report with the order that it answers."""

    report: Report
    order: Order

    @property
    def is_settled(self) -> bool:
        """Whether order and patient have not changed since this version was made.

        They are shown with the report and have versions of their own. While they are as they were then, whoever has
        seen this version has seen them as they are; later its number alone proves nothing.
        """
        moments = (self.order.updated_at, self.order.patient.updated_at)
        return all(moment is not None and moment <= self.report.updated_at for moment in moments)


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest version of a report, with the versions of what is shown with it.

    While it is the same, so is what a reader is shown: the jobs that wrote a version's words ended with it.
    """

    report_id: str
    version: int
    order_version: int
    patient_id: str
    patient_version: int

    @classmethod
    def of(cls, row: ReportRow) -> Standing:
        """How the report stands in `row`."""
        order = row.order
        return cls(row.report.id, row.report.version, order.version, order.patient.id, order.patient.version)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of results and how many there are in all."""

    rows: tuple[ReportRow, ...]
    total: int
    offset: int
    limit: int


@dataclass(frozen=True, slots=True)
class Attendance:
    """What a worklist tells besides its page: how many reports stand where, and who has opened those of the page."""

    counts: Mapping[Status, int]
    openers: Mapping[str, Author]


@dataclass(frozen=True, slots=True)
class QueueCount:
    """How many jobs of a kind and priority are in a state, and when the oldest of them was asked for."""

    kind: JobKind
    state: JobState
    priority: Priority
    number: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class SenderCount:
    """What came from a sending application lately: messages, refused ones, the last of each, and its error's code."""

    application: str
    facility: str
    number: int
    refused: int
    last_at: datetime
    last_refused_at: datetime | None = None
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class DestinationCount:
    """What goes to a destination: what waits (and since when), what was parked, what came through last."""

    destination: str
    pending: int
    dead: int
    oldest_pending: datetime | None = None
    last_delivered: datetime | None = None
    # The code of the newest item that is not delivered and has failed at least once.
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker as it last told of itself. `adapters` are names of folders; `jobs` is how many it does at the moment."""

    id: str
    host: str
    model: str
    model_digest: str
    adapters: tuple[str, ...]
    device: str
    jobs: int
    started_at: datetime
    seen_at: datetime


# ---------------------------------------------------------------------------------------------- repositories


class Patients(Protocol):
    """Patients by identity."""

    def add(self, patient: Patient) -> None:
        """Store a new patient; Race when the identity is taken."""
        ...

    def save(self, patient: Patient) -> None:
        """Store the next version; Race when `patient.version` is not the stored one plus one."""
        ...

    def get(self, patient_id: str) -> Patient | None:
        """The patient with that id."""
        ...

    def find(self, assigner: str | None, identifier: str) -> Sequence[Patient]:
        """The patients with that identifier, of one assigner or of any."""
        ...

    def merged_into(self, patient_id: str) -> Sequence[Patient]:
        """The records that this one took the place of."""
        ...


class Orders(Protocol):
    """Orders by identity."""

    def add(self, order: Order) -> None:
        """Store a new order (its patient is stored already); Race when an identity is taken."""
        ...

    def save(self, order: Order) -> None:
        """Store the next version; Race when `order.version` is not the stored one plus one."""
        ...

    def get(self, order_id: str) -> Order | None:
        """The order with that id."""
        ...

    def by_placer(self, assigner: str, placer_number: str) -> Order | None:
        """The order with that placer order number."""
        ...

    def by_filler(self, assigner: str, filler_number: str) -> Order | None:
        """The order with that filler order number."""
        ...

    def by_accession(self, assigner: str | None, accession_number: str) -> Sequence[Order]:
        """The orders with that accession number, of one assigner or of any."""
        ...

    def by_study(self, study_instance_uid: str) -> Sequence[Order]:
        """The orders of that study."""
        ...

    def with_identifier(self, assigner: str | None, number: str) -> Sequence[Order]:
        """The orders with that placer, filler or accession number, of one assigner or of any."""
        ...

    def of_patient(self, patient_id: str) -> Sequence[Order]:
        """The orders of that patient, the oldest first."""
        ...

    def by_ids(self, order_ids: Sequence[str]) -> Mapping[str, Order]:
        """Those orders by their id; unknown ones are left out."""
        ...


class Priors(Protocol):
    """Reports of other systems."""

    def add(self, prior: PriorReport) -> None:
        """Store a new one (its patient is stored already); Race when the number is taken."""
        ...

    def save(self, prior: PriorReport) -> None:
        """Store the next version; Race when `prior.version` is not the stored one plus one."""
        ...

    def find(self, assigner: str, number: str) -> PriorReport | None:
        """The report with that number."""
        ...

    def of_patients(self, patient_ids: Sequence[str], limit: int = 200) -> Sequence[PriorReport]:
        """The reports of these patient records, the newest study first."""
        ...


class Reports(Protocol):
    """Reports, every version kept."""

    def add(self, report: Report) -> None:
        """Store version 1; Race when the order has a report already."""
        ...

    def save(self, report: Report) -> None:
        """Store the next version; Race when `report.version` is not the stored one plus one."""
        ...

    def get(self, report_id: str) -> Report | None:
        """The newest version."""
        ...

    def by_order(self, order_id: str) -> Report | None:
        """The newest version of the order's report."""
        ...

    def version(self, report_id: str, version: int) -> Report | None:
        """One version, as it was."""
        ...

    def versions(self, report_id: str) -> Sequence[Report]:
        """All versions, the first one first."""
        ...

    def search(self, search: ReportSearch, sort: Sort, offset: int, limit: int) -> Page:
        """One page of the newest versions that fit."""
        ...

    def history(self, since: datetime | None, offset: int, limit: int) -> Page:
        """One page of all versions of all reports, the newest first, none older than `since`."""
        ...

    def counts(self, at_most: int) -> Mapping[Status, int]:
        """How many reports stand where, `at_most` for that many or more; a status without any may be missing."""
        ...

    def openers(self, report_ids: Sequence[str]) -> Mapping[str, Author]:
        """Report id -> who made its first version in review, for those that have one."""
        ...

    def drafted(
        self, since: datetime, until: datetime, limit: int, after: tuple[datetime, str] | None = None
    ) -> Sequence[tuple[datetime, str]]:
        """(time, report) of drafts that came in [since, until), oldest first, after an earlier batch's last one."""
        ...

    def versions_of(self, report_ids: Sequence[str]) -> Mapping[str, Sequence[Report]]:
        """All versions of each of these reports, the first one first."""
        ...


class Jobs(Protocol):
    """Jobs, claimed by lease and fence."""

    def add(self, job: Job) -> None:
        """Store a new job."""
        ...

    def save(self, job: Job, *, fence: int) -> None:
        """Store the job; Race when the stored fence is not `fence`."""
        ...

    def get(self, job_id: str) -> Job | None:
        """The job with that id."""
        ...

    def of_report(self, report_id: str) -> Sequence[Job]:
        """All jobs of the report, the oldest first."""
        ...

    def with_model(self, digest_prefix: str) -> Job | None:
        """Any job whose run record names a model digest (lower-case hex) that begins so."""
        ...

    def claim(
        self, now: datetime, lease_until: datetime, allowed: Allowance, held_reports: Sequence[str] = ()
    ) -> Job | None:
        """Take the best queued job that is allowed: STAT first, then reports whose study the worker holds, then age.

        The allowance is one for a writer: its stops name no model.

        It becomes running with fence and attempts one higher. No two callers get the same job.
        """
        ...

    def renew(self, job_id: str, fence: int, lease_until: datetime) -> Job:
        """Extend the lease; Stale when the fence moved."""
        ...

    def in_state(self, state: JobState, limit: int, after: tuple[datetime, str] | None = None) -> Sequence[Job]:
        """Jobs in a state, oldest first, after the (created_at, id) of an earlier batch's last one."""
        ...

    def expired(self, now: datetime, limit: int) -> Sequence[Job]:
        """Running jobs whose lease is over."""
        ...

    def unwoken(self, woken_before: datetime, now: datetime, allowed: Allowance, limit: int) -> Sequence[Job]:
        """Queued jobs that are allowed, due, and whose last wake-up (or creation) is older than that."""
        ...

    def woken(self, job_ids: Sequence[str], now: datetime) -> None:
        """Remember when jobs were announced last; it changes nothing else and needs no audit event."""
        ...

    def count(self, states: Iterable[JobState]) -> Mapping[tuple[JobState, Priority], int]:
        """How many jobs there are, by state and priority."""
        ...

    def census(self, failed_since: datetime) -> Sequence[QueueCount]:
        """Open jobs, and those that failed since then, by kind, state and priority (most urgent first)."""
        ...

    def of_reports(self, report_ids: Sequence[str]) -> Sequence[Job]:
        """All jobs of these reports, the oldest first."""

    def ahead(self, job: Job, now: datetime) -> int:
        """How many queued jobs that are due come before this one by priority and age.

        What a worker holds and which jobs it may take is not looked at: that is known when it claims.
        """
        ...

    def queued_since(self) -> Mapping[Priority, datetime]:
        """When the oldest of the queued jobs was asked for, by priority."""
        ...


class Messages(Protocol):
    """Inbound messages, kept with their acknowledgement."""

    def add(self, message: StoredMessage) -> None:
        """Store it; Race when (application, facility, control id, sha256) is taken."""
        ...

    def replace(self, message: StoredMessage) -> None:
        """Store another outcome for a message that is here already (its id stays)."""
        ...

    def find(self, application: str, facility: str, control_id: str, sha256: str) -> StoredMessage | None:
        """The message with that idempotency key."""
        ...

    def digests(self, application: str, facility: str, control_id: str) -> Sequence[str]:
        """The SHA-256 of each message of that sender that has that control id."""
        ...

    def get(self, message_id: str) -> StoredMessage | None:
        """The message with that id."""
        ...

    def reencrypt(self, after: str, limit: int) -> tuple[int, str] | None:
        """Encrypt messages with a greater id that are not under the current key; how many, and the last id.

        None where there are none. Raises Invalid without keys, Unavailable for a message whose key is missing.
        """
        ...

    def received(
        self,
        *,
        outcome: MessageOutcome | None = None,
        since: datetime | None = None,
        application: str | None = None,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> Sequence[StoredMessage]:
        """Messages in the order of their arrival, after the (received_at, id) of an earlier batch's last one."""
        ...

    def senders(self, since: datetime) -> Sequence[SenderCount]:
        """Who has sent messages since then, by application and facility."""
        ...


class Outbox(Protocol):
    """What other systems are still to be told."""

    def add(self, item: OutboxItem) -> None:
        """Store a new item."""
        ...

    def claim(self, destination: str, now: datetime, lease_until: datetime, limit: int) -> Sequence[OutboxItem]:
        """Lease due items, at most the oldest pending one of each key; attempts rise by one."""
        ...

    def save(self, item: OutboxItem) -> None:
        """Store what became of an item."""
        ...

    def get(self, item_id: str) -> OutboxItem | None:
        """The item with that id."""
        ...

    def count(self, states: Collection[Delivery] = tuple(Delivery)) -> Mapping[tuple[str, Delivery], int]:
        """How many items there are in these states, by destination and state."""
        ...

    def census(self, newest: int) -> Sequence[DestinationCount]:
        """Every destination that was ever told something, by name.

        Its last delivery is looked for among the `newest` delivered items that were due last.
        """
        ...

    def pending_since(self) -> Mapping[str, datetime]:
        """When the oldest of the items that are still to be told was written, by destination."""
        ...

    def in_state(self, state: Delivery, limit: int, offset: int = 0) -> Sequence[OutboxItem]:
        """Items for other systems (not wake-ups) in a state, the oldest first."""
        ...

    def after(self, item: OutboxItem) -> Sequence[OutboxItem]:
        """Later items of the same destination and key, the oldest first."""
        ...


class AuditTrail(Protocol):
    """The trail. Events are recorded in the transaction of their change, and chained after it by the sealer."""

    def record(self, event: AuditEvent) -> None:
        """Store the event; it is committed with its change or not at all."""
        ...

    def record_while(self, readings: Sequence[tuple[AuditEvent, Standing]]) -> frozenset[str]:
        """Store those events whose report stands like that, in one statement; return their ids."""
        ...

    def of_report(self, report_id: str, offset: int = 0, limit: int = 1000) -> Sequence[AuditEvent]:
        """The events of one report, the oldest first."""
        ...

    def get(self, event_id: str) -> AuditEvent | None:
        """The event with that id."""
        ...

    def seal(self, limit: int = 1000) -> int:
        """Chain up to `limit` recorded events; return how many: 0 also while another sealer is at work."""
        ...

    def verify(self, checkpoints: Collection[Checkpoint] = ()) -> Verification:
        """Walk the chain from its last cut; the answer names the first break and counts the unsealed tail."""
        ...

    def links(self, after: int = 0) -> Iterator[tuple[Link, str | None]]:
        """Every link after that position, in order, with the canonical JSON of its event (None when it is gone)."""
        ...

    def head(self) -> Link | None:
        """The last link."""
        ...

    def keep(self, checkpoint: Checkpoint, token: str) -> None:
        """Store a checkpoint in its signed form; Race when its position has one."""
        ...

    def checkpoints(self) -> Sequence[str]:
        """The stored checkpoints in their signed form, the oldest first."""
        ...

    def claim_cursor(self, name: str, now: datetime, lease_until: datetime) -> int | None:
        """How far the receiver of that name has got, and the right to go on; None while another has it."""
        ...

    def move_cursor(self, name: str, position: int, lease_until: datetime) -> None:
        """Say how far the receiver has got, and end the lease; Race when it is no longer that one."""
        ...

    def unsealed(self) -> Iterator[AuditEvent]:
        """Recorded events that are not chained yet."""
        ...


class Aged(StrEnum):
    """Rows that a site may let go after a time."""

    MESSAGES = "messages"
    JOBS = "jobs"
    PROGRESS = "progress"
    OUTBOX = "outbox"


@dataclass(frozen=True, slots=True)
class Old:
    """A row that is older than the site keeps its kind. `order_ids` are the orders that a message was about."""

    id: str
    at: datetime
    order_ids: tuple[str, ...] = ()


class Retention(Protocol):
    """Letting go of what is older than the site keeps it."""

    def old(self, kind: Aged, before: datetime, after: tuple[datetime, str] | None, limit: int) -> Sequence[Old]:
        """Rows from before that moment, oldest first, after the (at, id) of an earlier batch's last one.

        Messages: received then. Jobs: finished then without a run record, of reports that are closed. Progress: last
        written then, of jobs that have ended. Outbox: delivered then.
        """
        ...

    def remove(self, kind: Aged, ids: Sequence[str]) -> None:
        """Delete these rows."""
        ...

    def open_orders(self, order_ids: Iterable[str]) -> frozenset[str]:
        """Those of the orders whose report nobody has answered for yet."""
        ...

    def open_studies(self) -> Sequence[tuple[str | None, str | None]]:
        """(StudyInstanceUID, accession number) of each order whose report nobody has answered for yet."""
        ...

    def trail_needed_from(self) -> int | None:
        """The first position of the chain that an open report or a receiver of the trail still needs."""
        ...

    def remove_links(self, up_to: int, limit: int) -> int:
        """Delete the first links, none after that position, with their events; return how many."""
        ...


class Notary(Protocol):
    """Signs checkpoints of the trail, and knows those that a trusted key signed."""

    def sign(self, checkpoint: Checkpoint) -> str:
        """The checkpoint in its signed form."""
        ...

    def read(self, token: str) -> Checkpoint:
        """The checkpoint of a signed form; Invalid when no trusted key signed it."""
        ...


class ProgressRows(Protocol):
    """The newest canvas of each job, for the embedded progress adapter, and all canvases of those that succeeded."""

    def put(self, progress: StepProgress, now: datetime) -> None:
        """Store the newest canvas of the job."""
        ...

    def keep(self, job_id: str, canvases: Sequence[StepProgress]) -> None:
        """Keep what was shown of a run, once per job."""
        ...

    def kept(self, job_id: str) -> Sequence[StepProgress]:
        """What was shown of the job's run, in its order; empty where nothing was kept."""
        ...

    def get(self, job_id: str) -> StepProgress | None:
        """The newest canvas of the job."""
        ...


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch that an administrator set: on means that what its name covers (`domain.switch.Scope`) is stopped."""

    name: str
    on: bool
    changed_at: datetime
    changed_by: str


class Subscriptions(Protocol):
    """Who wants to be told of reports."""

    def add(self, subscription: Subscription) -> None:
        """Store a new one."""
        ...

    def save(self, subscription: Subscription) -> None:
        """Store the next version, but for the count of events; Race when it is not the stored one plus one."""
        ...

    def get(self, subscription_id: str) -> Subscription | None:
        """The one with that id."""
        ...

    def active(self) -> Sequence[Subscription]:
        """Those that are to be told, the oldest first."""
        ...

    def count_event(self, subscription_id: str) -> int:
        """Count one more event and return its number; it changes nothing else and needs no audit event."""
        ...


class Assertions(Protocol):
    """Assertions of clients that were redeemed."""

    def is_used(self, issuer: str, jti: str) -> bool:
        """Whether the issuer's assertion of that name was redeemed."""
        ...

    def add(self, issuer: str, jti: str, expires_at: datetime) -> None:
        """Note it; Race when another was first."""
        ...

    def forget(self, before: datetime) -> None:
        """Drop those that expired before: they are refused for their age."""
        ...


class Switches(Protocol):
    """Switches that hold for every process of the site at once."""

    def get(self, name: str) -> Switch | None:
        """The switch of that name, if it was ever set."""
        ...

    def all(self) -> Sequence[Switch]:
        """Every switch that was ever set, by name."""
        ...

    def save(self, switch: Switch) -> None:
        """Set the switch."""
        ...


class Sessions(Protocol):
    """People that are logged in with a browser."""

    def add(self, session: Session) -> None:
        """Store a new one."""
        ...

    def get(self, session_id: str) -> Session | None:
        """The one with that id."""
        ...

    def seen(self, session_id: str, now: datetime) -> None:
        """The person did something; it changes nothing else and needs no audit event."""
        ...

    def remove(self, session_id: str) -> None:
        """End it, if it is there."""
        ...

    def forget(self, before: datetime) -> None:
        """Drop those that are over since before then."""
        ...


class Workers(Protocol):
    """Workers that say now and then that they are there. Losing a row loses nothing, and none needs an audit event."""

    def put(self, worker: WorkerSeen) -> None:
        """Store what a worker tells of itself."""
        ...

    def all(self) -> Sequence[WorkerSeen]:
        """All of them, the longest running first."""
        ...

    def remove(self, worker_id: str) -> None:
        """It has ended."""
        ...

    def forget(self, before: datetime) -> None:
        """Drop those that were not seen since then."""
        ...


class ReaderStudies(Protocol):
    """Reader studies and what readers said."""

    def add(self, study: ReaderStudy) -> None:
        """Store a new one; Race when its name is taken."""
        ...

    def close(self, study_id: str, now: datetime) -> None:
        """No grade is taken from now on; Race when it is closed already."""
        ...

    def get(self, study_id: str) -> ReaderStudy | None:
        """The one with that id."""
        ...

    def all(self) -> Sequence[ReaderStudy]:
        """All of them, the newest first."""
        ...

    def put_grade(self, grade: Grade) -> None:
        """Store what a reader says of a case, in place of what they said before."""
        ...

    def grades(self, study_id: str, reader_id: str | None = None) -> Sequence[Grade]:
        """What was said, by case and reader; of one reader or of all."""
        ...


@dataclass(frozen=True, slots=True)
class Sought:
    """What a use case is about to look up, as the arguments of its look-ups."""

    # Of `Messages.digests`, `Orders.by_placer`, `Orders.by_accession`, `Patients.find`.
    messages: Sequence[tuple[str, str, str]] = ()
    placers: Sequence[tuple[str, str]] = ()
    accessions: Sequence[tuple[str, str]] = ()
    patients: Sequence[tuple[str, str]] = ()


NO_DATABASE: Final = "database-unavailable"
"""Code of the Unavailable that no other message or request would fare better against."""


class UnitOfWork(Protocol):
    """One transaction: `with uow: ...; uow.commit()`. Leaving without a commit leaves no trace.

    It can be entered again. What is added may reach the database late: the Race of a taken key is raised by `add`, by
    a look-up after it or by `commit`.

    `commit` raises Fault when a changed aggregate has no audit event that names it.
    """

    @property
    def patients(self) -> Patients:
        """Patients."""
        ...

    @property
    def orders(self) -> Orders:
        """Orders."""
        ...

    @property
    def priors(self) -> Priors:
        """Reports of other systems."""
        ...

    @property
    def reports(self) -> Reports:
        """Reports."""
        ...

    @property
    def jobs(self) -> Jobs:
        """Jobs."""
        ...

    @property
    def messages(self) -> Messages:
        """Inbound messages."""
        ...

    @property
    def outbox(self) -> Outbox:
        """What is to be told."""
        ...

    @property
    def audit(self) -> AuditTrail:
        """The trail."""
        ...

    @property
    def retention(self) -> Retention:
        """Letting go."""
        ...

    @property
    def progress(self) -> ProgressRows:
        """Canvases."""
        ...

    @property
    def switches(self) -> Switches:
        """Switches."""
        ...

    @property
    def subscriptions(self) -> Subscriptions:
        """Subscriptions."""
        ...

    @property
    def assertions(self) -> Assertions:
        """Redeemed assertions."""
        ...

    @property
    def sessions(self) -> Sessions:
        """Sessions of browsers."""
        ...

    @property
    def workers(self) -> Workers:
        """Workers that are there."""
        ...

    @property
    def reader_studies(self) -> ReaderStudies:
        """Reader studies."""
        ...

    def foresee(self, sought: Sought) -> None:
        """Be told what will be looked up, to fetch it together. It changes no answer."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def commit(self) -> None:
        """Make everything permanent; Fault for a change without its audit event, Race when another was first."""
        ...

    def rollback(self) -> None:
        """Forget everything since the beginning."""
        ...


NewUnitOfWork = Callable[[], UnitOfWork]
"""Makes a unit of work; one per use case call or per thread."""
