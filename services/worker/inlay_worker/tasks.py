"""The one task: a wake-up. What is to be done stands in the database; the message says only that it is worth a look."""

from typing import Any

from celery.exceptions import WorkerShutdown

from inlay_core.logs import get_logger
from inlay_core.messaging import WAKE_TASK
from inlay_worker.work import Worker, WorkerSuspect

_log = get_logger(__name__)


def register(app: Any, worker: Worker) -> Any:
    """Make the task known to the Celery application, bound to this process' worker. Return the task."""

    def wake(job_id: str | None = None) -> None:
        """Do all jobs there are. `job_id` is what the sender thought of; the best job is taken, whichever it is."""
        _log.debug("work.woken", job_id=job_id)
        try:
            worker.work_off()
        except WorkerSuspect:
            _log.error("work.suspect")
            raise WorkerShutdown(1) from None
        except Exception as error:  # noqa: BLE001 - Celery would log the error's text, which may quote data.
            _log.error("work.failed", exc_info=error)
        if worker.stopping.is_set():
            # As for an idle worker (celery_app.py): Celery would take four seconds to see that it should end.
            raise WorkerShutdown(0)

    return app.task(name=WAKE_TASK, ignore_result=True)(wake)
