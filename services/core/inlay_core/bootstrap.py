"""Settings to object graph: the one place where ports meet their adapters. Nothing is opened at import."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata

from sqlalchemy import Engine

from inlay_core.application.ports import Destination, GenerationPolicy, ImageSource, Progress, Site, UnitOfWork
from inlay_core.application.tracing import NO_TRACER, Backend, Tracer
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.matching import PatientCheck
from inlay_core.persistence import schema
from inlay_core.persistence.encryption import KeyRing, read_ring
from inlay_core.persistence.engine import DatabaseLimits, open_database
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_core.progress import RedisProgress, RowProgress
from inlay_core.settings import Settings
from inlay_core.targets import result_targets


def clock() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh UUID4 in text form."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Services:
    """What a process works with. `uow()` writes; `reader()` only reads and never waits for a writer."""

    settings: Settings
    site: Site
    engine: Engine
    clock: Clock
    new_id: NewId
    progress: Progress
    images: ImageSource | None = None
    ring: KeyRing | None = None
    tracer: Tracer = NO_TRACER

    def uow(self) -> UnitOfWork:
        """A unit of work that may write."""
        return SqlUnitOfWork(self.engine, ring=self.ring)

    def reader(self) -> UnitOfWork:
        """A unit of work that only reads."""
        return SqlUnitOfWork(self.engine, read_only=True, ring=self.ring)

    def single(self) -> UnitOfWork:
        """A unit of work for one statement: a question, or rows of one table."""
        return SqlUnitOfWork(self.engine, single=True)

    def close(self) -> None:
        """Give connections back."""
        self.engine.dispose()
        if isinstance(self.progress, RedisProgress):
            self.progress.close()
        self.tracer.close()


def bootstrap(
    settings: Settings,
    *,
    images: Callable[[Settings], ImageSource] | None = None,
    clock: Clock = clock,
    new_id: NewId = new_id,
    tracer: Tracer = NO_TRACER,
) -> Services:
    """Open what the settings name. `images` makes the image source of processes that need one.

    Call it after forking: connections are not shared between processes.
    """
    engine = open_database(settings.database, database_limits(settings))
    return Services(
        settings=settings,
        site=site_of(settings),
        engine=engine,
        clock=clock,
        new_id=new_id,
        progress=_progress(settings, engine, clock),
        images=images(settings) if images else None,
        ring=read_ring(settings.message_keys),
        tracer=tracer,
    )


def tracer_of(settings: Settings, process: str, open_spans: Callable[[str, str, str], Backend]) -> Tracer:
    """What a process traces with; `open_spans` is asked for its backend where traces are on. Call it after forking.

    Raises Unavailable where they are on and their libraries are not installed.
    """
    if not settings.traces:
        return NO_TRACER
    try:
        return Tracer(open_spans(f"inlay-{process}", metadata.version("inlay"), settings.traces_headers))
    except ModuleNotFoundError:
        text = "Traces need the extra `traces`: pip install 'inlay[traces]'."
        raise Unavailable("extra-missing", text, "INLAY_TRACES") from None


def database_limits(settings: Settings) -> DatabaseLimits:
    """How many connections, and how long each may take."""
    return DatabaseLimits(
        settings.database_pool,
        settings.database_wait_seconds,
        settings.database_statement_seconds,
        settings.database_lock_seconds,
    )


def site_of(settings: Settings) -> Site:
    """The choices of the site that use cases obey."""
    return Site(
        generation=GenerationPolicy(
            stopped=settings.kill_switch,
            draft=settings.draft,
            infill=settings.infill,
            imported_text_allowed=settings.prompt_with_reason,
        ),
        destinations=_destinations(settings),
        zone=settings.zone,
        section_order=settings.sections,
        patient_check=PatientCheck(settings.patient_check),
        results=tuple(target.filter for target in result_targets(settings)),
        lease_seconds=settings.lease_seconds,
        max_attempts=settings.max_attempts,
        max_open_jobs=settings.max_open_jobs,
    )


def _destinations(settings: Settings) -> tuple[str, ...]:
    told = {Destination.DICOM: settings.dicom_reports, Destination.FHIR: settings.fhir_target}
    return tuple(destination for destination, setting in told.items() if setting)


def unit_of_work(settings: Settings, *, read_only: bool = False) -> UnitOfWork:
    """A unit of work for a command that needs nothing else."""
    engine = open_database(settings.database, database_limits(settings))
    return SqlUnitOfWork(engine, read_only=read_only, ring=read_ring(settings.message_keys))


def upgrade_database(settings: Settings) -> str:
    """Bring the schema to the newest revision and return it."""
    engine = open_database(settings.database, database_limits(settings))
    try:
        return schema.upgrade(engine)
    finally:
        engine.dispose()


def database_revision(settings: Settings) -> str | None:
    """The revision of the database; None when it has no schema yet."""
    engine = open_database(settings.database, database_limits(settings))
    try:
        return schema.current(engine)
    finally:
        engine.dispose()


def _progress(settings: Settings, engine: Engine, clock: Clock) -> Progress:
    if settings.redis_url:
        return RedisProgress(settings.redis_url, clock, master=settings.redis_master)
    return RowProgress(
        lambda: SqlUnitOfWork(engine),
        lambda: SqlUnitOfWork(engine, read_only=True),
        clock,
        min_seconds=settings.progress_seconds,
    )
