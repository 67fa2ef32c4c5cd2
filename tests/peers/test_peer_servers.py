"""The servers that the other peer tests stand on."""

import psycopg
import pytest
import redis

pytestmark = pytest.mark.peers


def test_postgres_is_real_and_empty(postgres_url: str) -> None:
    """A test gets a PostgreSQL database of its own, in UTF-8 and without tables."""
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        encoding = connection.execute("SHOW server_encoding").fetchone()
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert encoding == ("UTF8",)
    assert tables == (0,)


def test_redis_is_real_and_empty(redis_url: str) -> None:
    """A test gets an emptied Redis that keeps what it is given."""
    with redis.Redis.from_url(redis_url) as connection:
        assert connection.dbsize() == 0
        connection.set("key", b"value")
        assert connection.get("key") == b"value"
