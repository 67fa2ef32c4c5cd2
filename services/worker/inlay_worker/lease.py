"""The lease on a job, renewed by a thread beside it, and the answer to "shall I stop?" between two denoising steps.

A worker that is busy denoising is mute; the thread says that it lives. It stops the job when the lease cannot be kept.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from inlay_core.application.drafting import glance, heartbeat
from inlay_core.application.ports import NewUnitOfWork, Site
from inlay_core.domain.errors import DomainError, Stale
from inlay_core.domain.ids import Clock
from inlay_core.domain.job import Job
from inlay_core.domain.switch import UNKNOWN, Writer
from inlay_core.logs import get_logger

_log = get_logger(__name__)

# Renewed three times per lease: two renewals may fail (a database that restarts) before the job is lost.
_RENEWALS: Final = 3
# A step of a small model takes milliseconds; looking at the row is cheap, but not that cheap on a slow disk.
_LOOK_SECONDS: Final = 0.05


class Lease:
    """`with Lease(...) as lease:` holds the job. `stop_reason` is why to stop, `lost` that nothing may be written."""

    def __init__(
        self,
        job: Job,
        *,
        uow: NewUnitOfWork,
        reader: NewUnitOfWork,
        clock: Clock,
        site: Site,
        writer: Writer = UNKNOWN,
        stopping: Callable[[], bool] = lambda: False,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._uow = uow
        self._reader = reader
        self._clock = clock
        self._site = site
        self._writer = writer
        self._stopping = stopping
        self._timer = timer
        self._ended = threading.Event()
        self._valid_until = timer() + site.lease_seconds
        self._look_again = 0.0
        self._thread = threading.Thread(target=self._renew_until_ended, name="lease", daemon=True)
        self.stop_reason: str | None = None
        self.lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def should_stop(self) -> bool:
        """Whether to stop now: the job was cancelled or superseded, the lease is lost, or the process is ending."""
        if self.stop_reason is None and self._stopping():
            self.stop_reason = "shutting-down"
        if self.stop_reason is None and self._timer() >= self._look_again:
            self._look_again = self._timer() + _LOOK_SECONDS
            self._look()
        return self.stop_reason is not None

    def renew(self) -> None:
        """Ask for a longer lease once; what is heard is kept for `should_stop`."""
        asked = self._timer()
        try:
            pulse = heartbeat(
                self._uow(),
                self._clock,
                self._job.id,
                fence=self._job.fence,
                site=self._site,
                writer=self._writer,
            )
        except Stale:
            self._lose()
        except DomainError as error:
            # The database may be back before the lease is over; after that another worker may hold the job.
            _log.warning("lease.not_renewed", job_id=self._job.id, exc_info=error)
            if self._timer() >= self._valid_until:
                self._lose()
        else:
            self._valid_until = asked + self._site.lease_seconds
            if pulse.stop:
                self.stop_reason = self.stop_reason or pulse.reason or "stopped"

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(self._site.lease_seconds / _RENEWALS):
            try:
                self.renew()
            except Exception as error:  # noqa: BLE001 - a thread that dies silently would lose every lease after it.
                _log.error("lease.not_renewed", job_id=self._job.id, exc_info=error)
                if self._timer() >= self._valid_until:
                    self._lose()

    def _look(self) -> None:
        """Read the job's row and the switches: a cancellation and a kill switch must not wait for the next renewal."""
        job = self._job
        try:
            pulse = glance(self._reader(), job.id, fence=job.fence, site=self._site, writer=self._writer)
        except Stale:
            self._lose()
        except DomainError:
            return  # The renewal decides what a database that is away means.
        else:
            if pulse.stop:
                self.stop_reason = pulse.reason

    def _lose(self) -> None:
        self.lost = True
        self.stop_reason = "lease-lost"
