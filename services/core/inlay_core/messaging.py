"""The broker: names, payloads of ids only, and the Celery configuration. A message is a wake-up, never the truth.

Celery is imported when it is needed: the API and the database commands start without it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from inlay_core.domain.errors import Unavailable
from inlay_core.redis_servers import is_sentinel
from inlay_core.settings import Settings

QUEUE: Final = "inlay.drafts"
"""The queue that workers listen to."""

WAKE_TASK: Final = "inlay.wake"
"""The task: "look into the database, there is work". Its payload is `{"job_id": ...}`."""

# A worker that is woken too late loses a second, one that waits for a dead broker would stall the relay.
_SOCKET_SECONDS: Final = 5
# A connection that is only there on one end (a cut network, a firewall that forgot it) is found out after this time,
# the worker's wait for messages after three times as much; Celery itself would take an hour or never see it.
_HEALTH_SECONDS: Final = 10
_KEEPALIVE: Final = {"TCP_KEEPIDLE": _HEALTH_SECONDS, "TCP_KEEPINTVL": _HEALTH_SECONDS, "TCP_KEEPCNT": 3}
# Redis hands a message out again when it was not acknowledged for so long; fences make that harmless, and the
# sweeper repeats wake-ups much earlier.
_VISIBILITY_SECONDS: Final = 3600


def wake_payload(job_id: str) -> dict[str, str]:
    """All that the broker ever sees of a job."""
    return {"job_id": job_id}


def celery_settings(settings: Settings) -> dict[str, Any]:
    """The configuration of the Celery application, in Celery's own lower-case names."""
    broker = _redis(settings) if settings.broker_url else _folders(settings.home)
    return {
        **broker,
        "task_default_queue": QUEUE,
        # Results are rows of the database; a result backend would be a second truth.
        "task_ignore_result": True,
        "result_backend": None,
        # Ids in JSON; pickled messages could run code.
        "task_serializer": "json",
        "accept_content": ["json"],
        # A message counts as taken only when its job is done: a killed worker's wake-up comes again.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # No limit: a process does one message at a time before it reads the next, so that none is in its pocket. With a
        # limit, an acknowledgement that Redis did not hear would never be given back: a limit of 1 is used up by the
        # first of them, and the worker takes nothing any more.
        "worker_prefetch_multiplier": 0,
        "worker_concurrency": 1,
        # Celery swallows stdout unless told not to, and would replace our log format.
        "worker_redirect_stdouts": False,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
        "broker_connection_retry_on_startup": True,
        # Losing the connection must not cancel a draft that is under way: it has a lease in the database.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "enable_utc": True,
        "timezone": "UTC",
    }


def _redis(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": settings.broker_url,
        "broker_transport_options": {
            "visibility_timeout": _VISIBILITY_SECONDS,
            "socket_timeout": _SOCKET_SECONDS,
            "socket_connect_timeout": _SOCKET_SECONDS,
            "health_check_interval": _HEALTH_SECONDS,
            "socket_keepalive": True,
            # Not every system has all of them.
            "socket_keepalive_options": {
                getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)
            },
            # Whoever announces jobs does not wait for the broker: the outbox tries again.
            "max_retries": 1,
            **({"master_name": settings.redis_master} if is_sentinel(settings.broker_url) else {}),
            "interval_start": 0,
            "interval_step": 0,
        },
    }


def _folders(home: Path) -> dict[str, Any]:
    """Celery's file transport: producers and consumers share one folder of messages."""
    queue, control = broker_folders(home)
    return {
        # Without a host name kombu warns at every connection.
        "broker_url": "filesystem://localhost",
        "broker_transport": "inlay_core.file_broker:Transport",
        "broker_transport_options": {
            # Listing a folder takes microseconds; kombu's own second would be most of what a job takes.
            "polling_interval": 0.02,
            "data_folder_in": str(queue),
            "data_folder_out": str(queue),
            "control_folder": str(control),
            "store_processed": False,
        },
    }


def broker_folders(home: Path) -> tuple[Path, Path]:
    """The folders of messages and of queue tables in embedded mode."""
    base = home.absolute() / "broker"
    return base / "queue", base / "control"


def celery_app(settings: Settings, name: str = "inlay") -> Any:
    """A Celery application with that configuration; in embedded mode its folders are made."""
    from celery import Celery

    if not settings.broker_url:
        for folder in broker_folders(settings.home):
            folder.mkdir(parents=True, exist_ok=True)
    app = Celery(name, set_as_current=False)
    app.conf.update(celery_settings(settings))
    return app


class CeleryWakeup:
    """`Wakeup` through Celery."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def wake(self, job_ids: Sequence[str]) -> None:
        """Announce jobs; raise Unavailable when the broker does not take it."""
        with _answering():
            for job_id in job_ids:
                self._app.send_task(WAKE_TASK, kwargs=wake_payload(job_id), queue=QUEUE, retry=False)

    def waiting(self) -> int:
        """Wake-ups in the workers' queue; raise Unavailable when the broker does not say."""
        # As sending does: kombu's own errors of a connection instead of those of its transport.
        with (
            _answering(),
            self._app.connection_or_acquire() as connection,
            connection._reraise_as_library_errors(),  # noqa: SLF001
        ):
            return int(connection.default_channel.queue_declare(queue=QUEUE).message_count)


@contextmanager
def _answering() -> Iterator[None]:
    from kombu.exceptions import OperationalError

    try:
        yield
    except (OperationalError, OSError) as error:
        raise Unavailable("broker-away", f"The broker does not answer ({type(error).__name__}).") from None
