"""Inlay's own processes on a PostgreSQL and a Redis of their own: what drills harm and a load run measures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inlay_core.bootstrap import Services, bootstrap
from inlay_core.persistence import schema
from inlay_core.persistence.engine import open_database
from inlay_core.settings import Settings
from inlay_testkit.peers import LOOPBACK, Server, free_port, postgres_cluster, redis_that_restarts


@dataclass(frozen=True)
class Premises:
    """The servers, an empty migrated database, and the environment that makes a process of Inlay one of this house."""

    services: Services
    postgres: Server
    redis: Server
    env: dict[str, str]
    folder: Path

    @property
    def settings(self) -> Settings:
        """What the processes read from their environment."""
        return self.services.settings


@contextmanager
def premises(
    folder: Path,
    settings: Mapping[str, str],
    *,
    below: Path | None = None,
    durable: bool = False,
    revision: str = "head",
    address: str = LOOPBACK,
) -> Iterator[Premises]:
    """Start the servers; end them. `settings` are environment variables over those of the house.

    `below` is the folder in which PostgreSQL keeps its data; `durable` has it wait for the disk; `revision` is that of
    the schema; `address` is where the servers listen.
    """
    with (
        postgres_cluster(below=below, durable=durable, address=address) as cluster,
        cluster.server() as postgres,
        redis_that_restarts(address) as redis,
    ):
        ours = {
            "INLAY_HOME": str(folder / "home"),
            "INLAY_DATABASE_URL": postgres.url,
            "INLAY_BROKER_URL": redis.url,
            "INLAY_REDIS_URL": redis.url,
            "INLAY_MLLP_PORT": str(free_port()),
            "INLAY_DICOM_PORT": str(free_port()),
            "INLAY_HTTP_PORT": str(free_port()),
            "OMP_NUM_THREADS": "1",
            **settings,
        }
        read = Settings.from_env(ours)
        engine = open_database(read.database)
        schema.upgrade(engine, revision)
        engine.dispose()
        services = bootstrap(read)
        read.images.mkdir(parents=True)
        try:
            yield Premises(services, postgres, redis, _inherited() | ours, folder)
        finally:
            services.close()


def _inherited() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("INLAY_")}
    return ours | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
