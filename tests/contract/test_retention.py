"""Letting go, on the fake and on SQLite; PostgreSQL runs the same in tests/peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from inlay_core.application.drafting import claim_next
from inlay_core.application.ports import Aged, NewUnitOfWork
from inlay_core.domain.errors import Invalid
from inlay_core.persistence import schema
from inlay_core.persistence.engine import open_database
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_core.settings import LEAST_AUDIT_DAYS, Settings
from inlay_testkit.core import WORKER, StillClock, Ward
from inlay_testkit.memory import Memory
from inlay_testkit.retention_contract import DAY, RetentionContract, put_canvas


class TestMemory(RetentionContract):
    """The fake."""

    @pytest.fixture
    def memory(self) -> Memory:
        """A fresh memory."""
        return Memory()

    @pytest.fixture
    def new_uow(self, memory: Memory) -> NewUnitOfWork:
        """Units of work on it."""
        return memory

    @pytest.fixture
    def tamper(self, memory: Memory) -> Callable[[], None]:
        """Change an event behind its back."""

        def change() -> None:
            key = memory.world.links[0].event_id
            memory.world.events[key] = memory.world.events[key].replace("success", "refused")

        return change


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A migrated SQLite file."""
    opened = open_database(f"sqlite:///{tmp_path / 'inlay.sqlite'}")
    schema.upgrade(opened)
    yield opened
    opened.dispose()


class TestSqlite(RetentionContract):
    """The embedded database."""

    @pytest.fixture
    def new_uow(self, engine: Engine) -> NewUnitOfWork:
        """Units of work on a fresh file."""
        return lambda: SqlUnitOfWork(engine)

    @pytest.fixture
    def tamper(self, engine: Engine) -> Callable[[], None]:
        """Change an event behind its back."""

        def change() -> None:
            with engine.begin() as connection:
                statement = "UPDATE audit_events SET body = replace(body, 'success', 'refused') WHERE seq = 1"
                connection.execute(text(statement))

        return change

    def test_the_canvas_of_a_running_job_stays(self, new_uow: NewUnitOfWork) -> None:
        """Canvases go when their job has ended, however long it takes."""
        ward = Ward(new_uow(), StillClock())
        ward.order("1")
        claimed = claim_next(*ward.trio, WORKER)
        assert claimed is not None
        put_canvas(ward, claimed.job.id)
        put_canvas(ward, "a-job-that-is-gone")
        ward.clock.advance(100 * DAY)
        assert self.purge(ward, Aged.PROGRESS).count == 1
        with new_uow() as uow:
            assert uow.progress.get(claimed.job.id) is not None


def test_the_trail_is_kept_for_six_years_at_least() -> None:
    """A shorter term stops the process; for ever, and longer ones, are the site's choice."""
    with pytest.raises(Invalid) as refused:
        Settings.from_env({"INLAY_KEEP_AUDIT_DAYS": str(LEAST_AUDIT_DAYS - 1)})
    assert refused.value.place == "INLAY_KEEP_AUDIT_DAYS"
    assert Settings.from_env({"INLAY_KEEP_AUDIT_DAYS": str(LEAST_AUDIT_DAYS)}).keep_audit_days == LEAST_AUDIT_DAYS
    assert Settings().keep_audit_days == 0
