"""The worker as a process of its own: Celery over the file transport, SQLite, and signals of every kind."""

import signal
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from inlay_core.application import drafting
from inlay_core.domain.identity import system
from inlay_core.domain.job import JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.messaging import QUEUE, broker_folders
from inlay_testkit.installation import Installation, opened
from inlay_testkit.worker import wait_until, worker_process

SWEEPER = system("sweeper")


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    """An installation with a lease that no test outlives."""
    return Installation(tmp_path)


def test_wake_up_leads_to_a_draft(site: Installation) -> None:
    """A message in the broker's folder makes a worker process draft the report; the message is gone afterwards."""
    with worker_process(site.settings) as worker:
        report = site.order()
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
        assert site.report(report).status is Status.DRAFTED
        wait_until(lambda: not site.messages())
        assert worker.end() == 0


def test_worker_looks_into_the_database_when_it_starts(site: Installation) -> None:
    """Jobs whose wake-ups were lost while no worker ran are done as soon as one starts."""
    report = site.order(wake=False)
    with worker_process(site.settings):
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)


def test_sigterm_gives_the_job_back_and_ends_well(site: Installation) -> None:
    """A worker that is told to end in the middle of a draft ends before it; another one makes the draft."""
    # The draft would take five minutes.
    with worker_process(site.settings, steps=6000, step_seconds=0.05) as worker:
        report = site.order()
        wait_until(lambda: site.step(report) >= 2)
        assert worker.end(signal.SIGTERM) == 0
    job = site.job(report)
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    with worker_process(site.settings):
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
    assert site.tags(report).count("worker:report:drafted") == 1


def test_killed_worker_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle of a draft: the lease runs out, the sweeper queues the job, one draft comes of it."""
    site = Installation(tmp_path, lease_seconds=1.0)
    with worker_process(site.settings, steps=600, step_seconds=0.05) as worker:
        report = site.order()
        wait_until(lambda: site.step(report) >= 2)
        worker.end(signal.SIGKILL)
    assert site.state(report) is JobState.RUNNING
    ports = (site.services.clock, site.services.new_id, SWEEPER)
    wait_until(lambda: len(drafting.reclaim_expired(site.services.uow(), *ports, site=site.services.site)) == 1)
    with worker_process(site.settings):
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
    assert site.job(report).fence == 2
    assert site.tags(report).count("worker:report:drafted") == 1
    with site.services.uow() as uow:
        while uow.audit.seal():
            pass
        uow.commit()
    with site.services.reader() as uow:
        assert uow.audit.verify().first_break is None


def test_busy_worker_keeps_its_lease(tmp_path: Path) -> None:
    """A job that takes several leases is not taken away from a worker that lives."""
    site = Installation(tmp_path, lease_seconds=0.6)

    def lease() -> datetime:
        """When it ends, as the database has it."""
        until = site.job(report).lease_until
        assert until is not None, site.state(report)
        return until

    with worker_process(site.settings, steps=100, step_seconds=0.05):
        report = site.order()
        wait_until(lambda: site.state(report) is JobState.RUNNING)
        later = lease() + timedelta(seconds=2 * 0.6)
        wait_until(lambda: lease() > later)
        # Whoever sweeps when the first lease is long over finds one that is not.
        ports = (lambda: later, site.services.new_id, SWEEPER)
        assert drafting.reclaim_expired(site.services.uow(), *ports, site=site.services.site) == []
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
    assert (site.job(report).fence, site.job(report).attempts) == (1, 1)


def test_truncated_message_does_no_lasting_harm(site: Installation) -> None:
    """A message file that a killed sender left half-written neither blocks the queue nor reaches the next worker."""
    (folder := broker_folders(site.settings.home)[0]).mkdir(parents=True, exist_ok=True)
    (folder / f"0_truncated.{QUEUE}.msg").write_bytes(b'{"body": "W1tdLC')
    with worker_process(site.settings):
        report = site.order()
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
        # The job may have been found without its message, which is then taken a moment later.
        wait_until(lambda: not site.messages())


def test_logs_and_messages_hold_nothing_of_the_patient(site: Installation) -> None:
    """At the finest log level, neither log nor broker nor canvases name patient, order, study or file."""
    report = site.order()
    payloads = "".join(opened(path.read_text()) for path in site.messages())
    assert site.job(report).id in payloads
    with worker_process(site.settings) as worker:
        wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
        worker.end()
        log = worker.log
    assert "job.ended" in log
    for planted in site.PLANTED:
        assert planted not in log
        assert planted not in payloads
