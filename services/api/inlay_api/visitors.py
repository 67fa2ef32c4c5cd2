"""Who asks, by cookie or by token: sessions of browsers, what protects their changes, and who may see a page.

A cookie is sent by the browser whoever made the request, so it is believed for changes only with the session's own
token, and only from a page of this origin (Fetch Metadata, else Origin).
"""

from __future__ import annotations

import json
import secrets
from datetime import timedelta
from typing import Final
from urllib.parse import quote, urlsplit

from flask import Response, g, render_template, request

from inlay_api.desk import desk
from inlay_api.problems import PROBLEM, Refused, Unauthenticated
from inlay_core.application import sessions
from inlay_core.domain.audit import Kind, Outcome, Tag
from inlay_core.domain.errors import Forbidden
from inlay_core.domain.identity import Actor, ActorKind, Permission, Role, may, require
from inlay_core.domain.session import Session, SessionState
from inlay_core.settings import Settings
from inlay_fhir.store import Access

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER: Final = "X-CSRF-Token"
CSRF_FIELD: Final = "csrf"
DEMO_READER: Final = Actor("local:page", "Page on this machine", frozenset({Role.EHR}), ActorKind.SYSTEM)
"""Whoever looks at the pages of the embedded mode without having chosen a user: reads reports, and changes nothing."""

DEMO_USERS: Final = {
    role: Actor(f"local:demo-{role}", f"Demo {name}", frozenset({role}))
    for role, name in ((Role.RADIOLOGIST, "Radiologist"), (Role.ADMIN, "Administrator"), (Role.AUDITOR, "Auditor"))
}
"""Whom one can choose to be in the embedded mode."""


class LoginNeeded(Exception):
    """A page that only somebody who is logged in can see. `locked` says that they were, and did nothing for long."""

    def __init__(self, *, locked: bool = False) -> None:
        super().__init__("login needed")
        self.locked = locked


# ---------------------------------------------------------------------------------------------- cookies


def is_secure(settings: Settings) -> bool:
    """Whether browsers reach us over TLS: always, but for this machine itself."""
    return settings.auth != "embedded" and not settings.public_url.startswith("http://")


def cookie_name(settings: Settings, name: str) -> str:
    """The name of a cookie of ours; over TLS with the prefix that keeps other hosts of the domain from setting it."""
    return f"__Host-inlay-{name}" if is_secure(settings) else f"inlay-{name}"


def set_cookie(answer: Response, name: str, value: str, seconds: int) -> None:
    """Have the browser keep a value, out of reach of scripts and of requests that other sites begin."""
    settings = desk().settings
    answer.set_cookie(
        cookie_name(settings, name),
        value,
        max_age=seconds,
        secure=is_secure(settings),
        httponly=True,
        # Not strict: the provider's redirect back to us is a navigation that another site began.
        samesite="Lax",
    )


def drop_cookie(answer: Response, name: str) -> None:
    """Have the browser forget it."""
    settings = desk().settings
    answer.delete_cookie(cookie_name(settings, name), secure=is_secure(settings), httponly=True, samesite="Lax")


def cookie(name: str) -> str:
    """The value that the browser sent; empty without one."""
    return request.cookies.get(cookie_name(desk().settings, name), "")


# ---------------------------------------------------------------------------------------------- sessions


def begin_session(actor: Actor, answer: Response) -> Session:
    """Log somebody in, and have their browser keep the secret. It is new each time: none is taken over."""
    settings = desk().settings
    secret = secrets.token_urlsafe(32)
    lifetime = timedelta(hours=settings.session_hours)
    session = sessions.open_session(
        *desk().act, actor, secret=secret, csrf=secrets.token_urlsafe(32), lifetime=lifetime
    )
    set_cookie(answer, "session", secret, int(lifetime.total_seconds()))
    return session


def found_session() -> tuple[Session | None, SessionState]:
    """The session of the browser that asks, and where it stands."""
    secret = cookie("session")
    session = sessions.find_session(desk().services.reader(), secret) if secret else None
    if session is None:
        return None, SessionState.OVER
    return session, session.state(desk().services.clock(), idle_time(desk().settings))


def idle_time(settings: Settings) -> timedelta:
    """How long a session lasts without anybody doing anything."""
    return timedelta(minutes=settings.session_idle_minutes)


def session_of_request() -> Session | None:
    """The good session of whoever asks; changes have to come from a page of ours.

    Raises Unauthenticated for a session that is over, Refused (403) for a change that another page began.
    """
    if not cookie("session"):
        return None
    session, state = found_session()
    if session is None or state is SessionState.OVER:
        raise Unauthenticated("session-over", "The session is over: log in again.")
    if state is SessionState.IDLE:
        raise Unauthenticated("session-idle", "Nobody did anything for long: log in again.")
    if request.method not in SAFE:
        check_our_page(session)
    if _is_activity():
        session = sessions.note_activity(desk().services.uow(), session, desk().services.clock())
    g.session = session
    return session


def _is_activity() -> bool:
    """Whether a person did this: opened a page, changed something, or their page tells that they type and move.

    What pages read over the API by themselves (a worklist that polls, a stream) keeps nobody's session awake.
    """
    reads_api = request.method in SAFE and request.path.startswith("/api/")
    return not reads_api or request.endpoint == "session.readSession"


def check_our_page(session: Session) -> None:
    """Raise Refused (403) for a change that does not bear the session's token, or that another site began."""
    check_origin()
    sent = request.headers.get(CSRF_HEADER)
    if sent is None and request.mimetype == "application/x-www-form-urlencoded":
        sent = request.form.get(CSRF_FIELD)
    if sent is None or not session.is_from_our_page(sent):
        raise Refused(403, "csrf-token", "A change by cookie bears the session's token.", CSRF_HEADER)


def check_origin() -> None:
    """Raise Refused (403) for a request that no page of this origin made."""
    site = request.headers.get("Sec-Fetch-Site")
    ours = site == "same-origin" if site is not None else request.headers.get("Origin", "") in _origins()
    if not ours:
        raise Refused(403, "foreign-page", "This request was not made by a page of Inlay.", "Origin")


def _origins() -> set[str]:
    public = urlsplit(desk().settings.public_url)
    if public.scheme:
        return {f"{public.scheme}://{public.netloc}"}
    return {f"{request.scheme}://{request.host}"}


# ---------------------------------------------------------------------------------------------- pages


def can_log_in(settings: Settings) -> bool:
    """Whether there is a way to log in with a browser."""
    return settings.auth == "embedded" or bool(settings.oidc_issuer)


def visitor(permission: Permission, page: str) -> Actor:
    """Who looks at a page, once they may: by session, by token, or whoever sits at the machine of the embedded mode.

    Raises LoginNeeded, Unauthenticated or Forbidden; a refusal of somebody known is recorded as one of `page`.
    """
    actor = _visitor(permission)
    g.actor = actor
    try:
        require(actor, permission)
    except Forbidden:
        refused(actor, page)
        raise
    return actor


def _visitor(permission: Permission) -> Actor:
    settings = desk().settings
    if "Authorization" in request.headers:
        return desk().verifier.actor_of(request.headers["Authorization"])
    try:
        session = session_of_request()
    except Unauthenticated as over:
        # On a shared machine the next person must not see what the last one left open: not even in the embedded mode.
        raise LoginNeeded(locked=over.code == "session-idle") from None
    if session is not None:
        return session.actor
    if settings.auth == "embedded" and permission is Permission.READ_REPORTS:
        return DEMO_READER
    if can_log_in(settings):
        raise LoginNeeded
    return desk().verifier.actor_of(None)


def refused(actor: Actor, operation: str, tag: Tag = Tag.READER_ACCESS_REFUSED) -> None:
    """Somebody known asked for what they may not do: the trail says so."""
    access = Access(tag, (Kind.ACCESS, operation), outcome=Outcome.REFUSED, request_id=g.request_id)
    desk().readings.record(actor, [access])


def to_login(needed: LoginNeeded) -> Response:
    """Send the browser to the login, and back afterwards."""
    back = request.full_path.rstrip("?") if request.method in SAFE else "/"
    return see_other(f"/login?next={quote(back, safe='/')}" + ("&locked=1" if needed.locked else ""))


def see_other(address: str) -> Response:
    """Go on there with a GET, whatever was sent."""
    return Response(status=303, headers={"Location": address})


def frame() -> dict[str, object]:
    """What every page's frame shows: who is logged in, what they may go to, and how long the session lasts idle."""
    settings, session = desk().settings, g.get("session")
    actor = g.get("actor")
    return {
        "person": actor.name if actor else "",
        "logged_in": session,
        "csrf_token": session.csrf if session else "",
        "idle_seconds": int(idle_time(settings).total_seconds()),
        "can_log_in": can_log_in(settings),
        "may": {str(permission): actor is not None and may(actor, permission) for permission in Permission},
    }


def html(template: str, **values: object) -> Response:
    """A page of ours."""
    return Response(render_template(template, **values), content_type="text/html; charset=utf-8")


def as_page(answer: Response) -> Response:
    """The same problem for somebody who opened a page: in words, with a way on."""
    problem = json.loads(answer.get_data(as_text=True))
    answer.set_data(render_template("problem.html", problem=problem))
    answer.content_type = "text/html; charset=utf-8"
    return answer


def opens_page() -> bool:
    """Whether a browser asks for something to show as a page: of what else it asks for, it takes anything."""
    accepted = request.accept_mimetypes
    return not request.path.startswith("/api/") and accepted["text/html"] > accepted[PROBLEM]


def local_path(text: str) -> str:
    """Where to go after the login: a path of ours, else the beginning. Addresses of others are not followed."""
    plain = text.startswith("/") and not text.startswith(("//", "/\\", "/login", "/logout"))
    return text if plain and text.isprintable() and "\\" not in text and len(text) <= 500 else "/"
