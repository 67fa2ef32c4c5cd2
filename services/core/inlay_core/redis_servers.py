"""Redis by URL: plain, over TLS (rediss://), with a user (ACL), or the master that sentinels name (sentinel://).

    rediss://inlay:secret@redis.example:6379/0?ssl_ca_certs=/etc/ca.pem
    sentinel://s1.example:26379;sentinel://s2.example:26379;sentinel://s3.example:26379/0

Sentinels are asked for the master of INLAY_REDIS_MASTER; user and password of the URL are those of the Redis servers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from inlay_core.domain.errors import Invalid

if TYPE_CHECKING:
    from redis import ConnectionPool, Redis

SENTINEL = "sentinel://"


def is_sentinel(url: str) -> bool:
    """Whether the URL names sentinels."""
    return url.startswith(SENTINEL)


def redis_pool(url: str, master: str = "", **options: Any) -> ConnectionPool:
    """Connections to the server of a URL. Raises Invalid, which does not quote the URL."""
    import redis
    from redis.sentinel import Sentinel, SentinelConnectionPool

    if not is_sentinel(url):
        return redis.ConnectionPool.from_url(url, **options)
    if not master:
        raise Invalid("bad-setting", "A sentinel:// URL needs the name of the master.", "INLAY_REDIS_MASTER")
    parts = [urlsplit(each) for each in url.split(";")]
    hosts = [(part.hostname or "", part.port or 26379) for part in parts]
    last = parts[-1]
    user = {"username": unquote(last.username)} if last.username else {}
    secret = {"password": unquote(last.password)} if last.password else {}
    database = int(last.path.strip("/") or 0)
    # redis has no types for these two.
    sentinels = Sentinel(hosts, **options)  # type: ignore[no-untyped-call]
    pool: ConnectionPool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        master, sentinels, db=database, **user, **secret, **options
    )
    return pool


def redis_client(url: str, master: str = "", **options: Any) -> Redis:
    """A client that closes its pool with itself."""
    import redis

    return redis.Redis.from_pool(redis_pool(url, master, **options))
