"""Fixtures of the real peers; tests/conftest.py loads this module. One server per test session, fresh data per test."""

import uuid
from collections.abc import Iterator

import pytest

from inlay_testkit.pacs import Orthanc, orthanc_server
from inlay_testkit.peers import free_port, postgres_database, postgres_server, redis_server


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """URL of a PostgreSQL server that lives as long as the test session."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database for one test."""
    with postgres_database(postgres_server_url, f"test_{uuid.uuid4().hex}") as url:
        yield url


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """URL of a Redis server that lives as long as the test session."""
    with redis_server() as url:
        yield url


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """URL of an emptied Redis for one test."""
    import redis

    with redis.Redis.from_url(redis_server_url) as connection:
        connection.flushall()
    return redis_server_url


@pytest.fixture(scope="session")
def our_dicom_port() -> int:
    """The port at which Orthanc knows the AE title INLAY."""
    return free_port()


@pytest.fixture(scope="session")
def orthanc_running(our_dicom_port: int) -> Iterator[Orthanc]:
    """An Orthanc that lives as long as the test session."""
    with orthanc_server({"inlay": ("INLAY", our_dicom_port)}) as pacs:
        yield pacs


@pytest.fixture
def orthanc(orthanc_running: Orthanc) -> Orthanc:
    """An emptied Orthanc for one test."""
    orthanc_running.clear()
    return orthanc_running
