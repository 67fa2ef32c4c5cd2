"""A rolling upgrade with work in flight: old processes on the new schema, and one after the other replaced.

The earlier version is a commit of this project's own history, run from its source with today's libraries. Where the
history is not there (a shallow clone), today's code is the earlier version of a next one, whose migration only adds.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, inspect, text

from inlay_core.domain.job import JobState
from inlay_core.persistence.engine import DatabaseLimits, open_database
from inlay_testkit.drills.house import House, house, replace
from inlay_testkit.drills.outcome import Outcome
from inlay_testkit.peers import PeerMissing, find_program

ROOT: Final = Path(__file__).parents[4]
# The last commit before migration 0007, and the newest migration that it knows.
EARLIER: Final = ("48a5a2dc90d679f74f0278b9c1d81f2a8e152075", "0006")
_SOURCES: Final = (
    "services/core",
    "services/api",
    "services/gateway",
    "services/worker",
    "services/cli",
    "integrations/hl7",
    "integrations/fhir",
    "integrations/dicom",
    "model",
    "tests/support",
)
# A worker of any version, with the fake model of its own test kit.
_WORKER: Final = """
import os, sys, time
from inlay_cli.parent import die_with_parent
from inlay_core.settings import Settings
from inlay_testkit.engine import FakeModel
from inlay_worker.celery_app import run
die_with_parent(int(sys.argv[1]))
def load(_):
    print('{"event": "model.loaded"}', flush=True)
    return FakeModel(before_step=lambda _: time.sleep(0.05))
sys.exit(run(Settings.from_env(os.environ), load))
"""


def has_history() -> bool:
    """Whether the earlier version is in this checkout's history."""
    found = subprocess.run(
        [str(find_program("git")), "-C", str(ROOT), "cat-file", "-e", f"{EARLIER[0]}^{{commit}}"],
        check=False,
        capture_output=True,
    )
    return found.returncode == 0


def from_earlier_version(folder: Path, orders: int) -> Outcome:
    """From the code of the earlier version on its schema to today's. Raises PeerMissing without the history."""
    if not has_history():
        raise PeerMissing("the earlier version is not in this clone; `git fetch --unshallow` brings it")
    commit, revision = EARLIER
    command = [str(find_program("git")), "-C", str(ROOT), "archive", commit, "--", *_SOURCES]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder / "earlier", filter="data")
    old = {"PYTHONPATH": os.pathsep.join(str(folder / "earlier" / source) for source in _SOURCES)}
    return _rolled(folder, orders, old=old, revision=revision, migrate=_migrate)


def to_next_version(folder: Path, orders: int) -> Outcome:
    """From today's code to a schema that a next version might bring: more columns, a table, an unknown revision."""
    return _rolled(folder, orders, old={}, revision="head", migrate=_expand)


def _rolled(
    folder: Path, orders: int, *, old: Mapping[str, str], revision: str, migrate: Callable[[House], None]
) -> Outcome:
    """Orders come all the time. Migrate under the old processes; let them work on; replace one after the other."""
    processes = dict.fromkeys(("listen", "relay", "work"), old)
    worker = (sys.executable, "-c", _WORKER, str(os.getpid()))
    with house(folder, orders, processes=processes, revision=revision, worker=worker) as running:
        running.load(0.2)
        migrate(running)
        before = running.drafted()
        # Only old processes are there, on the new schema.
        running.until(lambda: running.drafted() >= before + 2 or _all_drafted(running))
        if not running.radiologist.thread.is_alive():
            running.radiologist.thread.start()
        # What the new version asks for is done by an old worker as well.
        running.until(lambda: running.radiologist.refills > 0)
        for name in ("relay", "work", "listen"):
            replace(running, name)
        running.recovered()
        return running.finish()


def _all_drafted(running: House) -> bool:
    with running.services.reader() as uow:
        open_ones = uow.jobs.count([JobState.QUEUED, JobState.RUNNING, JobState.WAITING_IMAGES])
    return running.ris.is_done and not any(open_ones.values())


def _migrate(running: House) -> None:
    """As the chart's Job does."""
    command = [sys.executable, "-m", "inlay_cli", "db", "upgrade"]
    done = subprocess.run(command, env=running.env, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"inlay db upgrade: {done.stderr[-2000:]}")


def _expand(running: House) -> None:
    """A migration by the rule of decision 175: columns that may be empty, a table, an index; a revision of its own."""
    engine = open_database(running.services.settings.database, DatabaseLimits(lock_seconds=5.0))
    try:
        _add(engine)
    finally:
        engine.dispose()


def _add(engine: Engine) -> None:
    tables = [name for name in inspect(engine).get_table_names() if name != "alembic_version"]
    for table in tables:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {table} ADD COLUMN of_the_next_version text"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE of_the_next_version (id text PRIMARY KEY)"))
        connection.execute(text("CREATE INDEX ix_of_the_next_version ON jobs (of_the_next_version)"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
