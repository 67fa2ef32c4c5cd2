"""Requests as spans: only method, route and status are told. Whoever sends a traceparent has their trace gone on with.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from flask import Flask, Response, g, request

from inlay_api.metrics import METHODS
from inlay_core.application.tracing import Tracer, traceparent_of, under

# Asked every few seconds by whoever watches us.
_UNTRACED: Final = frozenset({"/livez", "/readyz", "/metrics"})


def trace(app: Flask, tracer: Tracer) -> None:
    """Trace the requests of an application. Call it before other hooks: they belong to the span."""
    if not tracer.is_on:
        return

    @app.before_request
    def begin() -> None:
        route = request.url_rule.rule if request.url_rule else "unknown"
        if route in _UNTRACED:
            return
        method = request.method if request.method in METHODS else "other"
        parent = traceparent_of(request.headers.get("traceparent", ""))
        g.span = tracer.begin(f"{method} {route}", kind="server", parent=parent, method=method, route=route)
        g.spanned = ExitStack()
        g.spanned.enter_context(under(g.span.traceparent))

    @app.after_request
    def finish(answer: Response) -> Response:
        if "span" in g:
            g.span.set(status=answer.status_code)
            if answer.status_code >= 500:
                g.span.fail(str(answer.status_code))
        return answer

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        if "span" in g:
            g.pop("span").end()
            g.pop("spanned").close()
