"""The Celery side of the worker: what importing costs, how it is configured, and what the task does with errors."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from celery.concurrency import get_implementation, solo
from celery.exceptions import WorkerShutdown

from inlay_core.messaging import QUEUE, WAKE_TASK
from inlay_core.settings import Settings
from inlay_worker.celery_app import WORKER_OPTIONS, make_app
from inlay_worker.tasks import register
from inlay_worker.work import WorkerSuspect


class StandIn:
    """A worker whose work ends with an error, or not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls = 0
        self.stopping = threading.Event()

    def work_off(self) -> int:
        """Count the call."""
        self.calls += 1
        if self.error is not None:
            raise self.error
        return 0


def task(home: Path, worker: Any) -> Any:
    """The wake task of an application in this home."""
    return register(make_app(Settings(home=home)), worker)


def test_importing_the_application_loads_no_torch() -> None:
    """Whoever needs the names of the application gets them without the model's libraries."""
    script = "import sys, inlay_worker.celery_app; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_task_has_the_name_that_the_relay_sends(tmp_path: Path) -> None:
    """The relay sends by name; the task listens under exactly that name."""
    assert task(tmp_path, StandIn()).name == WAKE_TASK


def test_wake_up_starts_the_work_whatever_it_names(tmp_path: Path) -> None:
    """A wake-up with and without a job id does the same: look into the database."""
    worker = StandIn()
    wake = task(tmp_path, worker)
    wake(job_id="j-1")
    wake()
    assert worker.calls == 2


def test_error_of_the_work_is_no_error_of_the_task(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Celery logs the text of a task's error, which may quote data: no error reaches it."""
    task(tmp_path, StandIn(RuntimeError("quotes Patricia")))(job_id="j-1")
    assert "celery" not in capfd.readouterr().err.lower()


def test_suspect_worker_shuts_the_process_down(tmp_path: Path) -> None:
    """A worker that does not trust its own process any more ends it with a status that its supervisor sees."""
    with pytest.raises(WorkerShutdown) as caught:
        task(tmp_path, StandIn(WorkerSuspect()))()
    assert caught.value.code == 1


def test_stopping_worker_ends_the_process_well(tmp_path: Path) -> None:
    """Once the job is given back, the process ends at once and with status 0."""
    worker = StandIn()
    worker.stopping.set()
    with pytest.raises(WorkerShutdown) as caught:
        task(tmp_path, worker)()
    assert caught.value.code == 0


def test_process_runs_jobs_itself_and_listens_to_our_queue() -> None:
    """No pool of children, one job at a time, our queue only."""
    assert issubclass(get_implementation(WORKER_OPTIONS["pool"]), solo.TaskPool)
    assert (WORKER_OPTIONS["concurrency"], WORKER_OPTIONS["queues"]) == (1, [QUEUE])


def test_remote_control_only_where_somebody_can_use_it(tmp_path: Path) -> None:
    """Embedded workers leave no control queues in the home folder; with a broker, pings are answered."""
    embedded = make_app(Settings(home=tmp_path))
    assert embedded.conf.worker_enable_remote_control is False
    assert make_app(Settings(home=tmp_path, broker_url="redis://localhost:1")).conf.worker_enable_remote_control is True


def test_delivery_is_late_and_single(tmp_path: Path) -> None:
    """A message is acknowledged after its work, comes again when the worker is lost, and none is kept in stock."""
    conf = make_app(Settings(home=tmp_path)).conf
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost, conf.worker_prefetch_multiplier) == (True, True, 0)
    assert conf.worker_redirect_stdouts is False
