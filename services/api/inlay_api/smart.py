"""SMART Backend Services, the server's side: systems prove who they are by a signed assertion and get a short token.

https://hl7.org/fhir/smart-app-launch/backend-services.html (2.2), RFC 7523. A client is known by its keys alone: there
are no shared secrets. An assertion is good once, for at most five minutes.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from inlay_api.keys import FileKeys, Keys, UrlKeys
from inlay_core.application.clients import redeem_assertion
from inlay_core.bootstrap import Services
from inlay_core.domain.errors import Conflict, Invalid, Unavailable
from inlay_core.domain.identity import Actor, ActorKind, Role
from inlay_fhir.scopes import Scopes

ALGORITHMS: Final = ("RS384", "ES384")
GRANT: Final = "client_credentials"
ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# "exp" at most five minutes ahead (SMART), and so much more for clocks that differ.
_LONGEST_SECONDS: Final = 300
_LEEWAY_SECONDS: Final = 30
TOKEN_SECONDS: Final = 300
_TYPE: Final = "at+jwt"  # RFC 9068
_LONGEST_JTI: Final = 255


class TokenError(Exception):
    """An error of the token endpoint (RFC 6749, 5.2): `error` for programs; `client` where one is known by its name."""

    def __init__(self, error: str, description: str, client: str = "", status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.client = client
        self.status = status


@dataclass(frozen=True, slots=True)
class Client:
    """A registered system: its id, its name for the trail, its keys and the most that it may be granted."""

    id: str
    name: str
    keys: Keys
    scopes: Scopes


def read_clients(path: str) -> Mapping[str, Client]:
    """The clients of a TOML file (`[[client]]` with id, name, jwks_file or jwks_url, scopes). Raises Invalid."""
    place = "INLAY_SMART_CLIENTS"
    if not path:
        return {}
    try:
        body = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid("bad-setting", f"The clients cannot be read ({error.strerror}).", place) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise Invalid("bad-setting", "The clients are no TOML.", place) from None
    tables = body.get("client", [])
    if set(body) - {"client"} or not isinstance(tables, list):
        raise Invalid("bad-setting", "Expected tables [[client]] and nothing else.", place)
    clients = [_client(table, f"{place}: client[{n}]", Path(path).parent) for n, table in enumerate(tables)]
    if len({client.id for client in clients}) != len(clients):
        raise Invalid("bad-setting", "A client stands twice.", place)
    return {client.id: client for client in clients}


def _client(table: Any, place: str, folder: Path) -> Client:
    known = {"id", "name", "jwks_file", "jwks_url", "scopes"}
    if not isinstance(table, dict) or set(table) - known or not all(isinstance(v, str) for v in table.values()):
        raise Invalid("bad-setting", f"A client has {', '.join(sorted(known))}, all of them texts.", place)
    identity, file, url = table.get("id", ""), table.get("jwks_file"), table.get("jwks_url")
    if not identity.strip() or (file is None) == (url is None):
        raise Invalid("bad-setting", "A client has an id, and either jwks_file or jwks_url.", place)
    scopes = Scopes.parsed(table.get("scopes", ""))
    if not scopes or scopes.unknown:
        raise Invalid("bad-setting", "Expected scopes like system/DiagnosticReport.rs.", f"{place}.scopes")
    keys: Keys = FileKeys(folder / file, f"{place}.jwks_file") if file else UrlKeys(url or "", f"{place}.jwks_url")
    return Client(identity, table.get("name") or identity, keys, scopes)


class SmartServer:
    """Issues access tokens to registered clients and recognises them again."""

    def __init__(self, clients: Mapping[str, Client], key: ECKey, now: Callable[[], float] = time.time) -> None:
        self._clients = clients
        self._key = key
        self._now = now

    @property
    def has_clients(self) -> bool:
        """Whether anybody can get a token."""
        return bool(self._clients)

    def authenticate(self, services: Services, form: Mapping[str, str], endpoint: str) -> tuple[Client, Scopes]:
        """The client of a token request and what it is granted. Raises TokenError."""
        if form.get("grant_type") != GRANT:
            raise TokenError("unsupported_grant_type", f"grant_type is {GRANT}.")
        if form.get("client_assertion_type") != ASSERTION or not form.get("client_assertion"):
            raise TokenError("invalid_request", "client_assertion_type and client_assertion are needed.")
        client, claims = self._asserted(form["client_assertion"])
        expires = self._check(claims, client, endpoint)
        granted = client.scopes.granted(form.get("scope", ""))
        if not granted:
            raise TokenError("invalid_scope", "None of these scopes is granted to this client.", client.id)
        try:
            redeem_assertion(services.uow(), services.clock, client.id, claims["jti"], expires)
        except Conflict:
            raise _bad_client("The assertion was used before.", client.id) from None
        return client, granted

    def issue(self, client: Client, scopes: Scopes, base_url: str) -> dict[str, Any]:
        """The answer with the access token."""
        now = int(self._now())
        claims = {
            "iss": base_url,
            "aud": base_url,
            "sub": client.id,
            "name": client.name,
            "scope": str(scopes),
            "iat": now,
            "exp": now + TOKEN_SECONDS,
        }
        token = jwt.encode(
            {"alg": "ES384", "typ": _TYPE, "kid": self._key.kid}, claims, self._key, algorithms=["ES384"]
        )
        return {"access_token": token, "token_type": "bearer", "expires_in": TOKEN_SECONDS, "scope": str(scopes)}

    def is_ours(self, token: str) -> bool:
        """Whether the token says that it is one of ours; whether that is true `identify` finds out."""
        header = header_of(token)
        # Providers call their tokens `at+jwt` as well (RFC 9068); the key tells whose it is.
        return header.get("typ") == _TYPE and header.get("kid") == self._key.kid

    def identify(self, token: str) -> tuple[Actor, Scopes, int]:
        """Who a token of ours is for, what it grants, and until when.

        Raises JoseError, ValueError or KeyError for one that does not hold.
        """
        claims = jwt.decode(token, self._key, algorithms=["ES384"]).claims
        if not isinstance(claims.get("exp"), int) or claims["exp"] <= self._now():
            raise ValueError("expired")
        if claims["sub"] not in self._clients:
            raise ValueError("the client is not registered any more")
        # What was taken from a client's registration is taken from its tokens as well.
        scopes = self._clients[claims["sub"]].scopes.granted(claims["scope"])
        actor = Actor(f"client:{claims['sub']}", claims["name"], roles_of(scopes), ActorKind.SYSTEM)
        return actor, scopes, claims["exp"]

    def _asserted(self, assertion: str) -> tuple[Client, Mapping[str, Any]]:
        header = header_of(assertion)
        # The claim is read before it is trusted: it says whose keys are to verify it.
        client = self._clients.get(str(_unverified(assertion).get("sub")))
        if client is None:
            raise _bad_client("The client is not registered.")
        if header.get("alg") not in ALGORITHMS or not isinstance(header.get("kid"), str):
            raise _bad_client(
                f"An assertion is signed by {' or '.join(ALGORITHMS)} and names its key by kid.", client.id
            )
        try:
            keys = client.keys.current(header["kid"])
            named = KeySet([key for key in keys.keys if key.kid == header["kid"]])
            return client, jwt.decode(assertion, named, algorithms=list(ALGORITHMS)).claims
        except Unavailable:
            raise TokenError("temporarily_unavailable", "The client's keys cannot be had.", client.id, 503) from None
        except (JoseError, ValueError, TypeError, KeyError):
            raise _bad_client("The assertion is not signed by a key of the client.", client.id) from None

    def _check(self, claims: Mapping[str, Any], client: Client, endpoint: str) -> int:
        """When the assertion ends, in seconds since 1970. Raises TokenError for claims that do not fit."""
        now = self._now()
        audience = claims.get("aud")
        expires, jti = claims.get("exp"), claims.get("jti")
        if claims.get("iss") != client.id or claims.get("sub") != client.id:
            raise _bad_client("iss and sub are the client's id.", client.id)
        if endpoint not in (audience if isinstance(audience, list) else [audience]):
            raise _bad_client("aud is the URL of this endpoint.", client.id)
        if type(expires) is not int or not now - _LEEWAY_SECONDS < expires <= now + _LONGEST_SECONDS + _LEEWAY_SECONDS:
            raise _bad_client("exp is at most five minutes ahead.", client.id)
        started = claims.get("nbf", 0)
        if not isinstance(started, int | float) or started > now + _LEEWAY_SECONDS:
            raise _bad_client("The assertion is not good yet.", client.id)
        if not isinstance(jti, str) or not jti or len(jti) > _LONGEST_JTI or not jti.isprintable():
            raise _bad_client("jti names the assertion.", client.id)
        return expires


def roles_of(scopes: Scopes) -> frozenset[Role]:
    """The roles whose permissions the scopes need; the router holds each interaction to the scopes themselves."""
    roles = {Role.EHR}
    if any(scopes.allow(kind, "c") for kind in ("ServiceRequest", "ImagingStudy")):
        roles.add(Role.RIS)
    if any(scopes.allow(kind, letter) for kind in ("AuditEvent", "Task") for letter in "rs"):
        roles.add(Role.AUDITOR)
    return frozenset(roles)


def header_of(token: str) -> Mapping[str, Any]:
    """The header of a token, not verified; empty for what is no token."""
    try:
        return dict(jws.extract_compact(token.encode("ascii")).headers())
    except (JoseError, ValueError, TypeError, KeyError):
        return {}


def _unverified(token: str) -> Mapping[str, Any]:
    try:
        claims = json.loads(jws.extract_compact(token.encode("ascii")).payload or b"")
    except (JoseError, ValueError, TypeError, KeyError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _bad_client(description: str, client: str = "") -> TokenError:
    return TokenError("invalid_client", description, client, 401)


def configuration(base_url: str) -> dict[str, Any]:
    """What `/.well-known/smart-configuration` says."""
    return {
        "token_endpoint": f"{base_url}/auth/token",
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "grant_types_supported": [GRANT],
        "scopes_supported": ["system/*.rs", "system/DiagnosticReport.rs", "system/ServiceRequest.crs"],
        "code_challenge_methods_supported": ["S256"],
        "capabilities": ["client-confidential-asymmetric", "permission-v2", "permission-v1"],
    }
