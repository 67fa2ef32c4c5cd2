"""`inlay listen`: the MLLP listener and the DICOM Storage SCP.

HL7 messages are taken in a thread, because storing them waits for the disk, and those that wait meanwhile are taken
together; DICOM has threads of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from inlay_core.application.tracing import NO_TRACER, Span, Tracer
from inlay_core.bootstrap import Services, bootstrap, tracer_of
from inlay_core.health import database_answers, told
from inlay_core.logs import configure_logs, get_logger
from inlay_core.settings import Settings
from inlay_dicom.scp import StorageScp
from inlay_gateway.answers import answer_targets, senders_of
from inlay_gateway.dicom import Recorder, site_of, storage_scp
from inlay_gateway.metrics import ListenerMetrics
from inlay_gateway.reception import Answered, Reception, Taken
from inlay_gateway.tls import listener_context
from inlay_hl7.ack import Outcome
from inlay_hl7.message import Notice
from inlay_hl7.senders import Senders
from inlay_hl7.server import Limits, MllpServer
from inlay_otel import open_spans

LOG: Final = get_logger(__name__)

# One group is stored at a time, by one thread: several would only divide the messages that wait.
_THREADS: Final = 1
# So many are stored well within a second, also where each has to be taken alone.
_GROUP: Final = 32
# Seconds, less than storing a group takes: what it costs an answer is won back by the group that it fills.
_MOMENT: Final = 0.005
# How long begun messages may take after SIGTERM, below the ten seconds that supervisors give.
_GRACE_SECONDS: Final = 8.0

# Tolerated because somebody configured it; any other deviation of an accepted message is worth a warning.
_CONFIGURED: Final = frozenset({Notice.CHARSET_FALLBACK.value})

# What happens on connections all day long; the rest is worth a warning.
_ORDINARY: Final = frozenset({"connected", "disconnected", "connection-closed"})


def run(settings: Settings) -> None:
    """Listen until SIGTERM or SIGINT. Raises Invalid for settings that cannot be, OSError for a port that is taken."""
    configure_logs("listen", level=settings.log_level, log_format=settings.log_format)
    senders, tls = senders_of(settings), listener_context(settings)
    answer_targets(settings, senders)  # What would be promised and could not be sent stops the listener.
    site = site_of(settings)
    services = bootstrap(settings, tracer=tracer_of(settings, "listen", open_spans))
    try:
        scp = storage_scp(settings, site, Recorder(services))
        asyncio.run(_serve(services, senders, tls, scp))
    finally:
        services.close()


async def _serve(services: Services, senders: Senders, tls: ssl.SSLContext | None, scp: StorageScp) -> None:
    settings = services.settings
    tracer = services.tracer
    reception = Reception(services.uow, services.clock, services.new_id, senders, services.site, tracer=tracer)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="intake") as pool:
        metrics = ListenerMetrics()
        server = listener(reception, pool, limits_of(settings), metrics, tracer)
        metrics.connections(lambda: server.connections)
        await server.start(settings.mllp_host, settings.mllp_port, tls)
        LOG.info("listener.ready", listener="mllp", host=settings.mllp_host, port=server.port)
        port = scp.start(settings.dicom_host, settings.dicom_port)
        LOG.info("listener.ready", listener="dicom", host=settings.dicom_host, port=port)
        try:
            # Only now: whoever sends us messages because we are ready finds both ports open.
            with told(settings, metrics.registry, ready=database_answers(services.reader)):
                await stopped.wait()
        finally:
            await asyncio.gather(asyncio.to_thread(scp.stop), server.stop(_GRACE_SECONDS))
    LOG.info("listener.stopped", listener="mllp")


def limits_of(settings: Settings) -> Limits:
    """What a peer may use."""
    return Limits(
        max_payload=settings.mllp_max_frame,
        connections=settings.mllp_max_connections,
        stall=settings.mllp_stall_seconds,
    )


def listener(
    reception: Reception,
    pool: ThreadPoolExecutor,
    limits: Limits,
    metrics: ListenerMetrics | None = None,
    tracer: Tracer = NO_TRACER,
) -> MllpServer:
    """A server that hands messages to the reception, in a thread of `pool`, and sends what it answers."""
    desk = Desk(reception, pool)

    async def handle(payload: bytes, peer: str) -> bytes:
        begun = time.monotonic()
        # The trace of a job begins here.
        with tracer.span("hl7 receive", kind="server", bytes=len(payload)) as span:
            answered = await desk.take(payload, peer, span.traceparent)
            _tell_answer(span, answered)
        seconds = time.monotonic() - begun
        _log_answer(answered, len(payload), peer, seconds)
        if metrics is not None:
            metrics.answered(answered.outcome, seconds, 0 if answered.repeated else answered.orders)
        return answered.payload

    return MllpServer(handle, limits=limits, observe=_log_connection)


class Takes(Protocol):
    """Answers messages that came together, in their order."""

    def take_all(self, messages: Sequence[Taken]) -> list[Answered]:
        """The answers."""
        ...


class Desk:
    """Where messages wait while others are stored: all that came meanwhile are the next group.

    A lone message waits for nobody; after a group, those who got its answers have a moment to be in the next one. A
    connection has one message here at a time, so its order is kept.
    """

    def __init__(self, reception: Takes, pool: ThreadPoolExecutor) -> None:
        self._reception = reception
        self._pool = pool
        self._waiting: deque[tuple[Taken, asyncio.Future[Answered]]] = deque()
        self._expected = 0
        self._are_back = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def take(self, payload: bytes, peer: str, traceparent: str | None = None) -> Answered:
        """The answer to a message."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answered] = loop.create_future()
        self._waiting.append((Taken(payload, peer, traceparent), answer))
        if len(self._waiting) >= self._expected:
            self._are_back.set()
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _GROUP))]
            messages, answers = zip(*group, strict=True)
            try:
                answered = await loop.run_in_executor(self._pool, self._reception.take_all, messages)
            except Exception as error:  # noqa: BLE001 (each connection is told, and cut off: no answer is a false one)
                for answer in answers:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for answer, each in zip(answers, answered, strict=True):
                if not answer.done():  # Its connection may be gone.
                    answer.set_result(each)
            await self._gather(len(group))

    async def _gather(self, answered: int) -> None:
        """Wait until as many messages came as were answered, but only a moment: under load they come at once.

        Without it the fastest sender's message would be a group of its own each time.
        """
        if answered > 1:
            self._expected = len(self._waiting) + answered
            self._are_back.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_MOMENT):
                    await self._are_back.wait()


def _tell_answer(span: Span, answered: Answered) -> None:
    span.set(ack=answered.outcome.original, code=answered.code, orders=answered.orders)
    if answered.message_id is not None:
        span.set(message_id=answered.message_id)
    if answered.outcome is not Outcome.ACCEPTED:
        span.fail(answered.code)


def _log_answer(answered: Answered, size: int, peer: str, seconds: float) -> None:
    levels: dict[Outcome, Callable[..., None]] = {Outcome.ACCEPTED: LOG.info, Outcome.UNAVAILABLE: LOG.error}
    log = levels.get(answered.outcome, LOG.warning)
    if answered.outcome is Outcome.ACCEPTED and set(answered.notices) - _CONFIGURED:
        log = LOG.warning
    log(
        "message.answered",
        outcome=answered.outcome.name.lower(),
        code=answered.code,
        place=answered.place,
        message_id=answered.message_id,
        flags=[*(["repeated"] if answered.repeated else []), *answered.notices],
        count=answered.orders,
        bytes=size,
        peer=peer,
        milliseconds=round(seconds * 1000),
    )


def _log_connection(event: str, peer: str, detail: str) -> None:
    log = LOG.debug if event in _ORDINARY else LOG.warning
    log("connection", action=event, peer=peer, reason=detail)
