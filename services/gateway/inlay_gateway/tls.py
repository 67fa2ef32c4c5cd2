"""TLS for MLLP from files: at least version 1.2, and mutual authentication where its files are named (ITI-19)."""

from __future__ import annotations

import ssl
from pathlib import Path

from inlay_core.domain.errors import Invalid
from inlay_core.settings import Settings
from inlay_core.targets import SETTING, TlsFiles


def listener_context(settings: Settings) -> ssl.SSLContext | None:
    """What the listener shows and whom it lets in; None without a certificate. Raises Invalid, naming the setting."""
    certificate, key, clients = settings.mllp_tls_certificate, settings.mllp_tls_key, settings.mllp_tls_clients
    if not certificate:
        if key or clients:
            raise Invalid("bad-setting", "Needed for the other settings of TLS.", "INLAY_MLLP_TLS_CERTIFICATE")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _check_file(certificate, "INLAY_MLLP_TLS_CERTIFICATE")
    _check_file(key or certificate, "INLAY_MLLP_TLS_KEY")
    try:
        context.load_cert_chain(certificate, key or None)
    except (ssl.SSLError, OSError):
        message = "Certificate and key cannot be read or do not belong together."
        raise Invalid("bad-setting", message, "INLAY_MLLP_TLS_CERTIFICATE") from None
    if clients:
        _check_file(clients, "INLAY_MLLP_TLS_CLIENTS")
        try:
            context.load_verify_locations(clients)
        except (ssl.SSLError, OSError):
            raise Invalid("bad-setting", "No certificates in PEM form.", "INLAY_MLLP_TLS_CLIENTS") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Whom we trust as a receiver, and as whom we come. Raises Invalid."""
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(files.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if files.certificate is not None:
            context.load_cert_chain(files.certificate, files.key)
    except (ssl.SSLError, OSError):
        raise Invalid("bad-setting", "A file for TLS of a target cannot be read.", SETTING) from None
    return context


def _check_file(path: str, setting: str) -> None:
    if not Path(path).is_file():
        raise Invalid("bad-setting", "No such file.", setting)
