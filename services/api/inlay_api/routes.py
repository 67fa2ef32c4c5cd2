"""The routes of the workstation API as declarations.

Flask's rules, the permissions and the OpenAPI document all come from them: none of the three can differ.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flask import Blueprint, Response, g, request

from inlay_api import visitors
from inlay_api.auth import Identity
from inlay_api.desk import Desk, desk
from inlay_api.problems import bad_request
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.errors import Forbidden
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import check_id
from inlay_fhir.store import Access

PREFIX: Final = "/api/v1"


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of a query; `schema` is its JSON schema. Identifiers of people and orders are never among them."""

    name: str
    summary: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `answer` is (status, schema name) for JSON, (status, media type) otherwise; `body` a schema name.

    `permission` None means that no token is asked for. `writes` ones need If-Match; `tagged` ones answer 304.
    """

    method: str
    path: str
    operation: str
    summary: str
    answer: tuple[int, str]
    permission: Permission | None
    body: str | None = None
    query: tuple[Query, ...] = ()
    writes: bool = False
    tagged: bool = False
    location: bool = False
    errors: tuple[int, ...] = ()

    @property
    def rule(self) -> str:
        """The path as Flask writes it, below the prefix."""
        return re.sub(r"\{version\}", "<int:version>", self.path).replace("{", "<").replace("}", ">")


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request."""

    desk: Desk
    actor: Actor

    def record(
        self, tag: Tag, subject: tuple[Kind, str], report_id: str | None = None, version: int | None = None
    ) -> None:
        """Record that the actor read something: before the answer leaves, so that none leaves unrecorded."""
        self.desk.readings.record(self.actor, [Access(tag, subject, report_id, version, request_id=g.request_id)])


View = Callable[..., Response]


@dataclass(slots=True)
class Routes:
    """The declared routes of the API, and the blueprint that answers them."""

    blueprint: Blueprint
    declared: list[tuple[Route, View]] = field(default_factory=list)

    def add(self, route: Route) -> Callable[[View], View]:
        """Answer the route with a view, called as `view(call, **path parameters)` once the actor has the permission."""

        def declare(view: View) -> View:
            self.declared.append((route, view))
            self.blueprint.add_url_rule(
                route.rule,
                endpoint=route.operation,
                view_func=_guarded(route, view),
                methods=[route.method],
                provide_automatic_options=False,
            )
            return view

        return declare


def authenticated() -> Actor:
    """Whoever sent the request: by token, or by a session's cookie. Raises Unauthenticated, Refused."""
    session = None if "Authorization" in request.headers else visitors.session_of_request()
    actor = session.actor if session else desk().verifier.actor_of(request.headers.get("Authorization"))
    g.actor = actor
    return actor


def identified() -> Identity:
    """Whoever sent a FHIR request. Raises Unauthenticated."""
    identity = desk().verifier.identity_of(request.headers.get("Authorization"))
    g.actor = identity.actor
    return identity


def record_refusal(actor: Actor, operation: str) -> None:
    """Somebody known asked for what they may not do: the trail says so."""
    visitors.refused(actor, operation)


def _guarded(route: Route, view: View) -> View:
    @functools.wraps(view)
    def answer(**path: Any) -> Response:
        if route.permission is None:
            return view(**path)
        actor = authenticated()
        try:
            require(actor, route.permission)
            for name, value in path.items():
                if isinstance(value, str):
                    check_id(value, name)
            _only_known_queries(route)
            return view(Call(desk(), actor), **path)
        except Forbidden:
            record_refusal(actor, route.operation)
            raise

    return answer


def _only_known_queries(route: Route) -> None:
    """Refuse parameters that would be passed over: an identifier in a URL ends up in logs of proxies."""
    if not request.args.keys() <= {query.name for query in route.query}:
        raise bad_request("This query parameter is not known here; identifiers travel in a body.", "query")
