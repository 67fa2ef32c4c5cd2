"""Encryption of a column: AES-256-GCM with a ring of keys, bound to the row by its id.

A key ring is a TOML file that only the services read:

    current = "2026-11"

    [keys]
    "2026-11" = "<32 bytes, base64: openssl rand -base64 32>"
    "2025-01" = "<an earlier one, for what was stored then>"

`current = ""` stores new messages in plain and lets `inlay db reencrypt` take the encryption back.
"""

from __future__ import annotations

import base64
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from inlay_core.domain.errors import Fault, Invalid, Unavailable

_SETTING: Final = "INLAY_MESSAGE_KEYS"
# NIST SP 800-38D, 8.2.2: random nonces of 96 bits are good for 2^32 messages per key.
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys by name; new bytes are encrypted with the current one, or not at all where none is current."""

    current: str
    keys: Mapping[str, bytes] = field(repr=False)

    def encrypt(self, plain: bytes, row_id: str) -> tuple[str | None, bytes]:
        """The name of the key, and nonce with ciphertext; good in this row only."""
        if not self.current:
            return None, plain
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return self.current, nonce + AESGCM(self.keys[self.current]).encrypt(nonce, plain, row_id.encode())

    def decrypt(self, name: str, stored: bytes, row_id: str) -> bytes:
        """The bytes again. Raises Unavailable without that key, Fault for what was changed or moved to another row."""
        key = self.keys.get(name)
        if key is None:
            raise _no_key()
        try:
            return AESGCM(key).decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], row_id.encode())
        except (InvalidTag, ValueError):
            raise Fault("message-changed", "Stored bytes do not fit their key and row.", "message.raw") from None


def opened(stored: bytes, key: str | None, row_id: str, ring: KeyRing | None) -> bytes:
    """The bytes of a column that may be encrypted. Raises as `decrypt`."""
    if key is None:
        return stored
    if ring is None:
        raise _no_key()
    return ring.decrypt(key, stored, row_id)


def read_ring(path: str) -> KeyRing | None:
    """The key ring of that file; None without one. Raises Invalid, which never quotes the file."""
    if not path:
        return None
    try:
        return _ring(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except OSError:
        raise Invalid("bad-setting", "The file cannot be read.", _SETTING) from None
    except (ValueError, TypeError, AttributeError):
        message = 'Expected current = "name" and a table [keys] of names and 32 bytes in base64.'
        raise Invalid("bad-setting", message, _SETTING) from None


def _ring(table: Mapping[str, object]) -> KeyRing:
    named, current = table.get("keys"), table.get("current")
    if not isinstance(named, dict) or not isinstance(current, str) or current not in {"", *named}:
        raise ValueError("current names no key")
    keys = {str(name): base64.b64decode(value, validate=True) for name, value in named.items()}
    if any(len(key) != _KEY_BYTES or len(name) > _LONGEST_NAME for name, key in keys.items()):
        raise ValueError("a key has 32 bytes, its name 64 characters at most")
    return KeyRing(current, keys)


def _no_key() -> Unavailable:
    return Unavailable("message-key-missing", "The key of a stored message is not in the key ring.", _SETTING)
