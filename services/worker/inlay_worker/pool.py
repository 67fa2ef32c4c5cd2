"""Celery's solo pool with a voice: pings are answered by a thread while the process is busy with a job."""

import threading
from collections.abc import Callable
from typing import Any

from celery.concurrency import solo


class TaskPool(solo.TaskPool):  # type: ignore[misc]  # Celery has no types
    """Runs jobs in the main thread; `is_green` has Celery listen to remote control through `spawn_n` instead of there.

    The plain solo pool reads its mailbox between two tasks only, so that a worker in the middle of a draft looks dead.
    """

    is_green = True

    def spawn_n(self, call: Callable[..., None], *arguments: Any) -> None:
        """Start the mailbox's loop beside the work; it ends with the process."""
        threading.Thread(target=call, args=arguments, name="mailbox", daemon=True).start()
