"""How much one client may ask: requests per class of route, bodies by size. Before anything of a request is read.

A client is its credential (by digest) or, without one, its address. Whoever is refused for a bad token counts by
address, so that trying tokens out is slow whatever they are; a credential that was good before does not wait for that.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

import limits
from flask import Flask, Request, Response, g, request
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.middleware.proxy_fix import ProxyFix

from inlay_api import problems
from inlay_api.bodies import MAX_BODY
from inlay_core.domain.errors import Invalid
from inlay_core.logs import get_logger
from inlay_core.redis_servers import redis_pool
from inlay_core.settings import Settings

_LOG: Final = get_logger(__name__)
_SETTING: Final = "INLAY_RATE_LIMITS"
_OFF: Final = "off"
REFUSED: Final = "refused"
"""The class of requests that were answered 401."""
CLASSES: Final = ("read", "write", "generate", "token", REFUSED)
# Asked by whoever supervises us.
_EXEMPT: Final = frozenset({"/livez", "/readyz", "/metrics"})
# A Redis that hangs must not cost each request its time: after a failure it is left alone for a while.
_REDIS_SECONDS: Final = 0.5
_AWAY_SECONDS: Final = 10.0
# Good credentials that are remembered: more than a hospital has at a time, and a megabyte.
_MOST_KNOWN: Final = 10_000


def class_of(method: str, path: str) -> str | None:
    """The class of a route; None for those that are not limited."""
    if path in _EXEMPT:
        return None
    if path.endswith("/auth/token"):
        return "token"
    if path.endswith(("/infill", "/$infill", "/retry")) and method == "POST":
        return "generate"
    if method in ("GET", "HEAD", "OPTIONS") or path.endswith(("/search", "/_search")):
        return "read"
    return "write"


def read_limits(text: str) -> Mapping[str, limits.RateLimitItem]:
    """`class=number/period` separated by blanks as a table; empty for `off`. Raises Invalid."""
    if text.strip() == _OFF:
        return {}
    table: dict[str, limits.RateLimitItem] = {}
    for part in text.split():
        name, equals, rate = part.partition("=")
        try:
            table[name] = limits.parse(rate)
        except ValueError:
            equals = ""
        if not equals or name not in CLASSES:
            message = f"Expected class=number/period ({', '.join(CLASSES)}; second, minute, hour), or off."
            raise Invalid("bad-setting", message, _SETTING)
    return table


class RateLimits:
    """Counts of each client. In Redis they hold for all processes; without it, or while it is away, for this one."""

    def __init__(self, settings: Settings) -> None:
        self._rates = read_limits(settings.rate_limits)
        self._own = FixedWindowRateLimiter(MemoryStorage())
        self._shared: FixedWindowRateLimiter | None = None
        self._away_until = 0.0
        if settings.redis_url and self._rates:
            timeouts = {"socket_timeout": _REDIS_SECONDS, "socket_connect_timeout": _REDIS_SECONDS}
            pool = redis_pool(settings.redis_url, settings.redis_master, **timeouts)
            storage = RedisStorage("redis://", connection_pool=pool, wrap_exceptions=True, key_prefix="inlay:limits")
            self._shared = FixedWindowRateLimiter(storage)

    def count(self, kind: str, client: str) -> int | None:
        """Count one more request; the seconds to wait where there are too many, else None."""
        return self._asked(FixedWindowRateLimiter.hit, kind, client)

    def is_over(self, kind: str, client: str) -> int | None:
        """As `count`, without counting."""
        return self._asked(FixedWindowRateLimiter.test, kind, client)

    def _asked(self, question: Callable[..., bool], kind: str, client: str) -> int | None:
        rate = self._rates.get(kind)
        if rate is None:
            return None
        if self._shared is not None and time.monotonic() >= self._away_until:
            try:
                return _answer(self._shared, question, rate, kind, client)
            except StorageError:
                self._away_until = time.monotonic() + _AWAY_SECONDS
                _LOG.warning("limits.redis-away")
        return _answer(self._own, question, rate, kind, client)


def _answer(
    limiter: FixedWindowRateLimiter, question: Callable[..., bool], rate: limits.RateLimitItem, kind: str, client: str
) -> int | None:
    if question(limiter, rate, kind, client):
        return None
    return max(1, math.ceil(limiter.get_window_stats(rate, kind, client).reset_time - time.time()))


def client_of(asked: Request) -> str:
    """Whom a request is counted for; a digest, because it becomes a key in Redis."""
    credential = asked.headers.get("Authorization") or asked.headers.get("Cookie")
    return _digest(credential) if credential else _address(asked)


def _address(asked: Request) -> str:
    return _digest(asked.remote_addr or "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def limit(app: Flask, settings: Settings, mount: str) -> None:
    """Refuse, before anything else of it happens, a request that is too large or one too many."""
    counts = RateLimits(settings)
    known: set[str] = set()
    if settings.trusted_proxies:
        proxied = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0, x_host=0)
        app.wsgi_app = proxied  # type: ignore[method-assign]  # as Flask's own documentation has it

    @app.before_request
    def refuse() -> Response | None:
        if (request.content_length or 0) > MAX_BODY:
            raise RequestEntityTooLarge
        kind = class_of(request.method, request.path)
        if kind is None:
            return None
        client = client_of(request)
        wait = None if client in known else counts.is_over(REFUSED, _address(request))
        wait = wait or counts.count(kind, client)
        return None if wait is None else too_many(wait, as_outcome=request.path.startswith(f"{mount}/"))

    @app.after_request
    def remember(answer: Response) -> Response:
        if answer.status_code == 401:
            counts.count(REFUSED, _address(request))
        elif g.get("actor") is not None:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known.add(client_of(request))
        return answer


def too_many(seconds: int, *, as_outcome: bool) -> Response:
    """429 (RFC 6585), with the time to wait."""
    detail = "Too many requests of this client; wait as long as Retry-After says."
    answer = problems.problem(429, "too-many-requests", detail)
    if as_outcome:
        answer = problems.as_outcome(answer)
    answer.headers["Retry-After"] = str(seconds)
    return answer
