"""What a process tells those who watch it: /livez, /readyz and /metrics on INLAY_METRICS_PORT.

The API answers the first two on its own port, too. None of them needs a token or tells of people.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from inlay_core.application.ports import NewUnitOfWork
from inlay_core.domain.errors import DomainError, Unavailable
from inlay_core.domain.job import OPEN_STATES
from inlay_core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

Check = Callable[[], str | None]
"""What is wrong, in words without data; None where all is well."""

_TEXT: Final = "text/plain; charset=utf-8"
# Those who watch ask with short lines; what says nothing for so long holds no thread.
_PATIENCE_SECONDS: Final = 10.0


def all_well() -> str | None:
    """Nothing is wrong: a process that answers lives. A database that is away is no reason to restart it."""
    return None


def database_answers(reader: NewUnitOfWork) -> Check:
    """Whether the database answers and has our tables."""

    def check() -> str | None:
        try:
            with reader() as uow:
                uow.jobs.count(OPEN_STATES)
        except DomainError:
            return "the database is away, or `inlay db upgrade` has not run"
        return None

    return check


def told(
    settings: Settings,
    registry: CollectorRegistry,
    *,
    live: Check = all_well,
    ready: Check = all_well,
    shared: bool = False,
) -> AbstractContextManager[object]:
    """Answer while the context lasts, from threads that end with the process; port 0 is no answers at all.

    `shared`: several processes answer on this port, each some of the time.
    Raises Unavailable where the port cannot be had.
    """
    if not settings.metrics_port:
        return nullcontext()
    try:
        server = HealthServer((settings.http_host, settings.metrics_port), registry, live, ready, shared=shared)
    except OSError:
        raise Unavailable("port-taken", "The port for metrics cannot be had.", "INLAY_METRICS_PORT") from None
    return _answering(server)


@contextmanager
def _answering(server: HealthServer) -> Iterator[HealthServer]:
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class HealthServer(ThreadingHTTPServer):
    """Three paths, each asked anew every time."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], registry: CollectorRegistry, live: Check, ready: Check, *, shared: bool = False
    ) -> None:
        self._registry = registry
        self.allow_reuse_port = shared
        self._checks = {"/livez": live, "/readyz": ready}
        super().__init__(address, _Handler)

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Status, content type and body."""
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path not in self._checks:
            return HTTPStatus.NOT_FOUND, _TEXT, b"not found\n"
        wrong = self._checks[path]()
        status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
        return status, _TEXT, f"{wrong or 'ok'}\n".encode()


class _Handler(BaseHTTPRequestHandler):
    server: HealthServer
    timeout = _PATIENCE_SECONDS
    server_version = "inlay"
    sys_version = ""

    def do_GET(self) -> None:
        status, kind, body = self.server.answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a probe every few seconds is no news."""
