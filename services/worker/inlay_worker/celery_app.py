"""The Celery process around the worker. Importing this module loads neither torch nor the model.

The settings of the broker stand in `inlay_core.messaging`; here are those of the consuming side, each with its reason.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from inlay_core.logs import configure_logs, get_logger
from inlay_core.messaging import QUEUE, WAKE_TASK, celery_app
from inlay_core.settings import Settings

if TYPE_CHECKING:
    from inlay_worker.generation import Model

_log = get_logger(__name__)

WORKER_OPTIONS: Final[dict[str, Any]] = {
    # Jobs run in the process that loaded the model: a pool of children would load it again, or fork a CUDA context,
    # which CUDA forbids. Celery's solo pool, but for its muteness.
    "pool": "inlay_worker.pool:TaskPool",
    "concurrency": 1,
    "queues": [QUEUE],
    # Workers learn nothing from each other: leases in the database decide who does what. Gossip, mingle and heartbeat
    # events are traffic on the broker for nothing, and mingle delays the start by a second.
    "without_gossip": True,
    "without_mingle": True,
    "without_heartbeat": True,
    # No banner: one JSON object per line is what reads the log.
    "quiet": True,
}


def make_app(settings: Settings) -> Any:
    """The application as the worker uses it."""
    app = celery_app(settings)
    if not settings.broker_url:
        # Nobody pings an embedded worker, and on the file transport each start of one would leave a reply queue behind.
        app.conf.worker_enable_remote_control = False
    return app


def run(settings: Settings, load: "Callable[[Settings], Model] | None" = None) -> int:
    """Work until SIGTERM or SIGINT; return the exit status.

    `load` gives the model, by default the one that the settings name. It is called before the first job is taken: a
    checkpoint that cannot be used raises Unavailable here, and jobs stay queued rather than fail one by one.
    A job in progress is stopped between two denoising steps and goes back to the queue.
    """
    from celery import signals
    from celery.exceptions import WorkerShutdown

    from inlay_core.bootstrap import tracer_of
    from inlay_core.health import told
    from inlay_otel import open_spans
    from inlay_worker.metrics import Jobs, registry_of
    from inlay_worker.readiness import consumes, look_unasked, may_generate
    from inlay_worker.tasks import register
    from inlay_worker.wiring import load_model, make_presence, make_worker

    configure_logs("work", level=settings.log_level, log_format=settings.log_format)
    tracer = tracer_of(settings, "work", open_spans)
    model = (load or load_model)(settings)
    worker, jobs = make_worker(settings, model, tracer), Jobs()
    worker.ended = jobs.ended
    if settings.warm_up:
        worker.generation.warm_up(may_generate(worker), worker.together)
    app = make_app(settings)
    wake = register(app, worker)

    def stop(**_: Any) -> None:
        worker.stopping.set()
        if not worker.busy:
            # Celery looks at its own flag only after waiting for messages, twice: four seconds for nothing.
            raise WorkerShutdown(0)

    def look_once(sender: Any, **_: Any) -> None:
        # Messages may have been lost while no worker ran; the jobs are in the database.
        app.send_task(WAKE_TASK, queue=QUEUE)
        # The file transport has no event loop, and no connection to lose.
        if sender.hub is not None:
            seconds = settings.forgotten_seconds
            sender.hub.timer.call_repeatedly(seconds, look_unasked(worker, seconds, wake))

    signals.worker_shutting_down.connect(stop)
    signals.worker_ready.connect(look_once)
    try:
        # After the model is loaded: a worker that answers is warm.
        health = told(settings, registry_of(model, jobs), ready=consumes(worker, settings.forgotten_seconds))
        with health, make_presence(settings, worker):
            celery_worker = app.Worker(loglevel=settings.log_level.upper(), **WORKER_OPTIONS)
            celery_worker.start()
    finally:
        signals.worker_shutting_down.disconnect(stop)
        signals.worker_ready.disconnect(look_once)
        tracer.close()
    _log.info("work.ended", exit_status=celery_worker.exitcode or 0)
    return celery_worker.exitcode or 0


main = run
