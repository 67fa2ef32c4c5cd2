"""Results that a receiver did not take and that are not tried any more: to see them, and to send them again."""

from __future__ import annotations

from flask import Blueprint, Response, request

from inlay_api.answers import json_answer
from inlay_api.bodies import only_keys, read_json
from inlay_api.present import delivery_body
from inlay_api.routes import Call, Route, Routes
from inlay_core.application import publishing
from inlay_core.domain.identity import Permission

routes = Routes(Blueprint("deliveries", __name__))

# More than a person looks through; the command line pages through all of them.
_MOST = 500


@routes.add(
    Route(
        "GET",
        "/deliveries",
        "listDeliveries",
        "Results that were parked because a receiver did not take them, the oldest first.",
        (200, "DeliveryList"),
        Permission.MANAGE_DELIVERIES,
    )
)
def list_deliveries(call: Call) -> Response:
    """Ids, codes and counts; no text and no patient."""
    items = publishing.parked_deliveries(call.desk.services.reader(), call.actor, limit=_MOST)
    return json_answer({"deliveries": [delivery_body(item) for item in items]})


@routes.add(
    Route(
        "POST",
        "/deliveries/{delivery_id}/resend",
        "resendDelivery",
        "Send a parked result again, under its message control id.",
        (200, "Delivery"),
        Permission.MANAGE_DELIVERIES,
        body="Empty",
        errors=(404, 409),
    )
)
def resend_delivery(call: Call, delivery_id: str) -> Response:
    """The relay takes it up within a second. 409 where a later version has been delivered."""
    only_keys(read_json(request, optional=True), ())
    return json_answer(delivery_body(publishing.resend(*call.desk.act, call.actor, delivery_id)))
