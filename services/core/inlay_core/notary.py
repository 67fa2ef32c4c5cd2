"""Signs checkpoints of the audit trail as JWS (RFC 7515), and reads those that a trusted key signed.

A checkpoint is worth what its key is: the key belongs where whoever can write to the database cannot read it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from inlay_core.domain.audit import Checkpoint
from inlay_core.domain.errors import Invalid
from inlay_core.key_files import given_key, kept_key
from inlay_core.settings import Settings

# P-256: a walk along ten years of hourly checkpoints verifies some ninety thousand signatures.
_CURVE: Final = "P-256"
_ALGORITHM: Final = "ES256"
# Keeps a token of another purpose, signed by the same key, from being taken for a checkpoint.
_TYPE: Final = "inlay-checkpoint+jws"


class JwsNotary:
    """`Notary` with one key that signs and any number that are trusted besides (earlier ones)."""

    def __init__(self, key: ECKey, trusted: Sequence[Any] = ()) -> None:
        self._key = key
        self._keys = KeySet([key, *trusted])

    @property
    def public_keys(self) -> str:
        """The keys (JWKS) with which others verify what this one signs."""
        return json.dumps(self._keys.as_dict(private=False))

    def sign(self, checkpoint: Checkpoint) -> str:
        """Compact JWS over position, hash and time."""
        claims = {
            "position": checkpoint.position,
            "hash": checkpoint.hash,
            "at": checkpoint.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "is_cut": checkpoint.is_cut,
        }
        header = {"alg": _ALGORITHM, "kid": self._key.kid, "typ": _TYPE}
        return jws.serialize_compact(header, json.dumps(claims, sort_keys=True), self._key, algorithms=[_ALGORITHM])

    def read(self, token: str) -> Checkpoint:
        """The checkpoint that a trusted key signed. Raises Invalid."""
        try:
            signed = jws.deserialize_compact(token.strip(), self._keys, algorithms=[_ALGORITHM])
            claims = json.loads(signed.payload or b"") if signed.headers().get("typ") == _TYPE else {}
            at = datetime.fromisoformat(claims["at"])
            return Checkpoint(int(claims["position"]), str(claims["hash"]), at, bool(claims["is_cut"]))
        except (JoseError, ValueError, TypeError, KeyError):
            raise Invalid("checkpoint-invalid", "No trusted key signed this checkpoint.", "checkpoint") from None


def notary_of(settings: Settings) -> JwsNotary | None:
    """The notary of these settings; None where several machines share a database and no key was given.

    A key made in each machine's own home would be one that the others do not know. Raises Invalid.
    """
    if settings.audit_key_file:
        key = given_key(Path(settings.audit_key_file), _CURVE, "INLAY_AUDIT_KEY_FILE")
    elif settings.database_url and not settings.database_url.startswith("sqlite"):
        return None
    else:
        key = kept_key(settings.home / "keys" / "audit-key.json", _CURVE, _ALGORITHM)
    return JwsNotary(key, _trusted(settings.audit_trusted_keys))


def required_notary(settings: Settings) -> JwsNotary:
    """The notary of these settings. Raises Invalid where there is none."""
    notary = notary_of(settings)
    if notary is None:
        message = "A database that several machines share needs a given key (JWK on P-256) for checkpoints."
        raise Invalid("bad-setting", message, "INLAY_AUDIT_KEY_FILE")
    return notary


def _trusted(path: str) -> Sequence[Any]:
    if not path:
        return ()
    try:
        return list(KeySet.import_key_set(json.loads(Path(path).read_text(encoding="utf-8"))).keys)
    except (OSError, JoseError, ValueError, TypeError, KeyError):
        raise Invalid("bad-setting", "Expected public keys (JWKS).", "INLAY_AUDIT_TRUSTED_KEYS") from None
