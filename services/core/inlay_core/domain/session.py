"""A person who is logged in with a browser: known by a secret that only their cookie holds, for a while."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from inlay_core.domain.identity import Actor


class SessionState(StrEnum):
    """Whether a session still lets somebody in."""

    GOOD = "good"
    IDLE = "idle"
    """Nobody did anything for too long: whoever sits there now has to show who they are."""
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Session:
    """`id` is a digest of the cookie's secret, so that whoever reads the database gets no cookie out of it.

    `csrf` is what a page of ours sends with each change and a page of others cannot know. `seen_at` is when the person
    did something last.
    """

    id: str
    actor: Actor
    csrf: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime

    def state(self, now: datetime, idle: timedelta) -> SessionState:
        """Where it stands; `idle` is how long it lasts without anybody doing anything."""
        if now >= self.expires_at:
            return SessionState.OVER
        return SessionState.IDLE if now - self.seen_at >= idle else SessionState.GOOD

    def is_from_our_page(self, csrf: str) -> bool:
        """Whether a change bears the session's own token."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode("utf-8", "surrogatepass"))


def session_id(secret: str) -> str:
    """The id of the session whose cookie holds this secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
