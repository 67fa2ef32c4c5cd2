"""The OpenAPI 3.1 document and the reference page, both built from the declared routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from flask import Blueprint, Response
from werkzeug.http import HTTP_STATUS_CODES

from inlay_api.answers import tagged_answer
from inlay_api.problems import PROBLEM
from inlay_api.routes import PREFIX, Route, Routes
from inlay_api.schemas import SCHEMAS, Schema, ref
from inlay_core.domain.identity import PERMISSIONS

routes = Routes(Blueprint("openapi", __name__))

_HEADERS: Final[Schema] = {
    "ETag": {"description": "The version of a report; of other answers a digest.", "schema": {"type": "string"}},
    "Location": {"description": "Where the job is.", "schema": {"type": "string"}},
}


@routes.add(Route("GET", "/openapi.json", "readOpenApi", "This document.", (200, "object"), None, tagged=True))
def read_openapi() -> Response:
    """The document; it needs no token."""
    return tagged_answer(document(all_routes()))


def parts() -> list[Routes]:
    """What the API is made of, in the order of the document."""
    from inlay_api import (
        administration,
        deliveries,
        jobs,
        login,
        oversight,
        priors,
        reader_studies,
        reports,
        switches,
    )

    topics = (reports, priors, jobs, deliveries, switches, administration, oversight, reader_studies, login)
    return [*(topic.routes for topic in topics), routes]


def all_routes() -> list[Route]:
    """Every route of the API, in the order of the document."""
    return [route for part in parts() for route, _ in part.declared]


def document(declared: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    paths: dict[str, Any] = {}
    for route in declared:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Inlay workstation API",
            "version": "1",
            "description": "Draft radiology reports: read, lock, edit, fill the gaps, sign. "
            "Text of origin `model` is a machine's until a clinician signs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": PREFIX}],
        "security": [{"bearer": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": {name: dict(schema) for name, schema in SCHEMAS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "__Host-inlay-session",
                    "description": "A session (/login). Changes bear its token as X-CSRF-Token (see readSession).",
                },
            },
        },
    }


def page(declared: Iterable[Route]) -> str:
    """The page `docs/reference/api.md`."""
    rows = [
        f"| `{route.method} {PREFIX}{route.path}` | {route.summary} | {route.answer[0]} | {_condition(route)} "
        f"| {_roles(route)} |"
        for route in declared
    ]
    return _HEAD + "\n".join(rows) + "\n"


_HEAD: Final = """\
# The workstation API

Generated from `services/api/inlay_api`; do not edit. The OpenAPI 3.1 document with every schema is at
`/api/v1/openapi.json`.

- Send `Authorization: Bearer TOKEN` ([tokens](../howto/tokens.md)); 401 without a good one, 403 without the role.
- A browser's session ([login](../howto/login.md)) is as good as a token; its changes bear `X-CSRF-Token` from
  `GET /api/v1/session`, 403 without. Asking for it tells that somebody is there; other reads keep no session awake.
- The ETag of a report is its version. A change sends it back as `If-Match`: 428 without, 412 when the report has
  moved on. A job is cancelled with `If-Match: *`.
- `If-None-Match` on reads marked *304* is answered 304 where nothing changed.
- Errors are problem+json (RFC 9457) with a stable `code` and the `place` in the request; they never quote values.
- Bodies are JSON in UTF-8, at most 1 MiB, without duplicate keys, NUL or lone surrogates.
- `X-Request-Id` (a UUID) is taken over or made, sent back, and stands in the log and with readings in the trail.

| call | does | answers | condition | roles |
|---|---|---|---|---|
"""


def _condition(route: Route) -> str:
    return "If-Match" if route.writes else "304" if route.tagged else "–"


def _roles(route: Route) -> str:
    return "anyone" if route.permission is None else ", ".join(sorted(PERMISSIONS[route.permission]))


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if route.permission is None:
        operation["security"] = []
    else:
        operation["description"] = f"Roles: {_roles(route)}."
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.body != "Empty",
            "content": {"application/json": {"schema": ref(route.body)}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    number: Schema = {"type": "integer", "minimum": 1}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": number if name == "version" else {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    parameters += [
        {"name": query.name, "in": "query", "description": query.summary, "schema": dict(query.schema)}
        for query in route.query
    ]
    if route.writes:
        parameters.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": True,
                "description": "The ETag of what the caller saw.",
                "schema": {"type": "string"},
            }
        )
    if route.tagged:
        parameters.append({"name": "If-None-Match", "in": "header", "schema": {"type": "string"}})
    return parameters


def _responses(route: Route) -> dict[str, Any]:
    status, content = route.answer
    headers = ["ETag"] * (route.tagged or (route.writes and not route.location)) + ["Location"] * route.location
    answer: dict[str, Any] = {"description": HTTP_STATUS_CODES[status], "content": _content(content)}
    if headers:
        answer["headers"] = {name: _HEADERS[name] for name in headers}
    responses = {str(status): answer}
    if route.tagged:
        responses["304"] = {"description": "Not Modified"}
    if content == "text/event-stream":
        responses["204"] = {"description": "The caller saw the last event: do not come back."}
    for error in sorted(_errors(route)):
        responses[str(error)] = {
            "description": HTTP_STATUS_CODES[error],
            "content": {PROBLEM: {"schema": ref("Problem")}},
        }
    return responses


def _errors(route: Route) -> set[int]:
    errors = set(route.errors)
    if route.permission is not None:
        errors |= {400, 401, 403, 503}
    if route.body is not None:
        errors |= {413, 415}
    if route.writes:
        errors |= {412, 428}
    return errors


def _content(name: str) -> dict[str, Any]:
    if name == "object":
        return {"application/json": {"schema": {"type": "object"}}}
    # A picture or a stream of events is no JSON value, so no schema of ours describes it.
    return {name: {}} if "/" in name else {"application/json": {"schema": ref(name)}}
