"""Celery's solo pool with a voice: pings are answered by a thread while the process is busy with a job."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.concurrency import solo

from inlay_core.logs import get_logger

_log = get_logger(__name__)


class TaskPool(solo.TaskPool):  # type: ignore[misc]  # Celery has no types
    """Runs jobs in the main thread; `is_green` has Celery listen to remote control through `spawn_n` instead of there.

    The plain solo pool reads its mailbox between two tasks only, so that a worker in the middle of a draft looks dead.
    """

    is_green = True

    def spawn_n(self, call: Callable[[Any], None], consumer: Any) -> None:
        """Start the mailbox's loop beside the work; it ends with the process, or with its connection.

        Celery starts it for each connection of the consumer, but does not see it end: where the mailbox alone has lost
        its connection, the consumer is made to lose its own, so that both are made anew.
        """
        connection = consumer.connection

        def listen() -> None:
            try:
                call(consumer)
            except consumer.connection_errors as error:
                _log.warning("mailbox.lost", exc_info=error)
                consumer.call_soon(partial(_lose, consumer, connection, error))

        threading.Thread(target=listen, name="mailbox", daemon=True).start()


def _lose(consumer: Any, connection: Any, error: Exception) -> None:
    """Raise the error where that connection is still the consumer's."""
    if consumer.connection is connection:
        raise error
