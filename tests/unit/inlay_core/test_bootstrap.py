from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from inlay_core import bootstrap
from inlay_core.application import queries
from inlay_core.application.ports import Destination, ResultFilter
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.job import JobKind
from inlay_core.persistence import schema
from inlay_core.settings import Settings
from inlay_testkit.core import RADIOLOGIST, Ward


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The embedded mode in a folder that does not exist yet."""
    return Settings(home=tmp_path / "home")


def test_the_embedded_database_is_made_where_the_home_is(settings: Settings) -> None:
    """Upgrading makes folder and schema, twice is harmless, and the services work on it."""
    assert bootstrap.database_revision(settings) is None
    assert bootstrap.upgrade_database(settings) == bootstrap.upgrade_database(settings) == schema.newest()
    assert bootstrap.database_revision(settings) == schema.newest()
    services = bootstrap.bootstrap(settings)
    try:
        report = Ward(services.uow()).drafted()
        assert queries.read_report(services.reader(), RADIOLOGIST, report.id).report == report
    finally:
        services.close()


def test_readers_do_not_wait_for_writers(settings: Settings) -> None:
    """A reading unit of work sees the last commit while a writer holds its transaction open."""
    bootstrap.upgrade_database(settings)
    services = bootstrap.bootstrap(settings)
    try:
        report = Ward(services.uow()).order()
        with services.uow() as writer, services.reader() as reader:
            assert reader.reports.get(report.id) == report
            writer.rollback()
    finally:
        services.close()


def test_a_database_without_schema_says_what_to_do(settings: Settings) -> None:
    """A process that starts before the upgrade fails with the command that is missing."""
    services = bootstrap.bootstrap(settings)
    try:
        with services.reader() as uow, pytest.raises(Unavailable) as refused:
            uow.switches.all()
        assert "inlay db upgrade" in refused.value.message
    finally:
        services.close()


def test_the_site_obeys_its_settings() -> None:
    """Kill switch, intended uses, leases and destinations come from the settings."""
    site = bootstrap.site_of(Settings())
    assert site.generation.kinds() == frozenset(JobKind)
    assert site.results == ()
    stopped = bootstrap.site_of(replace(Settings(), kill_switch=True, oru_target="h:1", lease_seconds=5.0))
    assert stopped.generation.kinds() == frozenset()
    assert (stopped.results, stopped.lease_seconds) == ((ResultFilter(Destination.ORU),), 5.0)
    assert bootstrap.site_of(Settings(infill=False)).generation.kinds() == {JobKind.DRAFT}


def test_ids_are_uuids_and_the_clock_is_utc() -> None:
    """Fresh ids are valid FHIR ids; the time has its zone."""
    assert len({bootstrap.new_id() for _ in range(3)}) == 3
    assert len(bootstrap.new_id()) == 36
    assert str(bootstrap.clock().tzinfo) == "UTC"


def test_the_core_starts_without_the_heavy_libraries() -> None:
    """Importing the core and its bootstrap loads neither torch, Celery, Flask, Alembic nor Redis."""
    heavy = "torch celery kombu flask alembic redis transformers pydicom numpy"
    code = f"import sys, inlay_core.bootstrap; print([m for m in '{heavy}'.split() if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_domain_and_use_cases_know_no_database() -> None:
    """Domain, use cases and ports load without SQLAlchemy."""
    modules = "inlay_core.application.intake, inlay_core.application.drafting, inlay_core.application.signing"
    code = f"import sys, {modules}; print('sqlalchemy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
