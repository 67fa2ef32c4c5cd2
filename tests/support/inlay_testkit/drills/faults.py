"""The table of drills: each puts Inlay under load, does one kind of harm, and lets everything come to its end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inlay_core.domain.job import JobState
from inlay_core.messaging import celery_app
from inlay_hl7.client import MllpClient, NoAnswer
from inlay_testkit.drills.cables import Cables
from inlay_testkit.drills.gate import Gate
from inlay_testkit.drills.house import FAST, PROCESSES, House, add_worker, house
from inlay_testkit.drills.outcome import Outcome
from inlay_testkit.drills.ris import POISON_WIDTH, image_of, order, place_study
from inlay_testkit.drills.skipped import Skipped
from inlay_testkit.pacs import PASSWORD, USER, Orthanc, orthanc_server
from inlay_testkit.peers import PeerMissing, find_program

# How long a fault lasts: longer than sweeps and timeouts of the drill.
FAULT_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a drill ended: the outcome, and the seconds from the end of each fault to the next finished draft."""

    outcome: Outcome
    recoveries: tuple[float, ...]
    harm: str


Drill = Callable[[Path, int, int], Result]


def kill(name: str) -> Drill:
    """SIGKILL of one process, three times at random moments."""

    def drill(folder: Path, orders: int, seed: int) -> Result:
        moments = random.Random(f"{name}-{seed}")
        with house(folder, orders, web=name == "serve") as running:
            running.load(0.1)
            for _ in range(3):
                running.until(running.victims[name].look)
                _last(running, moments.uniform(0.0, 1.0))
                running.victims[name].kill()
                if name == "serve":
                    # Drafts go on without it.
                    running.recoveries.append(running.until(running.victims[name].look))
                else:
                    running.recovered()
            return _result(running, f"{running.victims[name].kills} x SIGKILL")

    return drill


def redis_flush(folder: Path, orders: int, _seed: int) -> Result:
    """FLUSHALL, then SIGKILL and an empty Redis after a while."""
    import redis

    with house(folder, orders) as running:
        running.load(0.2)
        with redis.Redis.from_url(running.redis.url) as connection:
            connection.flushall()
        running.recovered()
        running.redis.stop(signal.SIGKILL)
        _last(running)
        running.redis.start()
        running.recovered()
        return _result(running, f"FLUSHALL; SIGKILL, away for {FAULT_SECONDS:g} s")


def postgres_restart(folder: Path, orders: int, _seed: int) -> Result:
    """A fast shutdown and a SIGKILL of PostgreSQL, each followed by some seconds without it."""
    with house(folder, orders) as running:
        running.load(0.2)
        for number in (signal.SIGINT, signal.SIGQUIT):
            running.postgres.stop(number)
            _last(running)
            running.postgres.start()
            running.recovered()
        return _result(running, f"fast and immediate shutdown, away for {FAULT_SECONDS:g} s each")


def disk_full(folder: Path, orders: int, _seed: int) -> Result:
    """The disk of PostgreSQL (a small tmpfs) is full for some seconds. Needs root."""
    with _small_disk(192) as disk, house(folder, orders, below=disk) as running:
        running.load(0.2)
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        _last(running)
        ballast.unlink()
        if running.postgres.process is None or running.postgres.process.poll() is not None:
            running.postgres.start()
        running.recovered()
        return _result(running, f"no byte left for {FAULT_SECONDS:g} s")


def clock_step(folder: Path, orders: int, _seed: int) -> Result:
    """The relay's clock jumps two minutes ahead and back, then the worker's behind and back (libfaketime)."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        raise PeerMissing("libfaketime is not installed; Debian's package is faketime")
    clocks = {name: folder / f"{name}.clock" for name in ("relay", "work")}
    for clock in clocks.values():
        clock.write_text("+0\n")
    processes = {
        name: {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        for name, clock in clocks.items()
    }
    with house(folder, orders, processes=processes) as running:
        running.load(0.2)
        for name, step in (("relay", "+120"), ("work", "-120")):
            clocks[name].write_text(f"{step}\n")
            _last(running)
            clocks[name].write_text("+0\n")
            running.recovered()
        return _result(running, "relay +120 s, worker -120 s, and back")


def pacs_hangs(folder: Path, orders: int, _seed: int) -> Result:
    """The archive is slow, then answers nothing; every second image is only there."""
    with orthanc_server({}) as pacs, Gate(pacs.http) as gate:
        settings = {"INLAY_DICOM_CONFIG": str(_archive(folder, gate.port))}
        with house(folder, orders, settings=settings, images=lambda at, n: _by_turns(pacs, at, n)) as running:
            gate.delay_seconds = 0.3
            running.load(0.2)
            gate.hanging.set()
            before = running.drafted()
            # What does not need the archive goes on meanwhile.
            running.until(lambda: running.drafted() > before)
            _last(running)
            gate.hanging.clear()
            gate.delay_seconds = 0.0
            running.recovered()
            return _result(running, f"0.3 s per answer, then none for {FAULT_SECONDS:g} s")


def target_hangs(folder: Path, orders: int, _seed: int) -> Result:
    """The target of results takes connections and answers nothing."""
    with house(folder, orders) as running:
        running.load(0.2)
        running.results_gate.hanging.set()
        before = running.drafted()
        running.until(lambda: running.drafted() > before)
        _last(running)
        running.results_gate.hanging.clear()
        heard = len(running.results.payloads)
        running.recoveries.append(running.until(lambda: len(running.results.payloads) > heard))
        return _result(running, f"no answer for {FAULT_SECONDS:g} s")


def duplicates(folder: Path, orders: int, _seed: int) -> Result:
    """Every order comes twenty times more, over eight connections at a time."""
    with house(folder, orders) as running:
        running.load(0.2)
        with ThreadPoolExecutor(8) as senders:
            done = [senders.submit(_repeat, running, number, 20) for number in range(orders)]
            running.until(lambda: all(each.done() for each in done))
            repeated = sum(each.result() for each in done)
        running.recovered()
        return _result(running, f"{repeated} repetitions")


def out_of_memory(folder: Path, orders: int, _seed: int) -> Result:
    """The first ten jobs that the worker takes find no memory (the error is raised where the model is called)."""
    with house(folder, orders, processes={"work": {"DRILL_OUT_OF_MEMORY": "10"}}) as running:
        running.until(lambda: running.drafted() > 0)
        return _result(running, "10 x OutOfMemoryError")


def poison(folder: Path, orders: int, _seed: int) -> Result:
    """Two orders whose image ends the worker's process at each attempt: they are parked, all others are drafted."""
    poisoned = {1, orders // 2}

    def place(at: Path, number: int) -> None:
        place_study(at, number, POISON_WIDTH if number in poisoned else 64)

    # Few, so that it ends; more than one, since a busy database may cost another job an attempt.
    with house(folder, orders, images=place, settings={"INLAY_MAX_ATTEMPTS": "4"}) as running:
        return _result(running, f"{len(poisoned)} poisoned images", parked=len(poisoned))


def visibility(folder: Path, orders: int, _seed: int) -> Result:
    """Jobs of two seconds, and a broker that hands every message out again meanwhile, to two workers."""
    with house(folder, orders, processes={"work": {"DRILL_STEP_SECONDS": "1.0"}}) as running:
        add_worker(running, "second")
        running.load(0.1)
        again = 0
        while not _is_over(running):
            again += _sweep_visibility(running)
            _last(running, 0.5)
        running.recovered()
        return _result(running, f"{again} messages handed out again")


def network_cut(folder: Path, orders: int, _seed: int) -> Result:
    """The cable of worker, relay and listener is pulled, one after the other, for longer than a lease. Needs root.

    Meanwhile Redis closes its connections, so that those of the process that is cut off are there on its end only.
    """
    import redis

    seconds = float(FAST["INLAY_LEASE_SECONDS"]) + FAULT_SECONDS
    pause = 3 * seconds / orders
    with Cables(PROCESSES) as cables, house(folder, orders, cables=cables, pause=pause) as running:
        running.load(0.0)
        for name in ("work", "relay", "listen"):
            cables.pull(name)
            with redis.Redis.from_url(running.redis.url) as connection:
                connection.client_kill_filter(_type="normal", skipme=True)
                connection.client_kill_filter(_type="pubsub")
            _last(running, seconds)
            cables.plug(name)
            running.recovered()
        return _result(running, f"worker, relay and listener cut off for {seconds:g} s each")


DRILLS: Final[Mapping[str, Drill]] = {
    "kill-api": kill("serve"),
    "kill-listener": kill("listen"),
    "kill-relay": kill("relay"),
    "kill-worker": kill("work"),
    "redis": redis_flush,
    "postgresql": postgres_restart,
    "disk-full": disk_full,
    "clock-step": clock_step,
    "network-cut": network_cut,
    "pacs-hangs": pacs_hangs,
    "target-hangs": target_hangs,
    "duplicates": duplicates,
    "out-of-memory": out_of_memory,
    "poison": poison,
    "visibility": visibility,
}


def _result(running: House, harm: str, parked: int = 0) -> Result:
    """Let everything end. Raises AssertionError where other jobs were given up than the drill is to have given up."""
    outcome = running.finish()
    if outcome.parked != parked:
        raise AssertionError(f"{outcome.parked} drafts were parked, not {parked}")
    return Result(outcome, tuple(round(seconds, 2) for seconds in running.recoveries), harm)


def _last(running: House, seconds: float = FAULT_SECONDS) -> None:
    """Let the fault last, while the processes are tended."""
    end = time.monotonic() + seconds
    running.until(lambda: time.monotonic() > end)


@contextmanager
def _small_disk(mebibytes: int) -> Iterator[Path]:
    if os.geteuid() != 0:
        raise Skipped("a small disk is a tmpfs: only root may mount one")
    folder = Path(tempfile.mkdtemp(prefix="inlay-disk-"))
    subprocess.run(
        [str(find_program("mount")), "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=755", "none", str(folder)],
        check=True,
    )
    try:
        yield folder
    finally:
        subprocess.run([str(find_program("umount")), "-l", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def _archive(folder: Path, port: int) -> Path:
    password = folder / "pacs-password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    config = folder / "dicom.toml"
    config.write_text(
        f'[dicomweb]\nurl = "http://127.0.0.1:{port}/dicom-web"\nuser = "{USER}"\npassword_file = "{password}"\n'
    )
    return config


def _by_turns(pacs: Orthanc, folder: Path, number: int) -> None:
    if number % 2:
        pacs.put(image_of(number))
    else:
        place_study(folder, number)


def _repeat(running: House, number: int, times: int) -> int:
    """Send an order again; return how often it was acknowledged."""
    running_port = running.services.settings.mllp_port
    positive = 0
    try:
        with MllpClient("127.0.0.1", running_port, timeout=10.0) as client:
            for _ in range(times):
                positive += client.send(order(number)).positive
    except NoAnswer:
        pass
    return positive


def _is_over(running: House) -> bool:
    with running.services.reader() as uow:
        counted = uow.jobs.count([JobState.QUEUED, JobState.RUNNING])
    return running.ris.is_done and not any(counted.values())


def _sweep_visibility(running: House) -> int:
    """Kombu's own sweep of messages that nobody has acknowledged, with a visibility of no time at all."""
    app = celery_app(running.services.settings)
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "visibility_timeout": 0}
    with app.connection() as connection:
        channel = connection.default_channel
        unacknowledged = int(channel.client.hlen(channel.unacked_key))
        channel.qos.restore_visible(num=100)
    return unacknowledged
