"""Logging in and out: at the hospital's provider, or by choosing a demonstration user in the embedded mode."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, render_template, request

from inlay_api import visitors
from inlay_api.answers import json_answer
from inlay_api.desk import desk
from inlay_api.oidc import CALLBACK, Attempt
from inlay_api.problems import Refused, Unauthenticated, bad_request
from inlay_api.routes import Call, Route, Routes
from inlay_core.application import sessions
from inlay_core.domain.audit import Tag
from inlay_core.domain.errors import DomainError, Forbidden
from inlay_core.domain.identity import Actor, Permission, Role
from inlay_core.domain.session import SessionState

blueprint: Final = Blueprint("login", __name__)
routes: Final = Routes(Blueprint("session", __name__))
# Somebody who looks for their card or a second factor takes minutes.
_ATTEMPT_SECONDS: Final = 600


@blueprint.get("/login")
def login() -> Response:
    """How to log in here."""
    back = visitors.local_path(request.args.get("next", "/"))
    return _page(200, back=back, locked="locked" in request.args)


@blueprint.get("/login/start")
def start() -> Response:
    """To the provider. A link, not a form: policies of browsers follow the redirects of forms."""
    provider = desk().provider
    if provider is None:
        raise Refused(404, "no-such-path", "There is no provider to log in at.")
    attempt = Attempt.new()
    # Whoever walked away has to show again who they are, also where the provider still knows their browser.
    _, state = visitors.found_session()
    answer = visitors.see_other(provider.address(attempt, again=state is SessionState.IDLE))
    visitors.set_cookie(answer, "login", attempt.to_cookie(), _ATTEMPT_SECONDS)
    visitors.set_cookie(answer, "back", visitors.local_path(request.args.get("next", "/")), _ATTEMPT_SECONDS)
    return answer


@blueprint.get(CALLBACK)
def callback() -> Response:
    """Back from the provider, with a code or with its refusal."""
    provider = desk().provider
    if provider is None:
        raise Refused(404, "no-such-path", "There is no provider to log in at.")
    back = visitors.local_path(visitors.cookie("back"))
    try:
        actor = provider.redeem(request.args.to_dict(), Attempt.of_cookie(visitors.cookie("login")))
        if not actor.roles:
            raise _without_roles(actor)
    except Unauthenticated as error:
        answer = _page(401, back=back, problem=error.message)
    except DomainError as error:
        answer = _page(403 if isinstance(error, Forbidden) else 503, back=back, problem=error.message)
    else:
        answer = visitors.see_other(back)
        _end_old_session()
        visitors.begin_session(actor, answer)
    visitors.drop_cookie(answer, "login")
    visitors.drop_cookie(answer, "back")
    return answer


@blueprint.post("/login")
def choose() -> Response:
    """Become one of the demonstration's users: in the embedded mode, which only this machine reaches."""
    if desk().settings.auth != "embedded":
        raise Refused(404, "no-such-path", "There are no demonstration users here.")
    visitors.check_origin()
    chosen = {str(role): actor for role, actor in visitors.DEMO_USERS.items()}.get(request.form.get("user", ""))
    if chosen is None:
        raise bad_request("Choose one of the users.", "user")
    answer = visitors.see_other(visitors.local_path(request.form.get("next", "/")))
    _end_old_session()
    visitors.begin_session(chosen, answer)
    return answer


@blueprint.post("/logout")
def logout() -> Response:
    """End the session here. At the provider the person stays logged in, as with every other system of the house."""
    session, _ = visitors.found_session()
    if session is not None:
        visitors.check_our_page(session)
        sessions.close_session(*desk().act, session)
    answer = visitors.see_other("/login")
    visitors.drop_cookie(answer, "session")
    return answer


@routes.add(
    Route(
        "GET",
        "/session",
        "readSession",
        "Who asks, and for a browser's session the token that its changes bear and how long it lasts.",
        (200, "Session"),
        Permission.READ_REPORTS,
    )
)
def read_session(call: Call) -> Response:
    """Who asks. Asking is doing something: a page asks while its person types."""
    session = visitors.session_of_request() if "Authorization" not in request.headers else None
    actor = call.actor
    return json_answer(
        {
            "actor": {"id": actor.id, "name": actor.name, "kind": actor.kind, "roles": sorted(actor.roles)},
            "csrf": session.csrf if session else None,
            "idle_seconds": int(visitors.idle_time(desk().settings).total_seconds()) if session else None,
            "expires_at": session.expires_at.isoformat() if session else None,
        }
    )


def _end_old_session() -> None:
    """Whoever logs in again leaves no second session behind."""
    session, _ = visitors.found_session()
    if session is not None:
        sessions.close_session(*desk().act, session)


def _without_roles(actor: Actor) -> Forbidden:
    visitors.refused(actor, "login", Tag.LOGIN_SESSION_REFUSED)
    return Forbidden("not-permitted", "The provider gives you no role that is known here.", "actor.roles")


def _page(status: int, *, back: str, locked: bool = False, problem: str = "") -> Response:
    embedded = desk().settings.auth == "embedded"
    text = render_template(
        "login.html",
        users=[(str(role), actor.name, _ABILITIES[role]) for role, actor in visitors.DEMO_USERS.items()]
        if embedded
        else [],
        provider=desk().provider is not None,
        back=back,
        locked=locked,
        problem=problem,
    )
    return Response(text, status=status, content_type="text/html; charset=utf-8")


_ABILITIES: Final = {
    Role.RADIOLOGIST: "reads, edits, asks for infill, signs",
    Role.ADMIN: "switches generation, looks after queues and connections",
    Role.AUDITOR: "reads the trail and how drafts are used",
}
