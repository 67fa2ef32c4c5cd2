"""Switches: what is stopped, and stopping or resuming it. Setting one twice is setting it once: it needs no version."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, request

from inlay_api.answers import json_answer
from inlay_api.bodies import only_keys, read_json
from inlay_api.present import switch_body
from inlay_api.problems import bad_request
from inlay_api.routes import Call, Route, Routes
from inlay_core.application import switching
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Permission
from inlay_core.domain.switch import Scope

routes: Final = Routes(Blueprint("switches", __name__))
_PARTS: Final = ("use", "site", "modality", "model")


@routes.add(
    Route(
        "GET",
        "/switches",
        "listSwitches",
        "What the settings allow to be generated, and the switches that were ever set, on those that stop something.",
        (200, "SwitchList"),
        Permission.READ_SWITCHES,
    )
)
def list_switches(call: Call) -> Response:
    """Every switch with who set it and when."""
    found = switching.switches(call.desk.services.reader(), call.actor)
    call.record(Tag.READER_ACCESS_STATE, (Kind.ACCESS, "switches"))
    uses = sorted(call.desk.services.site.generation.kinds())
    return json_answer({"uses": uses, "switches": [switch_body(switch) for switch in found]})


@routes.add(
    Route(
        "PUT",
        "/switches",
        "setSwitch",
        "Stop (`on`) or resume what the scope covers: everything, or an intended use, site, modality, model of it.",
        (200, "Switch"),
        Permission.SWITCH_GENERATION,
        body="SwitchSetting",
    )
)
def set_switch(call: Call) -> Response:
    """At once, for every process. Queued jobs wait; running ones go back to the queue between two steps."""
    body = read_json(request)
    only_keys(body, ("on", *_PARTS))
    if not isinstance(body.get("on"), bool):
        raise bad_request("The flag on is true or false.", "on")
    act = switching.stop_generation if body["on"] else switching.resume_generation
    return json_answer(switch_body(act(*call.desk.act, call.actor, scope_of(body))))


def scope_of(body: dict[str, Any]) -> Scope:
    """The scope that a body or a form names. Raises Invalid."""
    parts = {part: body.get(part) for part in _PARTS}
    for part, value in parts.items():
        if value is not None and not isinstance(value, str):
            raise bad_request("Expected a text.", part)
    return Scope.of(**parts)
