"""A worker says now and then that it is there: idle ones, which hold no lease, would otherwise be seen by nobody."""

import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from inlay_core.application.administration import tell_of_worker, worker_ended
from inlay_core.application.ports import NewUnitOfWork, WorkerSeen
from inlay_core.domain.errors import DomainError
from inlay_core.domain.ids import Clock
from inlay_core.domain.switch import Writer
from inlay_core.logs import get_logger

_log = get_logger(__name__)

# One small write; a worker counts as silent after four of them are missing.
TOLD_EVERY_SECONDS: Final = 15.0


class Presence:
    """`with Presence(...)` tells of this worker from a thread of its own; `jobs` says how many jobs it does now."""

    def __init__(
        self,
        *,
        worker_id: str,
        uow: NewUnitOfWork,
        clock: Clock,
        writer: Writer,
        adapters: Sequence[str] = (),
        device: str = "",
        jobs: Callable[[], int] = lambda: 0,
    ) -> None:
        now = clock()
        # Folders may tell of a site's file system, and only their last part names the adapter.
        names = tuple(Path(folder).name for folder in adapters)
        host = platform.node()
        self._seen = WorkerSeen(worker_id, host, writer.name, writer.digest, names, device, 0, now, now)
        self._uow = uow
        self._clock = clock
        self._jobs = jobs
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell_until_ended, name="presence", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        try:
            worker_ended(self._uow(), self._seen.id)
        except DomainError as problem:
            # The row says when it was seen last, and is dropped in a day.
            _log.warning("presence.not_ended", exc_info=problem)

    def tell(self) -> None:
        """Tell once. A database that is away is no reason to work less."""
        try:
            tell_of_worker(self._uow(), replace(self._seen, jobs=self._jobs(), seen_at=self._clock()))
        except DomainError as problem:
            _log.warning("presence.not_told", exc_info=problem)

    def _tell_until_ended(self) -> None:
        while True:
            try:
                self.tell()
            except Exception as problem:  # noqa: BLE001 - a thread that dies silently would look like a dead worker.
                _log.error("presence.not_told", exc_info=problem)
            if self._ended.wait(TOLD_EVERY_SECONDS):
                return
