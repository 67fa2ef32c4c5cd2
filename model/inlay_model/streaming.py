"""Steps told to a listener from a thread of its own, so that decoding, databases and sockets never hold up the loop.

The newest canvas wins: a listener that is slow, or wants to hear only every so often, misses canvases and never falls
behind. The last one is always told.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from inlay_model.request import StepEvent


class Stream:
    """`with Stream(tell) as on_step:` hands events to `tell`, at most one every `seconds`, and the last one at the end.

    An error of the listener ends the telling, not the work; it is kept in `error`. `told` counts the events that the
    listener heard, `heard` those that there were.
    """

    def __init__(
        self,
        tell: Callable[[StepEvent], None],
        *,
        seconds: float = 0.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._seconds = seconds
        self._timer = timer
        self._newest: StepEvent | None = None
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self.heard = 0
        self.told = 0
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def __call__(self, event: StepEvent) -> None:
        """Take an event; returns at once."""
        with self._changed:
            self._newest = event
            self.heard += 1
            self._changed.notify()

    def _run(self) -> None:
        free_at = self._timer()
        while (event := self._next(free_at)) is not None:
            try:
                self._tell(event)
            except Exception as error:  # noqa: BLE001 - whatever a listener does wrong, the work goes on
                self.error = error
                return
            self.told += 1
            free_at = self._timer() + self._seconds

    def _next(self, free_at: float) -> StepEvent | None:
        """The newest event once it is time for it; None when all is told and the work has ended."""
        with self._changed:
            while True:
                left = free_at - self._timer()
                if self._newest is not None and (self._ended or left <= 0):
                    event, self._newest = self._newest, None
                    return event
                if self._ended:
                    return None
                self._changed.wait(None if self._newest is None else left)
