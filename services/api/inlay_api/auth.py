"""Bearer tokens (JWT, RFC 7519): who calls. Embedded: a key pair of this home. jwt: keys of the hospital's provider.

A token is good only with an allowed algorithm, this issuer, this audience and an expiry; it is never taken from a URL.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwk import ECKey, KeySet

from inlay_api.keys import FileKeys, Keys, UrlKeys
from inlay_api.problems import Unauthenticated
from inlay_api.smart import SmartServer, header_of, read_clients
from inlay_core.domain.errors import Forbidden, Invalid
from inlay_core.domain.identity import Actor, ActorKind, Role
from inlay_core.key_files import given_key, kept_key
from inlay_core.settings import Settings
from inlay_fhir.recent import Recent
from inlay_fhir.scopes import Scopes

# Signatures with a public key only: with HS256 a public key could be used as a shared secret, and `none` is no
# signature at all.
ALGORITHMS: Final = ("ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "Ed25519")
EMBEDDED_ALGORITHM: Final = "ES256"
# Clocks of servers that are kept in step differ by less.
LEEWAY_SECONDS: Final = 30
# Headers above 8 KiB do not reach us anyway; what follows is decoded, so it is bounded here too.
LONGEST_TOKEN: Final = 8000
LONGEST_NAME: Final = 200
# Verified tokens, by digest: a system sends the same one until it expires, and a signature costs more than the answer.
_KEPT: Final = 1024
# Roles of machines; whoever has another one is a person unless the token says otherwise.
_MACHINE_ROLES: Final = frozenset({Role.RIS, Role.EHR})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls. `scopes` bound what a system may do over FHIR; None for persons and for systems with roles."""

    actor: Actor
    scopes: Scopes | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """A token that held: whose it is, until when, and for one of the provider's the keys that it was verified by."""

    identity: Identity
    expires: float
    keys: KeySet | None = None
    kid: str | None = None


class Verifier:
    """Turns a bearer token into an identity: one of the provider's or of this home, or one that a client got here."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        embedded = settings.auth == "embedded"
        self._algorithms = [EMBEDDED_ALGORITHM] if embedded else list(ALGORITHMS)
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._claim = "roles" if embedded else settings.role_claim
        self._map = {} if embedded else role_map(settings.role_map)
        self._now = now
        self._known: Recent[bytes, _Known] = Recent(_KEPT)
        self._keys: Keys
        if embedded:
            ensure_key(settings)
            self._keys = FileKeys(key_file(settings), "INLAY_HOME")
        elif settings.jwks_url:
            self._keys = UrlKeys(settings.jwks_url, "INLAY_JWKS_URL")
        else:
            self._keys = FileKeys(Path(settings.jwks_file), "INLAY_JWKS_FILE")
        clients = read_clients(settings.smart_clients)
        self.smart = SmartServer(clients, smart_key(settings), now) if clients else None

    def identity_of(self, authorization: str | None) -> Identity:
        """The identity of an Authorization header. Raises Unauthenticated."""
        token = bearer(authorization)
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is None or not self._still_holds(known):
            known = self._verified(token)
            self._known.keep(digest, known)
        return known.identity

    def _still_holds(self, known: _Known) -> bool:
        """Whether a token that was good may be taken as good: not expired, and by the keys that are trusted now."""
        return self._now() < known.expires and (known.keys is None or self._keys.current(known.kid) is known.keys)

    def _verified(self, token: str) -> _Known:
        if self.smart is not None and self.smart.is_ours(token):
            try:
                actor, scopes, expires = self.smart.identify(token)
                return _Known(Identity(actor, scopes), expires)
            except (JoseError, ValueError, TypeError, KeyError):
                raise Unauthenticated("token-invalid", "The access token does not hold or has expired.") from None
        kid = header_of(token).get("kid")
        kid = kid if isinstance(kid, str) else None
        keys = self._keys.current(kid)
        claims = self._claims(token, keys)
        identity = Identity(actor_from(with_roles(claims, self._claim, self._map)))
        return _Known(identity, claims["exp"], keys, kid)

    def actor_of(self, authorization: str | None) -> Actor:
        """Who calls the workstation API. Raises Unauthenticated, Forbidden for a system's token of scopes."""
        identity = self.identity_of(authorization)
        if identity.scopes is not None:
            raise Forbidden("not-permitted", "A token of SMART scopes is good for FHIR only.", "actor.scopes")
        return identity.actor

    def _claims(self, token: str, keys: KeySet) -> Mapping[str, Any]:
        try:
            claims = jwt.decode(token, keys, algorithms=self._algorithms).claims
        except (JoseError, ValueError, TypeError, KeyError):
            raise Unauthenticated("token-invalid", "The token is not signed by a key that is trusted here.") from None
        try:
            jwt.JWTClaimsRegistry(
                now=lambda: int(self._now()),
                leeway=LEEWAY_SECONDS,
                iss={"essential": True, "value": self._issuer},
                aud={"essential": True, "value": self._audience},
                sub={"essential": True},
                exp={"essential": True},
            ).validate(claims)
        except ExpiredTokenError:
            raise Unauthenticated("token-expired", "The token has expired.") from None
        except MissingClaimError as error:
            raise Unauthenticated("token-incomplete", f"The token lacks the claim {error.claim}.") from None
        except InvalidClaimError as error:
            raise Unauthenticated("token-wrong", f"The claim {error.claim} does not fit.") from None
        except (JoseError, ValueError, TypeError):
            raise Unauthenticated("token-wrong", "A claim of the token does not fit.") from None
        return claims


def bearer(authorization: str | None) -> str:
    """The token in an Authorization header. Raises Unauthenticated."""
    if not authorization:
        raise Unauthenticated("token-missing", "A bearer token is needed.")
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > LONGEST_TOKEN:
        raise Unauthenticated("token-malformed", "The Authorization header holds no bearer token.")
    return token


def role_map(text: str) -> Mapping[str, Role]:
    """`theirs=ours,...` as a table. Raises Invalid."""
    known = {str(role): role for role in Role}
    table: dict[str, Role] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        theirs, equals, ours = (part.strip() for part in pair.rpartition("="))
        if not equals or not theirs or ours not in known:
            raise Invalid("bad-setting", f"Expected name=role pairs; roles are {', '.join(known)}.", "INLAY_ROLE_MAP")
        table[theirs] = known[ours]
    return table


def with_roles(claims: Mapping[str, Any], claim: str, table: Mapping[str, Role]) -> Mapping[str, Any]:
    """The claims with `roles` as Inlay names them, from the provider's own claim; a lone text is a list of one."""
    found: Any = claims
    for name in [claim] if claim in claims else claim.split("."):
        found = found.get(name, []) if isinstance(found, dict) else []
    # A lone text is what some providers write for one group; in `roles` it has always been refused.
    listed = [found] if isinstance(found, str) and claim != "roles" else found
    if not table or not isinstance(listed, list):
        return {**claims, "roles": listed}
    return {**claims, "roles": [str(table[name]) for name in listed if isinstance(name, str) and name in table]}


def actor_from(claims: Mapping[str, Any]) -> Actor:
    """The identity that the claims state: `sub`, `name`, `roles`, and optionally `kind` (person or system).

    Roles that Inlay does not know are left out. A person needs a name: signatures bear it. Raises Unauthenticated.
    """
    subject, named = claims.get("sub"), claims.get("roles", [])
    if not isinstance(subject, str) or not subject.strip() or not isinstance(named, list):
        raise Unauthenticated("token-wrong", "The claim sub or roles does not fit.")
    known = {str(role) for role in Role}
    roles = frozenset(Role(role) for role in named if isinstance(role, str) and role in known)
    kind = claims.get("kind", ActorKind.SYSTEM if roles and roles <= _MACHINE_ROLES else ActorKind.PERSON)
    if kind not in set(ActorKind):
        raise Unauthenticated("token-wrong", "The claim kind does not fit.")
    name = claims.get("name", "")
    if not isinstance(name, str) or not _storable(subject + name) or len(name) > LONGEST_NAME:
        raise Unauthenticated("token-wrong", "The claim name does not fit.")
    if not name.strip() and kind == ActorKind.PERSON:
        raise Unauthenticated("token-incomplete", "The token of a person needs the claim name.")
    if not roles and kind == ActorKind.SYSTEM:
        # A system without roles is one of Inlay's own processes; nobody becomes one by a token.
        raise Forbidden("not-permitted", "The token names no role that is known here.", "actor.roles")
    return Actor(subject, name.strip() or subject, roles, ActorKind(kind))


def _storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


# ---------------------------------------------------------------------------------------------- the embedded mode


def key_file(settings: Settings) -> Path:
    """Where the embedded mode keeps its key pair."""
    return settings.home / "keys" / "token-key.json"


def ensure_key(settings: Settings) -> ECKey:
    """The key pair of this home, made at the first call. Readable by its owner only; several processes may race."""
    return kept_key(key_file(settings), "P-256", EMBEDDED_ALGORITHM)


def smart_key(settings: Settings) -> ECKey:
    """The key that signs access tokens of clients. Several replicas share it by a file. Raises Invalid."""
    if not settings.smart_key_file:
        return kept_key(settings.home / "keys" / "smart-key.json", "P-384", "ES384")
    return given_key(Path(settings.smart_key_file), "P-384", "INLAY_SMART_KEY_FILE")


def mint(settings: Settings, identity: str, name: str, roles: Sequence[str], hours: float) -> str:
    """A token of the embedded mode, good for `hours`. Raises Invalid where somebody else issues the tokens."""
    if settings.auth != "embedded":
        raise Invalid("bad-setting", "Tokens come from your identity provider.", "INLAY_AUTH")
    if not hours > 0:
        raise Invalid("bad-number", "A token is good for some time.", "hours")
    key = ensure_key(settings)
    now = int(time.time())
    claims = {
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "sub": identity,
        "name": name,
        "roles": [str(Role(role)) for role in roles],
        "iat": now,
        "nbf": now,
        "exp": now + int(hours * 3600),
    }
    return jwt.encode({"alg": EMBEDDED_ALGORITHM, "kid": key.kid}, claims, key, algorithms=[EMBEDDED_ALGORITHM])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_exposure(settings: Settings) -> None:
    """Raise Invalid for an address that others can reach without real authentication."""
    if settings.auth == "embedded" and not is_loopback(settings.http_host):
        raise Invalid(
            "bad-setting",
            "The embedded mode listens on loopback only; set INLAY_AUTH=jwt and INLAY_JWKS_FILE for another address.",
            "INLAY_HTTP_HOST",
        )
    if settings.auth == "jwt" and not settings.jwks_file and not settings.jwks_url:
        raise Invalid("bad-setting", "INLAY_AUTH=jwt needs the public keys of the issuer.", "INLAY_JWKS_FILE")
