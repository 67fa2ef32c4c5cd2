"""Sessions, workers and reader studies in the database, as the ports ask for them."""

# ruff: noqa: D102 (what the methods promise is written once, in application/ports.py)

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, delete, select, update

from inlay_core.application.ports import WorkerSeen
from inlay_core.domain.audit import Kind
from inlay_core.domain.identity import Actor, ActorKind, Role
from inlay_core.domain.reader_study import Case, Grade, ReaderStudy, grade_of
from inlay_core.domain.session import Session
from inlay_core.persistence.statements import Statements
from inlay_core.persistence.tables import READER_GRADES, READER_STUDIES, SESSIONS, WORKERS


class SqlSessions:
    """`Sessions` on the table `sessions`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def add(self, session: Session) -> None:
        self._statements.changed.add((Kind.SESSION, session.id))
        actor = session.actor
        values = {
            "id": session.id,
            "actor": {"id": actor.id, "name": actor.name, "roles": sorted(actor.roles), "kind": actor.kind},
            "csrf": session.csrf,
            "created_at": session.created_at,
            "seen_at": session.seen_at,
            "expires_at": session.expires_at,
        }
        self._statements.insert(SESSIONS, values)

    def get(self, session_id: str) -> Session | None:
        row = self._statements.one(select(SESSIONS).where(SESSIONS.c.id == session_id))
        return _session(row) if row else None

    def seen(self, session_id: str, now: datetime) -> None:
        self._statements.run(update(SESSIONS).where(SESSIONS.c.id == session_id).values(seen_at=now))

    def remove(self, session_id: str) -> None:
        self._statements.changed.add((Kind.SESSION, session_id))
        self._statements.run(delete(SESSIONS).where(SESSIONS.c.id == session_id))

    def forget(self, before: datetime) -> None:
        self._statements.run(delete(SESSIONS).where(SESSIONS.c.expires_at < before))


def _session(row: Row[Any]) -> Session:
    actor = row.actor
    roles = frozenset(Role(role) for role in actor["roles"])
    return Session(
        row.id,
        Actor(actor["id"], actor["name"], roles, ActorKind(actor["kind"])),
        row.csrf,
        row.created_at,
        row.seen_at,
        row.expires_at,
    )


# Columns that are as the worker's values are.
_TOLD: Final = ("host", "model", "model_digest", "device", "jobs", "started_at", "seen_at")
_STUDIED: Final = ("id", "name", "seed", "created_by", "created_at", "closed_at")


class SqlWorkers:
    """`Workers` on the table `workers`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def put(self, worker: WorkerSeen) -> None:
        values = {name: getattr(worker, name) for name in _TOLD}
        values["adapters"] = list(worker.adapters)
        if self._statements.run(update(WORKERS).where(WORKERS.c.id == worker.id).values(values)).rowcount == 0:
            self._statements.insert(WORKERS, values | {"id": worker.id})

    def all(self) -> Sequence[WorkerSeen]:
        rows = self._statements.all(select(WORKERS).order_by(WORKERS.c.started_at, WORKERS.c.id))
        told = [{name: getattr(row, name) for name in _TOLD} for row in rows]
        return [
            WorkerSeen(id=row.id, adapters=tuple(row.adapters), **values)
            for row, values in zip(rows, told, strict=True)
        ]

    def remove(self, worker_id: str) -> None:
        self._statements.run(delete(WORKERS).where(WORKERS.c.id == worker_id))

    def forget(self, before: datetime) -> None:
        self._statements.run(delete(WORKERS).where(WORKERS.c.seen_at < before))


class SqlReaderStudies:
    """`ReaderStudies` on the tables `reader_studies` and `reader_grades`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def add(self, study: ReaderStudy) -> None:
        self._statements.changed.add((Kind.READER_STUDY, study.id))
        values = {name: getattr(study, name) for name in _STUDIED}
        cases = [
            {
                "label": case.label,
                "report_id": case.report_id,
                "drafts": [[[name, list(sentences)] for name, sentences in draft] for draft in case.drafts],
            }
            for case in study.cases
        ]
        self._statements.insert(READER_STUDIES, values | {"arms": list(study.arms), "cases": cases})

    def close(self, study_id: str, now: datetime) -> None:
        self._statements.changed.add((Kind.READER_STUDY, study_id))
        is_open = (READER_STUDIES.c.id == study_id, READER_STUDIES.c.closed_at.is_(None))
        self._statements.must_change_one(update(READER_STUDIES).where(*is_open).values(closed_at=now))

    def get(self, study_id: str) -> ReaderStudy | None:
        row = self._statements.one(select(READER_STUDIES).where(READER_STUDIES.c.id == study_id))
        return _study(row) if row else None

    def all(self) -> Sequence[ReaderStudy]:
        newest = (READER_STUDIES.c.created_at.desc(), READER_STUDIES.c.id)
        return [_study(row) for row in self._statements.all(select(READER_STUDIES).order_by(*newest))]

    def put_grade(self, grade: Grade) -> None:
        self._statements.changed.add((Kind.READER_STUDY, grade.study_id))
        key = {"study_id": grade.study_id, "number": grade.number, "reader_id": grade.reader_id}
        values = {"body": grade.to_json(), "graded_at": grade.graded_at}
        own = [READER_GRADES.c[name] == value for name, value in key.items()]
        if self._statements.run(update(READER_GRADES).where(*own).values(values)).rowcount == 0:
            self._statements.insert(READER_GRADES, key | values)

    def grades(self, study_id: str, reader_id: str | None = None) -> Sequence[Grade]:
        query = select(READER_GRADES).where(READER_GRADES.c.study_id == study_id)
        if reader_id is not None:
            query = query.where(READER_GRADES.c.reader_id == reader_id)
        rows = self._statements.all(query.order_by(READER_GRADES.c.number, READER_GRADES.c.reader_id))
        return [grade_of(row.study_id, row.number, row.reader_id, row.graded_at, row.body) for row in rows]


def _study(row: Row[Any]) -> ReaderStudy:
    cases = tuple(
        Case(
            body["label"],
            tuple(tuple((name, tuple(sentences)) for name, sentences in draft) for draft in body["drafts"]),  # type: ignore[arg-type]
            body["report_id"],
        )
        for body in row.cases
    )
    first, second = row.arms
    return ReaderStudy(
        row.id, row.name, (first, second), cases, row.seed, row.created_by, row.created_at, row.closed_at
    )
