"""`inlay relay`: carries out after the commit what transactions decided, and sweeps up what was forgotten.

Each duty has a thread of its own, so that a peer that is away or a slow image source keeps no other duty waiting.
Several relays may run at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Final

from inlay_core.application.ports import ImageSource, Wakeup
from inlay_core.bootstrap import Services, bootstrap, tracer_of
from inlay_core.domain.errors import Unavailable
from inlay_core.health import database_answers, told
from inlay_core.logs import configure_logs, get_logger
from inlay_core.messaging import CeleryWakeup, celery_app
from inlay_core.notary import notary_of
from inlay_core.settings import Settings
from inlay_core.targets import ResultTarget, result_targets
from inlay_dicom.archive import Archive
from inlay_dicom.mapping import ArchiveImages, FolderImages
from inlay_gateway.answers import answer_targets, deliver_answer, senders_of
from inlay_gateway.delivery import Attempted, Books, Oru, Sent, deliver_result, deliver_wakeups, unheard
from inlay_gateway.dicom import archives, needed_studies, sender_of, site_of, store_of
from inlay_gateway.documents import Documents, Form, deliver_document
from inlay_gateway.metrics import Deliveries, Rounds, registry_of
from inlay_gateway.notifying import Notifier, deliver_notification, http_client
from inlay_gateway.printing import printed_result
from inlay_gateway.sweepers import checkpoint, compare, queue_arrived, reclaim, seal, wake
from inlay_gateway.syslog import export, receiver_of
from inlay_gateway.tls import client_context
from inlay_gateway.writeback import deliver_report, target_of
from inlay_hl7.client import MllpClient
from inlay_otel import open_spans

LOG: Final = get_logger(__name__)

# An order that was just acknowledged waits for the next look at the outbox, so the looks are close together.
_OUTBOX_SECONDS: Final = 0.2
# After an error (the database is away) a duty rests for a while instead of filling the log.
_REST_SECONDS: Final = 2.0
# Received images are kept for days: an hour more or less does not matter.
_RETENTION_SECONDS: Final = 3600.0
_DAY_S: Final = 86_400.0
# Twice the longest step that does not wait for a peer.
_JOIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Duty:
    """Something to be done again and again: `round` says how much there was, and goes on at once if there was some."""

    name: str
    pause: float
    round: Callable[[], int]


Watched = Callable[[str], AbstractContextManager[None]]


def run(settings: Settings) -> None:
    """Relay until SIGTERM or SIGINT."""
    configure_logs("relay", level=settings.log_level, log_format=settings.log_format)
    services = bootstrap(
        settings,
        images=lambda chosen: FolderImages.below(chosen.images),
        tracer=tracer_of(settings, "relay", open_spans),
    )
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        rounds = Rounds()
        registry = registry_of(rounds)
        all_of_them = duties(services, CeleryWakeup(celery_app(settings)), Deliveries(registry).attempted)
        with told(settings, registry, ready=database_answers(services.reader)):
            LOG.info("relay.ready", destination=[target.destination for target in result_targets(settings)])
            work(all_of_them, stopped, rounds=rounds)
        LOG.info("relay.stopped")
    finally:
        services.close()


def duties(services: Services, wakeup: Wakeup, attempted: Attempted = unheard) -> list[Duty]:
    """All that a relay does with these settings."""
    settings = services.settings
    books = Books(
        services.uow, services.clock, services.new_id, services.site, tracer=services.tracer, attempted=attempted
    )
    all_of_them = [
        Duty("wakeups", _OUTBOX_SECONDS, lambda: _told(deliver_wakeups(books, wakeup))),
        Duty("leases", settings.sweep_seconds, lambda: _swept("leases", reclaim(books))),
        Duty(
            "forgotten",
            settings.sweep_seconds,
            lambda: _announced(wake(books, settings.forgotten_seconds, wakeup)),
        ),
        Duty("seal", settings.sweep_seconds, lambda: seal(books)),
    ]
    notary = notary_of(settings) if settings.audit_checkpoint_seconds else None
    if notary is not None:
        all_of_them.append(Duty("checkpoint", settings.audit_checkpoint_seconds, lambda: checkpoint(books, notary)))
    receiver = receiver_of(settings)
    if receiver is not None:
        all_of_them.append(Duty("syslog", settings.sweep_seconds, lambda: export(books, receiver)))
    neighbours = site_of(settings)
    keep_s = neighbours.listener.keep_days * _DAY_S
    store = store_of(settings, neighbours)
    all_of_them.append(
        Duty("retention", _RETENTION_SECONDS, lambda: _removed(store.forget(keep_s, needed_studies(services))))
    )
    if services.images is not None:
        all_of_them.append(_images_duty(books, services.images, settings.sweep_seconds))
    for number, archive in enumerate(archives(settings, neighbours)):
        # A folder index of its own: the duty that watches the folder must not wait for one that waits for an archive.
        source = ArchiveImages(FolderImages.below(settings.images), archive)
        all_of_them.append(_images_duty(books, source, settings.sweep_seconds, f"archive-{number}"))
    all_of_them += [_comparison_duty(books, archive, settings) for archive in archives(settings, neighbours)[:1]]
    sender = sender_of(settings, neighbours)
    if sender is not None:
        forms = frozenset(Form) if settings.dicom_documents == "both" else frozenset({Form(settings.dicom_documents)})
        printed = partial(printed_result, font=settings.pdf_font)
        documents = Documents(sender, settings.facility, settings.zone, services.images, forms, printed)
        all_of_them.append(Duty("documents", _OUTBOX_SECONDS, lambda: _told(deliver_document(books, documents))))
    all_of_them += [_results_duty(books, target, settings) for target in result_targets(settings)]
    all_of_them += [_answers_duty(books, target) for target in answer_targets(settings, senders_of(settings))]
    if settings.fhir_target:
        target = target_of(settings)
        all_of_them.append(Duty("write-back", _OUTBOX_SECONDS, lambda: _told(deliver_report(books, target))))
    if settings.origins:
        notifier = Notifier(http_client(), settings.origins, settings.subscription_secret, settings.fhir_url)
        all_of_them.append(Duty("notifications", _OUTBOX_SECONDS, lambda: _told(deliver_notification(books, notifier))))
    return all_of_them


def _results_duty(books: Books, target: ResultTarget, settings: Settings) -> Duty:
    """Each target has a thread and a connection of its own: one that is away keeps no other waiting."""
    client = _client_of(target)
    printed = partial(printed_result, font=settings.pdf_font) if target.pdf else None
    oru = Oru(target, client, settings.application, settings.facility, printed)
    return Duty(f"results {target.destination}", _OUTBOX_SECONDS, lambda: _told(deliver_result(books, oru)))


def _answers_duty(books: Books, target: ResultTarget) -> Duty:
    """A connection beside that of results: a result that waits keeps no acknowledgement waiting."""
    client = _client_of(target)
    name = f"answers {target.filter.name}"
    return Duty(name, _OUTBOX_SECONDS, lambda: _told(deliver_answer(books, target, client)))


def _client_of(target: ResultTarget) -> MllpClient:
    tls = client_context(target.tls) if target.tls else None
    name = target.tls.server_name if target.tls else ""
    return MllpClient(target.host, target.port, timeout=target.timeout_seconds, tls=tls, server_name=name)


def _images_duty(books: Books, images: ImageSource, pause: float, name: str = "images") -> Duty:
    return Duty(name, pause, lambda: _swept(name, queue_arrived(books, images)))


def _comparison_duty(books: Books, archive: Archive, settings: Settings) -> Duty:
    return Duty(
        "comparison", settings.sweep_seconds, lambda: _swept("comparison", compare(books, archive, settings.zone))
    )


def work(
    all_of_them: Sequence[Duty],
    stopped: threading.Event,
    rest: float = _REST_SECONDS,
    rounds: Rounds | None = None,
) -> None:
    """Do every duty in a thread of its own until `stopped` is set; `rounds` sees how long each takes."""
    watched = (rounds or Rounds()).watched
    threads = [
        threading.Thread(target=_repeat, args=(duty, stopped, rest, watched), name=duty.name, daemon=True)
        for duty in all_of_them
    ]
    for thread in threads:
        thread.start()
    stopped.wait()
    for thread in threads:
        # A thread that still waits for a peer is left behind: its item's lease runs out and it is sent again.
        thread.join(_JOIN_SECONDS)


def _repeat(duty: Duty, stopped: threading.Event, rest: float, watched: Watched) -> None:
    while not stopped.is_set():
        pause = duty.pause
        try:
            with watched(duty.name):
                done = duty.round()
            if done:
                pause = 0.0
        except Unavailable as error:
            LOG.warning("duty.unavailable", component=duty.name, code=error.code)
            pause = max(pause, rest)
        except Exception:
            # A duty that ended here would lose what it is there to save.
            LOG.exception("duty.failed", component=duty.name)
            pause = max(pause, rest)
        stopped.wait(pause)


def _told(items: Sequence[Sent]) -> int:
    """Log each delivery; what failed does not count as work done, so that the outbox is not asked in a tight loop."""
    for sent in items:
        log = LOG.info if sent.ok else LOG.warning
        log(
            "outbox.delivered" if sent.ok else "outbox.undelivered",
            destination=sent.item.destination,
            item_id=sent.item.id,
            report_id=sent.item.payload.get("report_id"),
            job_id=sent.item.payload.get("job_id"),
            version=sent.item.payload.get("version"),
            attempts=sent.item.attempts,
            code=sent.code,
        )
    return sum(sent.ok for sent in items)


def _removed(count: int) -> int:
    """Log it, and rest all the same: what was old enough is gone."""
    if count:
        LOG.info("sweep", component="retention", count=count)
    return 0


def _announced(count: int) -> int:
    """Log it, and rest all the same: the broker is to have these before it is asked how many wait."""
    _swept("forgotten", count)
    return 0


def _swept(name: str, count: int) -> int:
    if count:
        LOG.info("sweep", component=name, count=count)
    return count
