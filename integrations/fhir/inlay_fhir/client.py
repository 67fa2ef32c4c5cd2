"""A client of another FHIR server: SMART Backend Services as the client, searches, and transactions.

https://hl7.org/fhir/smart-app-launch/backend-services.html. What goes wrong is told as a code; what the server said is
not kept, because it may quote a patient.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, RSAKey

from inlay_fhir.elements import Json

ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS: Final = 240
# A token that ends while a request is on its way would cost another round.
_MARGIN_SECONDS: Final = 30.0
_LARGEST: Final = 8_388_608


class Failed(Exception):
    """A request that was not answered as it should: `code` is `http-<status>`, `timeout`, `unreachable` or the like."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def signing_key(path: str) -> Key:
    """The private key (JWK) of a file: RSA for RS384, or EC on P-384 for ES384. Raises ValueError, OSError."""
    body = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        key = RSAKey.import_key(body) if body.get("kty") == "RSA" else ECKey.import_key(body)
    except (JoseError, TypeError, AttributeError, KeyError):
        raise ValueError("no key") from None
    if not key.is_private or (isinstance(key, ECKey) and key.curve_name != "P-384"):
        raise ValueError("no private key for RS384 or ES384")
    key.ensure_kid()
    return key


@dataclass(slots=True)
class Credentials:
    """Who we are at the other server, and the token that we hold. Not shared between threads."""

    token_url: str
    client_id: str
    key: Key
    scope: str
    now: Callable[[], float] = time.time
    _token: str = field(default="", repr=False)
    _until: float = 0.0

    def token(self, client: httpx2.Client) -> str:
        """A token that is good for a while. Raises Failed."""
        if self.now() >= self._until - _MARGIN_SECONDS:
            body = _read(client, "POST", self.token_url, data=self._form())
            token, seconds = body.get("access_token"), body.get("expires_in", 60)
            if not isinstance(token, str) or not isinstance(seconds, int):
                raise Failed("token-malformed")
            self._token, self._until = token, self.now() + seconds
        return self._token

    def forget(self) -> None:
        """The server did not like the token: the next request asks for another."""
        self._until = 0.0

    def _form(self) -> dict[str, str]:
        algorithm = "RS384" if isinstance(self.key, RSAKey) else "ES384"
        now = int(self.now())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.token_url,
            "iat": now,
            "exp": now + _ASSERTION_SECONDS,
            "jti": secrets.token_urlsafe(24),
        }
        header = {"alg": algorithm, "typ": "JWT", "kid": self.key.kid}
        return {
            "grant_type": "client_credentials",
            "scope": self.scope,
            "client_assertion_type": ASSERTION,
            "client_assertion": jwt.encode(header, claims, self.key, algorithms=[algorithm]),
        }


@dataclass(frozen=True, slots=True)
class FhirServer:
    """Another FHIR server. `credentials` None: it asks for none (a server on this machine, behind a proxy)."""

    base_url: str
    client: httpx2.Client
    credentials: Credentials | None = None

    def search(self, kind: str, query: str) -> list[Json]:
        """The resources that a search finds on its first page. Raises Failed."""
        bundle = self._ask("GET", f"{self.base_url}/{kind}?{query}")
        entries = bundle.get("entry", [])
        found = [entry.get("resource") for entry in entries if isinstance(entry, dict)]
        return [resource for resource in found if isinstance(resource, dict) and resource.get("resourceType") == kind]

    def transact(self, bundle: Json) -> Json:
        """The answer to a transaction. Raises Failed."""
        data = json.dumps(bundle, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        return self._ask("POST", self.base_url, content=data)

    def _ask(self, method: str, url: str, content: bytes | None = None) -> Json:
        headers = {"Accept": "application/fhir+json"}
        if content is not None:
            headers["Content-Type"] = "application/fhir+json"
        if self.credentials is not None:
            headers["Authorization"] = f"Bearer {self.credentials.token(self.client)}"
        try:
            return _read(self.client, method, url, headers=headers, content=content)
        except Failed as failure:
            if failure.code == "http-401" and self.credentials is not None:
                self.credentials.forget()
            raise


def _read(client: httpx2.Client, method: str, url: str, **sent: Any) -> Json:
    try:
        answer = client.request(method, url, **sent)
    except httpx2.TimeoutException:
        raise Failed("timeout") from None
    except (httpx2.HTTPError, httpx2.InvalidURL):
        raise Failed("unreachable") from None
    if not 200 <= answer.status_code < 300:
        raise Failed(f"http-{answer.status_code}")
    try:
        body = answer.json() if len(answer.content) <= _LARGEST else None
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Failed("answer-malformed")
    return body
