"""What was forgotten is found again: leases that ran out, jobs that nobody took, images that arrived, events to chain.

Every sweep may run in several processes at once; the use cases see to it that one of them wins.
"""

from __future__ import annotations

from datetime import datetime, tzinfo

from inlay_core.application.comparing import keep_priors, orders_without_priors
from inlay_core.application.drafting import images_arrived, jobs_waiting_for_images, reclaim_expired, wake_forgotten
from inlay_core.application.ports import ImageSource, Notary, Wakeup
from inlay_core.application.trail import make_checkpoint, seal_trail
from inlay_core.domain.errors import NotFound, Unavailable
from inlay_core.domain.identity import system
from inlay_dicom.archive import Archive
from inlay_dicom.mapping import priors_of
from inlay_gateway.delivery import Books

_SWEEPER = system("sweeper")
# Rows per transaction: a long one would keep the listener of an embedded database waiting.
_BATCH = 100
_SEALED_AT_ONCE = 500
# A worker that takes one does all the jobs there are: more than workers, by far.
ENOUGH_WAKEUPS = 100


def reclaim(books: Books) -> int:
    """Give jobs whose worker fell silent back to the queue."""
    return len(reclaim_expired(books.new_uow(), books.clock, books.new_id, _SWEEPER, site=books.site, limit=_BATCH))


def wake(books: Books, forgotten_seconds: float, wakeup: Wakeup) -> int:
    """Announce queued jobs that nobody took: the broker may lose everything.

    Where it has lost nothing, because workers are away or busy, more wake-ups would only fill it, round after round.
    """
    try:
        if wakeup.waiting() >= ENOUGH_WAKEUPS:
            return 0
    except Unavailable:
        return 0  # It would hear nothing; the next round asks again.
    return wake_forgotten(
        books.new_uow(),
        books.clock,
        books.new_id,
        _SWEEPER,
        older_than_seconds=forgotten_seconds,
        site=books.site,
        limit=_BATCH,
    )


def queue_arrived(books: Books, images: ImageSource) -> int:
    """Queue the jobs whose images have arrived. A source that is away is asked again in the next round."""
    arrived = 0
    after: tuple[datetime, str] | None = None
    while waiting := jobs_waiting_for_images(books.new_uow(), limit=_BATCH, after=after):
        for each in waiting:
            if images.find(each.images.study_instance_uid, each.images.accession_number):
                arrived += _arrive(books, each.job.id)
        after = (waiting[-1].job.created_at, waiting[-1].job.id)
    return arrived


def _arrive(books: Books, job_id: str) -> int:
    try:
        images_arrived(books.new_uow(), books.clock, books.new_id, _SWEEPER, job_id)
    except NotFound:
        return 0
    return 1


def compare(books: Books, archive: Archive, zone: tzinfo) -> int:
    """Ask the archive for earlier studies of the patients whose drafts are still to come. Raises Unavailable."""
    orders = orders_without_priors(books.new_uow(), limit=_BATCH)
    for order in orders:
        found = priors_of(order, archive, zone)
        keep_priors(books.new_uow(), books.clock, books.new_id, _SWEEPER, order.id, found)
    return len(orders)


def seal(books: Books) -> int:
    """Chain what was recorded since the last time."""
    total = 0
    while sealed := seal_trail(books.new_uow(), limit=_SEALED_AT_ONCE):
        total += sealed
        if sealed < _SEALED_AT_ONCE:
            break
    return total


def checkpoint(books: Books, notary: Notary) -> int:
    """Sign where the chain stands; 0, for there is nothing to go on with."""
    make_checkpoint(books.new_uow(), books.clock, notary)
    return 0
