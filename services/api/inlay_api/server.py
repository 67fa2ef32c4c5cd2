"""`inlay serve`: the application under gunicorn with threads, configured from our settings and from nothing else."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

from gunicorn.app.base import BaseApplication

from inlay_api.auth import Verifier, check_exposure
from inlay_api.desk import NAME, Desk
from inlay_core.health import database_answers, told
from inlay_core.settings import Settings

# Finishing a request takes less; an event stream is cut and taken up again by its client.
GRACE_SECONDS: Final = 8
# A thread that streams events is busy for long and healthy: the worker's own heartbeat is what is watched.
SILENT_SECONDS: Final = 60


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn without a configuration file and without GUNICORN_CMD_ARGS."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self._settings = settings
        self._workers = workers
        self._telling = ExitStack()
        super().__init__()

    def load_config(self) -> None:
        """Our settings in gunicorn's words."""
        host = self._settings.http_host
        options: dict[str, Any] = {
            "bind": [f"[{host}]:{self._settings.http_port}" if ":" in host else f"{host}:{self._settings.http_port}"],
            "worker_class": "gthread",
            "workers": self._workers,
            "threads": self._settings.http_threads,
            "timeout": SILENT_SECONDS,
            "graceful_timeout": GRACE_SECONDS,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        # A setting that this version of gunicorn does not know yet needs no setting.
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        """The application, made in the worker: connections and locks are never shared between processes.

        Its metrics and health are told on a port of their own until the process ends.
        """
        from inlay_api.app import create_app

        app = create_app(self._settings)
        desk: Desk = app.extensions[NAME]
        ready = database_answers(desk.services.reader)
        # Several workers share the port, and a scrape sees one of them.
        self._telling.enter_context(told(self._settings, desk.metrics.registry, ready=ready, shared=self._workers > 1))
        return app


def run(settings: Settings, workers: int = 1) -> None:
    """Serve until SIGTERM. Raises Invalid, before anything listens, for settings that would expose patients' data."""
    check_exposure(settings)
    # Reading (or making) the keys here tells of a missing JWKS file before processes are forked.
    Verifier(settings)
    Server(settings, workers).run()
