"""Whether a worker does what it is there for: it hears wake-ups, and looks into the database when it does."""

from collections.abc import Callable
from typing import Any, Final

from inlay_core.application.switching import allowance
from inlay_core.domain.errors import DomainError
from inlay_core.domain.job import JobKind
from inlay_core.health import Check
from inlay_core.logs import get_logger
from inlay_worker.work import Worker

_log = get_logger(__name__)

# The sweeper repeats wake-ups every INLAY_FORGOTTEN_SECONDS. One may go to another worker, or be lost; three in a row
# that an idle worker did not hear mean that it hears none.
_UNHEARD: Final = 3


def is_deaf(worker: Worker, forgotten_seconds: float) -> bool:
    """Whether jobs wait, and this worker is idle and has not looked for them. Raises DomainError without a database."""
    silent = worker.timer() - worker.looked > _UNHEARD * forgotten_seconds
    now = worker.clock()
    with worker.reader() as uow:
        # What a switch stops waits for good reason.
        allowed = allowance(uow, worker.site).for_writer(worker.generation.writer)
        waiting = uow.jobs.unwoken(now, now, allowed, 1)
    return bool(waiting) and silent and not worker.busy


def may_generate(worker: Worker) -> frozenset[JobKind]:
    """What this worker may write at all now: what is stopped is not even done with a made-up picture.

    A database that cannot be asked allows nothing.
    """
    try:
        with worker.reader() as uow:
            kinds = allowance(uow, worker.site).for_writer(worker.generation.writer).kinds
    except DomainError as error:
        _log.warning("work.not_warmed", exc_info=error)
        return frozenset()
    for kind in set(JobKind).difference(kinds):
        _log.info("work.not_warmed", reason="generation-off", kind=kind)
    return frozenset(kinds)


def consumes(worker: Worker, forgotten_seconds: float) -> Check:
    """What is wrong with a worker that is deaf."""

    def check() -> str | None:
        try:
            deaf = is_deaf(worker, forgotten_seconds)
        except DomainError:
            return "the database is away, or `inlay db upgrade` has not run"
        return "jobs wait, and this worker hears no wake-up" if deaf else None

    return check


def look_unasked(worker: Worker, forgotten_seconds: float, wake: Callable[[], Any]) -> Callable[[], None]:
    """What an idle worker does every `forgotten_seconds`: where it stays deaf, it does what waits as if it was woken.

    Deaf once is none too many: a job that has just come is about to be announced. The function raises ConnectionError
    after that: whoever listens to the broker for this worker connects anew.
    """
    deaf_before = False

    def look() -> None:
        nonlocal deaf_before
        try:
            deaf = is_deaf(worker, forgotten_seconds)
        except DomainError:
            return
        deaf_before, stays = deaf, deaf and deaf_before
        if stays:
            _log.warning("work.deaf")
            wake()
            raise ConnectionError

    return look
