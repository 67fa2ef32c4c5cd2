"""Sixty orders while the processes are killed at random: what was acknowledged ends in one draft, no more and no less.

The processes are the real ones; the model is a random DiffusionGemma, small enough to draft in a moment.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from inlay_core.application.ports import ReportSearch, Sort
from inlay_core.application.queries import search_reports
from inlay_core.application.trail import verify_trail
from inlay_core.bootstrap import Services, bootstrap
from inlay_core.domain.job import JobState
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.settings import Settings
from inlay_hl7.building import Envelope, PatientFields, Person
from inlay_hl7.client import MllpClient, NoAnswer
from inlay_hl7.orders import OrderFields, build_order
from inlay_testkit.core import AUDITOR
from inlay_testkit.dicom import file_bytes, radiograph
from inlay_testkit.peers import free_port
from inlay_testkit.tiny_diffusion import save_tiny

ORDERS = 60
SEED = 20261121
# Seconds from being ready to the next death; on a busy machine it takes some to get ready.
LIVES = {"listen": (0.0, 1.5), "relay": (0.0, 2.0), "work": (0.5, 3.0)}
# What a process logs when it is ready.
READY = {"listen": "listener.ready", "relay": "relay.ready", "work": "model.loaded"}
# So often at least, and until all orders are sent.
KILLS = {"listen": 5, "relay": 5, "work": 4}
PATIENCE_SECONDS = 400.0

pytestmark = pytest.mark.slow


class Victim:
    """A process that is started again as soon as it is dead."""

    def __init__(self, name: str, env: dict[str, str], log: Path) -> None:
        self._name = name
        self._env = env
        self._log = log
        self.kills = 0
        self.ready_since: float | None = None
        self.start()

    def start(self) -> None:
        """Begin a life."""
        self.ready_since = None
        self._lives_before = self._lives_seen()
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "inlay_cli", "--parent", str(os.getpid()), self._name]
            self.process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)

    def look(self) -> bool:
        """Whether this life has got ready."""
        if self.ready_since is None and self._lives_seen() > self._lives_before:
            self.ready_since = time.monotonic()
        return self.ready_since is not None

    def _lives_seen(self) -> int:
        return self._log.read_text().count(READY[self._name]) if self._log.exists() else 0

    def kill(self) -> None:
        """SIGKILL, and another life."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.kills += 1
        self.start()

    def end(self) -> None:
        """The last death, an orderly one."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


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


def study_of(number: int) -> str:
    """The study of an order."""
    return f"2.25.{1000 + number}"


def order(number: int) -> bytes:
    """The message of an order; the same bytes every time."""
    return build_order(
        Envelope(f"CTRL{number}", datetime(2026, 1, 1, 12, tzinfo=UTC), "RIS", "DRILL", "INLAY", "INLAY"),
        PatientFields(f"MRN{number}", "DRILL", Person("Drill", f"Number{number}")),
        (OrderFields(f"P{number}", f"ACC{number}", study_instance_uid=study_of(number), priority="RSA"[number % 3]),),
    )


def send_until_acknowledged(port: int, number: int) -> None:
    """As a RIS does: the same bytes again until there is a positive answer."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            with MllpClient("127.0.0.1", port, timeout=3.0) as client:
                if client.send(order(number)).positive:
                    return
        except NoAnswer:
            pass
        time.sleep(0.05)
    raise AssertionError(f"order {number} was never acknowledged")


def send_all(port: int, images: Path) -> None:
    """All orders, with their images close behind; some are sent again although they were acknowledged."""
    for number in range(ORDERS):
        send_until_acknowledged(port, number)
        place_study(images, number)
        if number % 7 == 0:
            send_until_acknowledged(port, number)
        # The orders come while the processes die, not all in one of their lives.
        time.sleep(0.15)


def place_study(folder: Path, number: int) -> None:
    """A small radiograph, put into the watched folder in one move."""
    pixels = np.full((64, 64), number, dtype=np.uint8)
    dataset = radiograph(pixels, StudyInstanceUID=study_of(number), AccessionNumber=f"ACC{number}")
    partial = folder.parent / f"{number}.part"
    partial.write_bytes(file_bytes(dataset))
    partial.replace(folder / f"{number}.dcm")


def unfinished(services: Services) -> dict[str, int]:
    """How many jobs there are that have not come to an end, by state."""
    with services.reader() as uow:
        counted = uow.jobs.count(list(JobState))
    open_states = (JobState.WAITING_IMAGES, JobState.QUEUED, JobState.RUNNING)
    return {str(state): sum(n for (s, _), n in counted.items() if s is state) for state in open_states}


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
    _seal(services)
    trail = verify_trail(services.reader())
    assert trail.holds
    assert trail.unsealed == 0


def _seal(services: Services) -> None:
    from inlay_core.application.trail import seal_trail

    while seal_trail(services.uow()):
        pass
