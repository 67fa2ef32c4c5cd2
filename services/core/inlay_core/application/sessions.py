"""Logging in and out with a browser: sessions that end by themselves, each opening and closing in the trail."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from inlay_core.application.ports import UnitOfWork
from inlay_core.application.transaction import Act, retried
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Actor
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.session import Session, session_id

# A click each second need not be a transaction each second; idle times are minutes.
NOTED_EVERY: Final = timedelta(seconds=20)


@retried
def open_session(
    uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, *, secret: str, csrf: str, lifetime: timedelta
) -> Session:
    """Somebody has shown who they are. Sessions that are over are dropped on the way."""
    with uow:
        act = Act(uow, clock(), new_id, actor)
        session = Session(session_id(secret), actor, csrf, act.now, act.now, act.now + lifetime)
        uow.sessions.forget(act.now)
        uow.sessions.add(session)
        act.record(Tag.LOGIN_SESSION_OPENED, (Kind.SESSION, session.id))
        uow.commit()
        return session


def find_session(uow: UnitOfWork, secret: str) -> Session | None:
    """The session whose cookie holds this secret, whatever its state."""
    with uow:
        return uow.sessions.get(session_id(secret))


@retried
def note_activity(uow: UnitOfWork, session: Session, now: datetime) -> Session:
    """The person did something: the idle time begins again. It is noted now and then."""
    if now - session.seen_at < NOTED_EVERY:
        return session
    with uow:
        uow.sessions.seen(session.id, now)
        uow.commit()
    return replace(session, seen_at=now)


@retried
def close_session(uow: UnitOfWork, clock: Clock, new_id: NewId, session: Session) -> None:
    """The person logs out: the cookie is good for nothing from now on."""
    with uow:
        act = Act(uow, clock(), new_id, session.actor)
        uow.sessions.remove(session.id)
        act.record(Tag.LOGIN_SESSION_CLOSED, (Kind.SESSION, session.id))
        uow.commit()
