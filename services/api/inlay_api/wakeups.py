"""Wake-ups by the process that made the job: somebody sits in front of the screen and waits for it.

The outbox holds the same wake-up, and the relay sends it at its next look: one that is lost here costs that look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Final

from inlay_core.application.ports import Wakeup
from inlay_core.domain.errors import Unavailable
from inlay_core.logs import get_logger
from inlay_core.messaging import CeleryWakeup, celery_app
from inlay_core.settings import Settings

_LOG: Final = get_logger(__name__)
# So many may wait for a slow broker; for more of them the relay is as fast.
_MOST_WAITING: Final = 64


class Wakeups:
    """Tells the broker of jobs from a thread of its own: no request waits for a broker that is away."""

    def __init__(self, open_wakeup: Callable[[], Wakeup]) -> None:
        """`open_wakeup` is called in that thread, with the first job: starting needs no Celery."""
        self._open_wakeup = open_wakeup
        self._waiting: Queue[str] = Queue(_MOST_WAITING)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, settings: Settings) -> Wakeups:
        """Through the broker that the settings name."""
        return cls(lambda: CeleryWakeup(celery_app(settings)))

    def tell(self, job_id: str) -> None:
        """Tell of a queued job, soon; returns at once and never fails."""
        with suppress(Full):
            self._waiting.put_nowait(job_id)
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wakeups", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        wakeup = self._open_wakeup()
        while True:
            job_id = self._waiting.get()
            try:
                wakeup.wake([job_id])
            except Unavailable as error:
                _LOG.warning("wakeups.unavailable", job_id=job_id, code=error.code)
                self._forget()
            except Exception as error:  # noqa: BLE001 - a thread that died here would leave every later job to the relay.
                _LOG.error("wakeups.failed", job_id=job_id, exc_info=error)

    def _forget(self) -> None:
        """What queued up while the broker did not answer is the relay's: trying each in turn would only be late."""
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()
