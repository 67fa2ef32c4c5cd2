"""Sixty orders while the processes are killed at random: what was acknowledged ends in one draft, no more and no less.

The processes are the real ones; the model is a random DiffusionGemma, small enough to draft in a moment.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inlay_core.application.ports import ReportSearch, Sort
from inlay_core.application.queries import search_reports
from inlay_core.bootstrap import Services, bootstrap
from inlay_core.domain.job import JobState
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.settings import Settings
from inlay_testkit.core import AUDITOR
from inlay_testkit.drills.outcome import sealed, unfinished
from inlay_testkit.drills.processes import Victim
from inlay_testkit.drills.ris import PATIENCE_SECONDS, place_study, send_until_acknowledged
from inlay_testkit.peers import free_port
from inlay_testkit.tiny_diffusion import save_tiny

ORDERS = 60
SEED = 20261121
# Seconds from being ready to the next death; on a busy machine it takes some to get ready.
LIVES = {"listen": (0.0, 1.5), "relay": (0.0, 2.0), "work": (0.5, 3.0)}
# So often at least, and until all orders are sent.
KILLS = {"listen": 5, "relay": 5, "work": 4}

pytestmark = pytest.mark.slow


class Killer:
    """Kills each victim at random moments after it got ready, until it has done so often enough and may rest.

    A worker whose moment has come dies at the next job that it has in hand, as long as there may be one: an idle
    worker's death proves little. It is called from the main thread: children that end with their parent end with the
    thread that started them.
    """

    def __init__(self, victims: dict[str, Victim], services: Services) -> None:
        self._victims = victims
        self._services = services
        self._random = random.Random(SEED)
        self._lives = {name: self._life(name) for name in victims}

    def look(self, *, may_rest: bool) -> bool:
        """Kill whoever is due; whether there is more to kill."""
        for name in list(self._lives):
            victim = self._victims[name]
            if not victim.look() or time.monotonic() < (victim.ready_since or 0.0) + self._lives[name]:
                continue
            if name == "work" and self._may_catch_one(sent=may_rest):
                continue
            victim.kill()
            self._lives[name] = self._life(name)
            if may_rest and victim.kills >= KILLS[name]:
                del self._lives[name]
        return bool(self._lives)

    def _may_catch_one(self, *, sent: bool) -> bool:
        """Whether no job is in hand now, and one may still come."""
        counted = unfinished(self._services)
        return not counted[JobState.RUNNING] and (not sent or any(counted.values()))

    def _life(self, name: str) -> float:
        return self._random.uniform(*LIVES[name])


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """A home of its own, leases and sweeps in fast motion."""
    checkpoint = save_tiny(tmp_path / "checkpoint")
    return {
        "INLAY_HOME": str(tmp_path / "home"),
        "INLAY_MLLP_PORT": str(free_port()),
        "INLAY_DICOM_PORT": str(free_port()),
        "INLAY_MODEL": str(checkpoint),
        "INLAY_DEVICE": "cpu",
        # Threads that wait for each other would take longer than the tiny model itself.
        "OMP_NUM_THREADS": "1",
        "INLAY_STEPS": "4",
        # Here a job that is lost is no job's fault.
        "INLAY_MAX_ATTEMPTS": "20",
        "INLAY_LEASE_SECONDS": "3",
        "INLAY_SWEEP_SECONDS": "0.3",
        "INLAY_FORGOTTEN_SECONDS": "2",
    }


@pytest.fixture
def services(settings: dict[str, str]) -> Iterator[Services]:
    """The database of that home, with its schema, seen from outside of the processes."""
    from inlay_core.bootstrap import upgrade_database

    read = Settings.from_env(settings)
    upgrade_database(read)
    opened = bootstrap(read)
    yield opened
    opened.close()


def send_all(port: int, images: Path) -> None:
    """All orders, with their images close behind; some are sent again although they were acknowledged."""
    for number in range(ORDERS):
        send_until_acknowledged(port, number)
        place_study(images, number)
        if number % 7 == 0:
            send_until_acknowledged(port, number)
        # The orders come while the processes die, not all in one of their lives.
        time.sleep(0.15)


def test_every_acknowledged_order_ends_in_exactly_one_draft(
    settings: dict[str, str], services: Services, tmp_path: Path
) -> None:
    """With listener, relay and worker killed by SIGKILL at random: no order lost, none doubled, the trail verifies."""
    images = services.settings.images
    images.mkdir(parents=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("INLAY_")} | settings
    victims = {name: Victim(name, env, tmp_path / f"{name}.log") for name in LIVES}
    killer = Killer(victims, services)
    try:
        with ThreadPoolExecutor(1) as ris:
            sending = ris.submit(send_all, services.settings.mllp_port, images)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while killer.look(may_rest=sending.done()) or not sending.done() or any(unfinished(services).values()):
                assert time.monotonic() < deadline, unfinished(services)
                # Shorter than a draft takes, so that a job in hand is seen.
                time.sleep(0.01)
            sending.result()
    finally:
        for victim in victims.values():
            victim.end()

    assert all(victims[name].kills >= KILLS[name] for name in KILLS)
    page = search_reports(services.reader(), AUDITOR, ReportSearch(), sort=Sort.NEWEST, limit=2 * ORDERS)
    assert Counter(row.order.accession_number for row in page.rows) == {f"ACC{n}": 1 for n in range(ORDERS)}
    assert {row.report.status for row in page.rows} == {Status.DRAFTED}
    most_attempts = 0
    with services.reader() as uow:
        for row in page.rows:
            drafts = [version for version in uow.reports.versions(row.report.id) if version.event is Event.DRAFT]
            jobs = uow.jobs.of_report(row.report.id)
            assert len(drafts) == 1
            assert [job.state for job in jobs] == [JobState.SUCCEEDED]
            most_attempts = max(most_attempts, jobs[0].attempts)
    assert most_attempts > 1, "no worker was killed with a job in hand"
    trail = sealed(services)
    assert trail.holds
    assert trail.unsealed == 0
