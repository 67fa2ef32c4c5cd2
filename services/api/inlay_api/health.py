"""Whether the process lives, whether it can answer, and its metrics. None of these needs a token or tells of people."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST

from inlay_api.desk import desk
from inlay_api.problems import problem
from inlay_core.domain.errors import DomainError
from inlay_core.domain.job import OPEN_STATES

blueprint: Final = Blueprint("health", __name__)


@blueprint.get("/livez")
def live() -> Response:
    """The process answers. It asks nobody: a database that is away is no reason to restart it."""
    return Response("ok\n", content_type="text/plain; charset=utf-8")


@blueprint.get("/readyz")
def ready() -> Response:
    """The database answers and has our tables."""
    try:
        with desk().services.reader() as uow:
            uow.jobs.count(OPEN_STATES)
    except DomainError:
        return problem(503, "not-ready", "The database is away, or `inlay db upgrade` has not run.")
    return Response("ok\n", content_type="text/plain; charset=utf-8")


@blueprint.get("/metrics")
def metrics() -> Response:
    """For Prometheus, where nobody else is let in: a page that others reach has its metrics on a port of their own."""
    settings = desk().settings
    if settings.metrics_port or settings.auth != "embedded":
        return problem(404, "not-here", "Metrics are told on INLAY_METRICS_PORT.")
    return Response(desk().metrics.page(), content_type=CONTENT_TYPE_LATEST)
