"""The upgrade of the first schema with data, on SQLite; PostgreSQL runs the same in tests/peers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from inlay_core.persistence.engine import open_database
from inlay_testkit.upgrade_contract import UpgradeContract


class TestSqlite(UpgradeContract):
    """The embedded database."""

    @pytest.fixture
    def empty(self, tmp_path: Path) -> Iterator[Engine]:
        """A file without a schema."""
        opened = open_database(f"sqlite:///{tmp_path / 'inlay.sqlite'}")
        yield opened
        opened.dispose()
