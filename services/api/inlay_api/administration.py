"""How the installation stands, for administrators: over the API, and as a page with its forms."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, request

from inlay_api import visitors
from inlay_api.answers import json_answer
from inlay_api.desk import desk
from inlay_api.present import Body, delivery_body, switch_body
from inlay_api.problems import bad_request
from inlay_api.routes import Call, Route, Routes
from inlay_api.switches import scope_of
from inlay_core.application import administration, publishing, switching
from inlay_core.application.administration import Overview
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Permission
from inlay_core.domain.job import JobKind
from inlay_core.domain.switch import Scope

routes: Final = Routes(Blueprint("administration", __name__))
blueprint: Final = Blueprint("administration-page", __name__)
USES: Final = {JobKind.DRAFT: "drafts from images", JobKind.INFILL: "infill of text"}


@routes.add(
    Route(
        "GET",
        "/administration",
        "readAdministration",
        "Queues, workers, switches, senders, destinations and parked results. Counts and codes, no patients.",
        (200, "Overview"),
        Permission.ADMINISTER,
    )
)
def read_administration(call: Call) -> Response:
    """How everything stands now."""
    found = administration.overview(
        call.desk.services.reader(), call.desk.services.clock, call.actor, call.desk.services.site
    )
    call.record(Tag.READER_ACCESS_STATE, (Kind.ACCESS, "administration"))
    return json_answer(overview_body(found))


def overview_body(found: Overview) -> Body:
    """The overview as JSON."""
    return {
        "at": found.at.isoformat(),
        "uses": sorted(found.uses),
        "switches": [switch_body(switch) for switch in found.switches],
        "queues": [
            {
                "kind": one.kind,
                "state": one.state,
                "priority": one.priority,
                "number": one.number,
                "oldest": one.oldest.isoformat(),
            }
            for one in found.queues
        ],
        "workers": [
            {
                "id": one.id,
                "host": one.host,
                "model": one.model,
                "model_digest": one.model_digest,
                "adapters": list(one.adapters),
                "device": one.device,
                "jobs": one.jobs,
                "started_at": one.started_at.isoformat(),
                "seen_at": one.seen_at.isoformat(),
                "silent": found.is_silent(one),
            }
            for one in found.workers
        ],
        "senders": [
            {
                "application": one.application,
                "facility": one.facility,
                "messages": one.number,
                "refused": one.refused,
                "last_at": one.last_at.isoformat(),
                "last_refused_at": one.last_refused_at.isoformat() if one.last_refused_at else None,
                "last_error": one.last_error,
            }
            for one in found.senders
        ],
        "destinations": [
            {
                "destination": one.destination,
                "pending": one.pending,
                "parked": one.dead,
                "oldest_pending": one.oldest_pending.isoformat() if one.oldest_pending else None,
                "last_delivered": one.last_delivered.isoformat() if one.last_delivered else None,
                "last_error": one.last_error,
            }
            for one in found.destinations
        ],
        "parked": [delivery_body(item) for item in found.parked],
    }


# ---------------------------------------------------------------------------------------------- the page


@blueprint.get("/administration")
def page() -> Response:
    """Queues, workers, switches, connections and what was parked."""
    actor = visitors.visitor(Permission.ADMINISTER, "administration")
    services = desk().services
    found = administration.overview(services.reader(), services.clock, actor, services.site)
    Call(desk(), actor).record(Tag.READER_ACCESS_STATE, (Kind.ACCESS, "administration"))
    return visitors.html(
        "administration.html",
        found=found,
        uses=USES,
        stops=[(Scope.named(switch.name), switch) for switch in found.switches if switch.on],
        everything=any(switch.on and switch.name == Scope().name for switch in found.switches),
    )


@blueprint.post("/administration/switches")
def switch() -> Response:
    """Stop or resume what the form names; empty fields do not restrict."""
    actor = visitors.visitor(Permission.SWITCH_GENERATION, "administration")
    form: dict[str, Any] = {key: value.strip() for key, value in request.form.items() if value.strip()}
    if form.get("act") not in ("stop", "resume"):
        raise bad_request("Stop or resume.", "act")
    act = switching.stop_generation if form["act"] == "stop" else switching.resume_generation
    act(*desk().act, actor, scope_of(form))
    return visitors.see_other("/administration")


@blueprint.post("/administration/deliveries")
def resend() -> Response:
    """Have a parked result sent again."""
    actor = visitors.visitor(Permission.MANAGE_DELIVERIES, "administration")
    publishing.resend(*desk().act, actor, request.form.get("id", ""))
    return visitors.see_other("/administration")
