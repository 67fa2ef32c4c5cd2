"""The application: blueprints on one Flask app, with the rules of the edge around every request.

Nothing that a client sends reaches a log: lines have the route's pattern, the status and the time.
"""

from __future__ import annotations

import re
import time
import uuid
from typing import Final

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from inlay_api import (
    administration,
    catalogue,
    fhir_mount,
    health,
    limits,
    login,
    openapi,
    oversight,
    pages,
    problems,
    reader_studies,
    visitors,
)
from inlay_api.auth import Verifier, check_exposure, is_loopback
from inlay_api.bodies import MAX_BODY
from inlay_api.desk import NAME, Desk
from inlay_api.metrics import Metrics
from inlay_api.oidc import Provider
from inlay_api.problems import Refused, Unauthenticated
from inlay_api.readings import Readings
from inlay_api.routes import PREFIX
from inlay_api.tracing import trace
from inlay_api.wakeups import Wakeups
from inlay_core.application.ports import ImageSource
from inlay_core.bootstrap import Services, bootstrap, tracer_of
from inlay_core.domain.errors import Category, DomainError
from inlay_core.logs import configure_logs, get_logger
from inlay_core.settings import Settings
from inlay_otel import open_spans

_LOG: Final = get_logger(__name__)
# Only what has the form of a random id is taken over: a request id stands in logs, and a caller may put anything there.
_REQUEST_ID: Final = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
# Asked every few seconds by whoever supervises us.
_QUIET: Final = frozenset({"/livez", "/readyz", "/metrics"})
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "style-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, browsers would send `Origin: null` with our own forms, and none of them would be believed.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # Reports are about patients: no copy stays in a browser or a proxy.
    "Cache-Control": "no-store",
}
"""On every answer that does not say otherwise."""
_BY_NAME: Final = tuple((name.lower(), (name, value)) for name, value in HEADERS.items())


def create_app(settings: Settings, services: Services | None = None) -> Flask:
    """The application; call it after forking. Raises Invalid for settings that would expose patients' data."""
    check_exposure(settings)
    if services is None:
        configure_logs("serve", level=settings.log_level, log_format=settings.log_format)
        services = bootstrap(settings, tracer=tracer_of(settings, "serve", open_spans))
    app = Flask(NAME, root_path=__file__.rpartition("/")[0])
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    readings, metrics = Readings(services), Metrics(services.reader, services.clock)
    wakeups = Wakeups.of(settings)
    app.extensions[NAME] = Desk(
        services,
        Verifier(settings),
        metrics,
        readings,
        fhir_mount.router_of(services, readings, metrics.ordered, wakeups.tell),
        wakeups,
        _folder,
        Provider(settings) if settings.oidc_issuer else None,
    )
    for routes in openapi.parts():
        app.register_blueprint(routes.blueprint, url_prefix=PREFIX)
    for part in (fhir_mount, health, login, pages, oversight, reader_studies, administration):
        app.register_blueprint(part.blueprint)
    trace(app, services.tracer)
    _guard(app, settings)
    limits.limit(app, settings, fhir_mount.MOUNT)
    _answer_errors(app)
    app.context_processor(visitors.frame)
    app.jinja_env.globals["t"] = catalogue.text
    return app


def _folder(settings: Settings) -> ImageSource:
    from inlay_dicom.mapping import FolderImages

    return FolderImages.below(settings.images)


def _guard(app: Flask, settings: Settings) -> None:
    """Before a request: its id, and whose name it was sent to. After it: headers, one log line, one count."""

    @app.before_request
    def begin() -> None:
        g.began = time.monotonic()
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given.lower() if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        if settings.auth == "embedded" and not _is_ours(request.host, settings):
            # A name of somebody else's that resolves to loopback (DNS rebinding): their script would be same-origin.
            raise Refused(421, "wrong-host", "The embedded mode answers to its own address only.", "Host")

    @app.after_request
    def finish(answer: Response) -> Response:
        said = {name.lower() for name, _ in answer.headers}
        answer.headers.extend([header for name, header in _BY_NAME if name not in said])
        if visitors.is_secure(settings) and settings.public_url:
            answer.headers["Strict-Transport-Security"] = "max-age=31536000"
        answer.headers["X-Request-Id"] = g.get("request_id", "")
        _tell(app, answer)
        return answer


def _is_ours(host: str, settings: Settings) -> bool:
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    return is_loopback(name) or name.strip("[]").lower() == settings.http_host.lower()


def _tell(app: Flask, answer: Response) -> None:
    seconds = time.monotonic() - g.get("began", time.monotonic())
    route = request.url_rule.rule if request.url_rule else "unknown"
    desk: Desk = app.extensions[NAME]
    desk.metrics.answered(request.method, route, answer.status_code, seconds)
    if route not in _QUIET:
        _LOG.info(
            "http.request",
            method=request.method if request.method.isalpha() and len(request.method) < 10 else "other",
            route=route,
            status=answer.status_code,
            milliseconds=round(seconds * 1000, 1),
            request_id=g.get("request_id"),
        )


def _answer_errors(app: Flask) -> None:
    def shaped(answer: Response) -> Response:
        if request.path.startswith(f"{fhir_mount.MOUNT}/"):
            return problems.as_outcome(answer)
        return visitors.as_page(answer) if visitors.opens_page() else answer

    @app.errorhandler(DomainError)
    def domain(error: DomainError) -> Response:
        if error.category in (Category.FAULT, Category.UNAVAILABLE):
            _LOG.warning("http.failed", request_id=g.get("request_id"), exc_info=error)
        return shaped(problems.of_domain(error))

    @app.errorhandler(Unauthenticated)
    def unauthenticated(error: Unauthenticated) -> Response:
        return shaped(problems.of_unauthenticated(error))

    @app.errorhandler(Refused)
    def refused(error: Refused) -> Response:
        return shaped(problems.of_refused(error))

    @app.errorhandler(visitors.LoginNeeded)
    def login_needed(needed: visitors.LoginNeeded) -> Response:
        return visitors.to_login(needed)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        return shaped(problems.of_http(error))

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        _LOG.error("http.fault", request_id=g.get("request_id"), exc_info=error)
        return shaped(problems.of_unexpected(error))
