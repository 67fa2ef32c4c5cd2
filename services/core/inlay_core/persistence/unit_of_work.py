"""One transaction: every repository on one connection, and no commit of a change without its audit event."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from inlay_core.application.ports import NO_DATABASE, Sought
from inlay_core.domain.errors import Fault, Unavailable
from inlay_core.persistence.administration import SqlReaderStudies, SqlSessions, SqlWorkers
from inlay_core.persistence.encryption import KeyRing
from inlay_core.persistence.engine import READ_ONLY
from inlay_core.persistence.outbox import SqlOutbox
from inlay_core.persistence.repositories import (
    BY_ACCESSION,
    BY_PATIENT,
    BY_PLACER,
    DIGESTS,
    SqlAssertions,
    SqlJobs,
    SqlMessages,
    SqlOrders,
    SqlPatients,
    SqlPriors,
    SqlProgressRows,
    SqlReports,
    SqlSubscriptions,
    SqlSwitches,
)
from inlay_core.persistence.retention import SqlRetention
from inlay_core.persistence.statements import Statements, translated
from inlay_core.persistence.trail import SqlAuditTrail


class SqlUnitOfWork:
    """`UnitOfWork` on a database. `read_only` ones take no write lock and cannot commit changes.

    `single` ones are for one statement: a question, or rows of one table. PostgreSQL is told of no beginning and no end
    then, because a statement is a transaction by itself.
    """

    patients: SqlPatients
    orders: SqlOrders
    priors: SqlPriors
    reports: SqlReports
    jobs: SqlJobs
    messages: SqlMessages
    outbox: SqlOutbox
    audit: SqlAuditTrail
    retention: SqlRetention
    progress: SqlProgressRows
    switches: SqlSwitches
    assertions: SqlAssertions
    subscriptions: SqlSubscriptions
    sessions: SqlSessions
    workers: SqlWorkers
    reader_studies: SqlReaderStudies

    def __init__(
        self, engine: Engine, *, read_only: bool = False, single: bool = False, ring: KeyRing | None = None
    ) -> None:
        self._engine = engine
        self._read_only = read_only
        self._single = single
        self._ring = ring
        # On SQLite a transaction whose first statement writes takes the lock with it, and waits for it.
        self._options: dict[str, Any] = {READ_ONLY: True} if read_only or single else {}
        if single and engine.dialect.name == "postgresql":
            self._options["isolation_level"] = "AUTOCOMMIT"
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        if self._connection is not None:
            raise Fault("transaction-open", "A unit of work is one transaction at a time.")
        try:
            connection = self._engine.connect()
            try:
                if self._options:
                    connection = connection.execution_options(**self._options)
                connection.begin()
            except BaseException:
                connection.close()
                raise
        except DBAPIError as error:
            raise translated(error) from None
        except PoolTimeout:
            raise Unavailable(NO_DATABASE, "All connections to the database are in use.") from None
        self._connection = connection
        self._statements = Statements(connection)
        self.patients = SqlPatients(self._statements)
        self.orders = SqlOrders(self._statements, self.patients)
        self.priors = SqlPriors(self._statements, self.patients)
        self.reports = SqlReports(self._statements, self.orders)
        self.jobs = SqlJobs(self._statements)
        self.messages = SqlMessages(self._statements, self._ring)
        self.outbox = SqlOutbox(self._statements)
        self.audit = SqlAuditTrail(self._statements)
        self.retention = SqlRetention(self._statements)
        self.progress = SqlProgressRows(self._statements)
        self.switches = SqlSwitches(self._statements)
        self.assertions = SqlAssertions(self._statements)
        self.subscriptions = SqlSubscriptions(self._statements)
        self.sessions = SqlSessions(self._statements)
        self.workers = SqlWorkers(self._statements)
        self.reader_studies = SqlReaderStudies(self._statements)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def foresee(self, sought: Sought) -> None:
        """Be told what will be looked up, to fetch it together."""
        look_ups = {
            DIGESTS: sought.messages,
            BY_PLACER: sought.placers,
            BY_ACCESSION: sought.accessions,
            BY_PATIENT: sought.patients,
        }
        self._statements.foresee(look_ups)

    def commit(self) -> None:
        """Make everything permanent; Fault for a change without its audit event, Race when another was first."""
        if self._connection is None:
            raise Fault("no-transaction", "There is no open transaction.")
        unrecorded = self._statements.changed - self._statements.recorded
        if unrecorded:
            # A taken key is the first thing to be told of.
            self._statements.flush()
            kinds = ", ".join(sorted({kind for kind, _ in unrecorded}))
            raise Fault("audit-event-missing", f"A change of {kinds} has no audit event.")
        if self._read_only and self._statements.changed:
            raise Fault("read-only", "This unit of work only reads.")
        if self._single and self._statements.waiting > 1:
            raise Fault("several-statements", "This unit of work is for one statement.")
        self._statements.commit(single=self._single)

    def rollback(self) -> None:
        """Forget everything since the beginning."""
        if self._connection is not None:
            self._connection.rollback()
            self._statements.forget()
