"""Login at the hospital's provider: OpenID Connect, authorization code flow with PKCE (OIDC Core 1.0, 3.1; RFC 7636).

What a browser brings back is worth nothing by itself: the code is redeemed by us, with a verifier that never left this
browser and process, and the ID token is checked like any other token. Nothing here keeps state between two requests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from joserfc import jwt
from joserfc.errors import JoseError

from inlay_api.auth import ALGORITHMS, LEEWAY_SECONDS, LONGEST_TOKEN, actor_from, role_map, with_roles
from inlay_api.keys import UrlKeys, check_url, fetch_json
from inlay_api.problems import Unauthenticated
from inlay_core.domain.errors import Forbidden, Unavailable
from inlay_core.domain.identity import Actor, ActorKind
from inlay_core.settings import Settings

CALLBACK: Final = "/login/callback"
# Providers change their endpoints about never; a mistake of theirs is mended within this.
_FRESH_SECONDS: Final = 3600.0
_TIMEOUT_SECONDS: Final = 10.0
_LARGEST: Final = 262_144
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a browser keeps while its person is at the provider: each is random and of this attempt only."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> Attempt:
        """A fresh attempt."""
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))

    @classmethod
    def of_cookie(cls, text: str) -> Attempt | None:
        """The attempt that a cookie states."""
        parts = text.split(".")
        return cls(*parts) if len(parts) == 3 and all(parts) else None

    def to_cookie(self) -> str:
        """The cookie's value."""
        return f"{self.state}.{self.nonce}.{self.verifier}"

    @property
    def challenge(self) -> str:
        """The S256 challenge (RFC 7636, 4.2)."""
        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


class Provider:
    """The hospital's provider as the settings name it. Raises Invalid for one that is not spoken to over TLS."""

    def __init__(
        self,
        settings: Settings,
        *,
        fetch: Callable[[str], Any] = fetch_json,
        now: Callable[[], float] = time.time,
    ) -> None:
        check_url(settings.oidc_issuer, "INLAY_OIDC_ISSUER")
        self._issuer = settings.oidc_issuer.rstrip("/")
        self._client = settings.oidc_client_id
        self._secret = settings.oidc_client_secret
        self._scope = settings.oidc_scope
        self._claim = settings.role_claim
        self._map = role_map(settings.role_map)
        self._redirect = settings.public_url.rstrip("/") + CALLBACK
        self._fetch = fetch
        self._now = now
        self._lock = threading.Lock()
        self._read = -_FRESH_SECONDS
        self._endpoints: Mapping[str, str] = {}
        self._keys: UrlKeys | None = None

    def address(self, attempt: Attempt, *, again: bool = False) -> str:
        """Where the browser is sent. `again` asks the provider for the password even of whoever is logged in there.

        Raises Unavailable when the provider does not answer.
        """
        asked = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": self._redirect,
            "scope": self._scope,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        } | ({"prompt": "login"} if again else {})
        endpoint = self._known()["authorization_endpoint"]
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    def redeem(self, answer: Mapping[str, str], attempt: Attempt | None) -> Actor:
        """The person that the provider's answer (the callback's query) stands for.

        Raises Unauthenticated for an answer that does not hold, Forbidden for somebody without a role here, Unavailable
        when the provider does not answer.
        """
        if attempt is None or not hmac.compare_digest(attempt.state.encode(), answer.get("state", "").encode()):
            raise Unauthenticated("login-unknown", "This login was not begun in this browser, or long ago.")
        # RFC 9207: which provider answers, where it says so.
        if answer.get("iss", self._issuer).rstrip("/") != self._issuer:
            raise Unauthenticated("login-wrong", "Another provider has answered.")
        if "error" in answer or not answer.get("code"):
            raise Unauthenticated("login-refused", "The provider has refused the login.")
        tokens = self._tokens(answer["code"], attempt.verifier)
        claims = self._identity(tokens, attempt.nonce)
        return _person(with_roles(claims, self._claim, self._map))

    def _known(self) -> Mapping[str, str]:
        """The provider's endpoints (OpenID Connect Discovery 1.0). What was read stays good while it is away."""
        with self._lock:
            if self._now() - self._read < _FRESH_SECONDS:
                return self._endpoints
            try:
                self._endpoints = self._checked(self._fetch(f"{self._issuer}/.well-known/openid-configuration"))
            except Unavailable:
                if not self._endpoints:
                    raise Unavailable("provider-unavailable", "The identity provider does not answer.") from None
                return self._endpoints
            self._read = self._now()
            self._keys = UrlKeys(self._endpoints["jwks_uri"], "INLAY_OIDC_ISSUER", self._fetch)
            return self._endpoints

    def _checked(self, document: Any) -> Mapping[str, str]:
        known = document if isinstance(document, dict) else {}
        endpoints = {name: known.get(name) for name in (*_ENDPOINTS, "userinfo_endpoint")}
        if str(known.get("issuer", "")).rstrip("/") != self._issuer or not all(endpoints[name] for name in _ENDPOINTS):
            raise Unavailable("provider-wrong", "The provider's configuration is not that of INLAY_OIDC_ISSUER.")
        found = {name: str(url) for name, url in endpoints.items() if url}
        for url in found.values():
            check_url(url, "INLAY_OIDC_ISSUER")
        return found

    def _tokens(self, code: str, verifier: str) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": verifier,
        }
        headers = {"Accept": "application/json"}
        if self._secret:
            # RFC 6749, 2.3.1: both are encoded as in a form before they are joined.
            pair = f"{quote(self._client, safe='')}:{quote(self._secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
        else:
            form["client_id"] = self._client
        answer = _asked("POST", self._known()["token_endpoint"], data=form, headers=headers)
        if not isinstance(answer.get("id_token"), str) or len(answer["id_token"]) > LONGEST_TOKEN:
            raise Unauthenticated("login-wrong", "The provider's answer holds no ID token.")
        return answer

    def _identity(self, tokens: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """The claims of the ID token, with those of the provider's userinfo where it alone has roles or name."""
        claims = self._claims(tokens["id_token"], nonce)
        userinfo = self._known().get("userinfo_endpoint")
        complete = claims.get("name") and with_roles(claims, self._claim, self._map)["roles"]
        if complete or not userinfo or not isinstance(tokens.get("access_token"), str):
            return claims
        more = _asked("GET", userinfo, headers={"Authorization": f"Bearer {tokens['access_token']}"})
        # OIDC Core, 5.3.2: what is of somebody else is not used.
        if more.get("sub") != claims["sub"]:
            raise Unauthenticated("login-wrong", "The provider tells of somebody else.")
        return joined(claims, more)

    def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        """The claims of an ID token that holds (OIDC Core, 3.1.3.7)."""
        assert self._keys is not None
        try:
            claims = jwt.decode(token, self._keys.current(_kid(token)), algorithms=list(ALGORITHMS)).claims
            jwt.JWTClaimsRegistry(
                now=lambda: int(self._now()),
                leeway=LEEWAY_SECONDS,
                aud={"essential": True, "value": self._client},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(claims)
        except (JoseError, ValueError, TypeError, KeyError):
            raise Unauthenticated("login-wrong", "The provider's ID token does not hold.") from None
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if str(claims.get("iss", "")).rstrip("/") != self._issuer or (
            (several or "azp" in claims) and claims.get("azp") != self._client
        ):
            raise Unauthenticated("login-wrong", "The provider's ID token is not for Inlay.")
        return claims


def joined(claims: Mapping[str, Any], userinfo: Mapping[str, Any]) -> Mapping[str, Any]:
    """The claims of a signed ID token, and of userinfo what the token leaves out or empty."""
    return {**userinfo, **{name: value for name, value in claims.items() if value or name not in userinfo}}


def _person(claims: Mapping[str, Any]) -> Actor:
    actor = actor_from(claims)
    if actor.kind is not ActorKind.PERSON:
        raise Forbidden("not-a-person", "Systems do not log in here; they bear tokens.", "actor.kind")
    return actor


def _kid(token: str) -> str | None:
    from inlay_api.smart import header_of

    kid = header_of(token).get("kid")
    return kid if isinstance(kid, str) else None


def _asked(method: str, url: str, **sent: Any) -> dict[str, Any]:
    """The JSON object that the provider answers with. Nothing of its errors is passed on: they may name people."""
    import httpx2

    try:
        answer = httpx2.request(method, url, timeout=_TIMEOUT_SECONDS, follow_redirects=False, **sent)
        body = answer.json() if len(answer.content) <= _LARGEST else None
    except (httpx2.HTTPError, ValueError):
        raise Unavailable("provider-unavailable", "The identity provider does not answer.") from None
    if answer.status_code >= 500:
        raise Unavailable("provider-unavailable", "The identity provider does not answer.")
    if answer.status_code != 200 or not isinstance(body, dict):
        raise Unauthenticated("login-refused", "The provider has refused the login.")
    return body
