"""Public keys of others (JWKS): from a file that may be replaced at any time, or from a URL that is asked now and then.

What was read stays good while a file is being replaced or a server is away: keys change rarely, tokens come always.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from inlay_core.domain.errors import Invalid, Unavailable
from inlay_core.domain.origins import is_private

# A key that was withdrawn is trusted no longer than this; one that nobody has seen yet is asked for at once, but not
# more often than that, because anybody can send a token that names an unknown key.
_FRESH_SECONDS: Final = 600.0
_AGAIN_SECONDS: Final = 15.0
_TIMEOUT_SECONDS: Final = 5.0
_LARGEST: Final = 262_144


class Keys(Protocol):
    """Where the public keys of one party are."""

    def current(self, kid: str | None = None) -> KeySet:
        """The keys as they are now; `kid` is the one that a token names. Raises Unavailable when there are none yet."""
        ...


class FileKeys:
    """The keys in a file, read again when it changed. `place` names the setting in errors. Raises Invalid."""

    def __init__(self, path: Path, place: str) -> None:
        self._path = path
        self._place = place
        self._stamp: tuple[int, int] = (0, 0)
        self._keys = self._read()

    def current(self, kid: str | None = None) -> KeySet:  # noqa: ARG002 (a file is looked at every time)
        """See the protocol."""
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_size) != self._stamp:
                self._keys = self._read()
        except (OSError, Invalid):
            return self._keys
        return self._keys

    def _read(self) -> KeySet:
        try:
            stat = self._path.stat()
            keys = key_set(json.loads(self._path.read_text(encoding="utf-8")))
        except OSError as error:
            raise Invalid("bad-setting", f"The keys cannot be read ({error.strerror}).", self._place) from None
        except (JoseError, ValueError, TypeError, KeyError):
            raise Invalid("bad-setting", "The file is no JWKS with public keys.", self._place) from None
        self._stamp = (stat.st_mtime_ns, stat.st_size)
        return keys


class UrlKeys:
    """The keys at a URL (https, or http on this machine), fetched when they are first needed. Raises Invalid."""

    def __init__(
        self, url: str, place: str, fetch: Callable[[str], Any] | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        check_url(url, place)
        self._url = url
        self._fetch = fetch or fetch_json
        self._now = now
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._asked = -_FRESH_SECONDS

    def current(self, kid: str | None = None) -> KeySet:
        """See the protocol."""
        with self._lock:
            age = self._now() - self._asked
            unknown = self._keys is None or (kid is not None and kid not in {key.kid for key in self._keys.keys})
            if age >= _FRESH_SECONDS or (unknown and age >= _AGAIN_SECONDS):
                self._asked = self._now()
                # What was read stays good; who had nothing yet is told below.
                with contextlib.suppress(Unavailable, JoseError, ValueError, TypeError, KeyError, AttributeError):
                    self._keys = key_set(self._fetch(self._url))
            if self._keys is None:
                raise Unavailable("keys-unavailable", "The keys of the token's issuer cannot be fetched.")
            return self._keys


def check_url(url: str, place: str) -> None:
    """Raise Invalid for a URL that is not https, but for one of this machine."""
    if not is_private(url):
        raise Invalid("bad-setting", "Expected an https URL.", place)


def fetch_json(url: str) -> Any:
    """The JSON at a URL; no redirects. Raises Unavailable."""
    import httpx2

    try:
        answer = httpx2.get(url, timeout=_TIMEOUT_SECONDS, follow_redirects=False)
        if answer.status_code != 200 or len(answer.content) > _LARGEST:
            raise Unavailable("keys-unavailable", "The keys cannot be fetched.")
        return answer.json()
    except (httpx2.HTTPError, ValueError):
        raise Unavailable("keys-unavailable", "The keys cannot be fetched.") from None


def key_set(body: Any) -> KeySet:
    """The keys of a JWKS that can verify signatures; one key alone is a set of one. Raises ValueError for none."""
    if not isinstance(body, dict):
        raise TypeError("a JWKS is an object")
    keys = body.get("keys", [body])
    public = [key for key in keys if key.get("kty") in ("EC", "RSA", "OKP") and key.get("use", "sig") == "sig"]
    if not public:
        raise ValueError("no key for signatures")
    return KeySet.import_key_set({"keys": public})
