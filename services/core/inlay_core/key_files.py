"""Key pairs in files: made once per home, or given by the site and shared by its machines."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from inlay_core.domain.errors import Invalid


def kept_key(path: Path, curve: str, algorithm: str) -> ECKey:
    """The key pair of that file, made at the first call. Readable by its owner only; several processes may race."""
    if not path.exists():
        key = ECKey.generate_key(curve, {"use": "sig", "alg": algorithm}, private=True)
        key.ensure_kid()
        _write_once(path, json.dumps(key.as_dict(private=True)))
    return ECKey.import_key(json.loads(path.read_text(encoding="utf-8")))


def given_key(path: Path, curve: str, setting: str) -> ECKey:
    """The private key that the site gave. Raises Invalid, naming the setting."""
    wrong = Invalid("bad-setting", f"Expected a private key (JWK) on {curve}.", setting)
    try:
        key = ECKey.import_key(json.loads(path.read_text(encoding="utf-8")))
        key.ensure_kid()
    except (OSError, JoseError, ValueError, TypeError, KeyError):
        raise wrong from None
    if not key.is_private or key.curve_name != curve:
        raise wrong
    return key


def _write_once(path: Path, text: str) -> None:
    """Put the file there complete and with mode 0600, unless somebody else was first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            return
    finally:
        partial.unlink()
