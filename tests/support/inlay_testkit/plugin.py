"""Fixtures of the real peers; tests/conftest.py loads this module. One server per test session, fresh data per test."""

import uuid
from collections.abc import Iterator

import pytest

from inlay_testkit.peers import postgres_database, postgres_server, redis_server


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
