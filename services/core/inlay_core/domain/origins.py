"""Origins (scheme, host, port) that a site lets Inlay call. Whoever names a URL cannot choose another one."""

from __future__ import annotations

from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> tuple[str, str, int] | None:
    """(scheme, host, port) of an http or https URL; None for what is none, or carries a user or a fragment."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None or parts.password is not None:
        return None
    if parts.fragment or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return None
    return parts.scheme, parts.hostname.lower().rstrip("."), port or _PORTS[parts.scheme]


def is_allowed(url: str, origins: tuple[str, ...]) -> bool:
    """Whether the URL is of one of the listed origins."""
    found = origin_of(url)
    return found is not None and found in {origin_of(origin) for origin in origins}


def is_private(url: str) -> bool:
    """Whether nobody on the way can read along: https, or http that does not leave this machine."""
    found = origin_of(url)
    return found is not None and (found[0] == "https" or found[1] in ("127.0.0.1", "localhost", "::1"))
