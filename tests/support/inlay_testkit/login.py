"""A browser's cookie jar over the application, and a real OpenID provider beside it, for tests of logins."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from inlay_api.app import create_app
from inlay_core.settings import Settings
from inlay_testkit.installation import Installation

HOME = "http://localhost:8080"
SECRET = "s:cret/"
"""Of the client, with signs that a form has to encode."""
OURS = {"Origin": HOME, "Host": "localhost:8080"}


class Browser:
    """Follows our redirects itself, and those to the provider over the network, as a person with this `sub` would."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str, **headers: str) -> TestResponse:
        """Look at a page."""
        return self.client.get(path, headers={"Host": "localhost:8080", **_spelled(headers)}, base_url=HOME)

    def post(self, path: str, form: dict[str, str], **headers: str) -> TestResponse:
        """Send a form, as a page of ours does."""
        return self.client.post(path, data=form, headers={**OURS, **_spelled(headers)}, base_url=HOME)

    def choose(self, role: str, back: str = "/") -> TestResponse:
        """Become a demonstration user of the embedded mode."""
        answer = self.post("/login", {"user": role, "next": back})
        assert answer.status_code == 303, answer.text
        return answer

    def at_provider(self, sub: str, back: str = "/", **changes: str) -> str:
        """Begin a login and authenticate at the provider; return the address that it sends the browser back to."""
        start = self.get(f"/login/start?next={back}")
        assert start.status_code == 303, start.text
        asked = httpx2.post(start.headers["Location"], data={"sub": sub, **changes}, follow_redirects=False)
        assert asked.status_code == 302, asked.text
        parts = urlsplit(asked.headers["Location"])
        return f"{parts.path}?{parts.query}"

    def csrf(self) -> str:
        """The token that pages of this session bear."""
        body: dict[str, Any] = self.get("/api/v1/session").get_json()
        return str(body["csrf"])


def _spelled(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): text for name, text in headers.items()}


def tokens_on(page: str) -> set[str]:
    """The CSRF tokens in the forms of a page."""
    return {html.unescape(found) for found in re.findall(r'name="csrf" value="([^"]+)"', page)}


def asked_for(location: str) -> dict[str, str]:
    """The parameters of an address."""
    return dict(parse_qsl(urlsplit(location).query))


@contextmanager
def provider(**people: dict[str, Any]) -> Iterator[str]:
    """A running OpenID provider that knows these people by `sub`; gives its issuer."""
    from oidc_provider_mock import User, run_server_in_thread

    users = [User(sub=sub, claims=claims) for sub, claims in people.items()]
    with run_server_in_thread(user_claims=users, require_nonce=True) as server:
        yield f"http://localhost:{server.server_port}"


def hospital(home: Path, issuer: str, **settings: Any) -> tuple[Installation, Browser]:
    """An installation that trusts this provider, and a browser before it."""
    site = Installation(home)
    trust = {"jwks_url": f"{issuer}/jwks", "oidc_issuer": issuer, "public_url": HOME}
    client = {"oidc_client_id": "inlay", "oidc_client_secret": SECRET}
    configured = Settings(home=home, auth="jwt", **{**trust, **client, **settings})
    return site, Browser(create_app(configured, site.services_with(configured)).test_client())
