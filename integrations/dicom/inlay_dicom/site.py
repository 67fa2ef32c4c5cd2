"""The site's DICOM neighbours, as a TOML file names them: who may send, which archive is asked, where reports go.

Every key is checked; one that is unknown or of the wrong kind is an error with its place. Passwords and tokens stand in
files of their own, which are read when they are needed.

    ae_title = "INLAY"

    [listener]
    tls_certificate = "/etc/inlay/dicom.crt"
    tls_key = "/etc/inlay/dicom.key"
    tls_peer_ca = "/etc/inlay/peers.crt"

    [[listener.peer]]
    ae_title = "XRAY1"
    networks = ["10.1.2.0/24"]

    [dicomweb]
    url = "https://pacs.hospital/dicom-web"
    token_file = "/run/secrets/pacs-token"

    [dimse]
    ae_title = "PACS"
    host = "pacs.hospital"
    port = 104
"""

import ipaddress
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints
from urllib.parse import urlsplit

from inlay_dicom.scp import Peer
from inlay_dicom.scu import DimseServer
from inlay_dicom.web import WebServer

T = TypeVar("T")
S = TypeVar("S", WebServer, DimseServer)
_KIND_NAMES: Final[Mapping[Any, str]] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Listener:
    """How we are sent to. Quota in GiB; files that were received longer ago than `keep_days` are removed."""

    quota_gib: float = 20.0
    keep_days: float = 30.0
    associations: int = 16
    tls_certificate: str = ""
    tls_key: str = ""
    tls_peer_ca: str = ""
    peers: tuple[Peer, ...] = ()

    def tls(self) -> ssl.SSLContext | None:
        """The server's context, None without TLS; with `tls_peer_ca` peers have to show a certificate.

        Raises OSError (ssl.SSLError is one) for files that cannot be used.
        """
        if not self.tls_certificate:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.tls_certificate, self.tls_key or None)
        if self.tls_peer_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.tls_peer_ca)
        return context


@dataclass(frozen=True, slots=True)
class Site:
    """All that the file says; without one, what holds by default: nobody is asked and nothing is sent."""

    ae_title: str = "INLAY"
    listener: Listener = field(default_factory=Listener)
    dicomweb: WebServer | None = None
    dimse: DimseServer | None = None


def read_site(text: str) -> Site:
    """The site of a TOML text. Raises ValueError, naming the place, never a value."""
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ValueError(f"not TOML ({problem})") from None
    ae_title = _checked_title(said.pop("ae_title", "INLAY"), "ae_title")
    listener = _listener(_table(said, "listener"))
    dicomweb = _dicomweb(_table(said, "dicomweb")) if "dicomweb" in said else None
    dimse = _dimse(_table(said, "dimse")) if "dimse" in said else None
    if said:
        raise ValueError(f"{min(said)}: unknown")
    return Site(ae_title, listener, dicomweb, dimse)


def read_site_file(path: str) -> Site:
    """As `read_site`, of a file; an empty path is a site without neighbours. Raises ValueError."""
    if not path:
        return Site()
    try:
        return read_site(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise ValueError(f"the file cannot be read ({problem.strerror})") from None


def _listener(table: dict[str, Any]) -> Listener:
    listed = table.pop("peer", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ValueError("listener.peer: expected [[listener.peer]] tables")
    peers = tuple(_peer(dict(one), f"listener.peer[{number}]") for number, one in enumerate(listed, 1))
    listener = _made(Listener, table | {"peers": peers}, "listener")
    if listener.tls_peer_ca and not listener.tls_certificate:
        raise ValueError("listener.tls_peer_ca: needs tls_certificate")
    if listener.quota_gib <= 0 or listener.keep_days <= 0 or listener.associations < 1:
        raise ValueError("listener: quota_gib, keep_days and associations are above zero")
    return listener


def _peer(table: dict[str, Any], place: str) -> Peer:
    title = _checked_title(table.pop("ae_title", None), f"{place}.ae_title")
    networks = table.pop("networks", [])
    if table:
        raise ValueError(f"{place}.{min(table)}: unknown")
    if not isinstance(networks, list):
        raise ValueError(f"{place}.networks: expected a list")  # noqa: TRY004 - one error for the whole file
    try:
        return Peer(title, tuple(ipaddress.ip_network(network) for network in networks))
    except (ValueError, TypeError):
        raise ValueError(f"{place}.networks: expected addresses or networks like 10.1.2.0/24") from None


def _dicomweb(table: dict[str, Any]) -> WebServer:
    server = _made(WebServer, table, "dicomweb")
    if not server.url.startswith(("http://", "https://")):
        raise ValueError("dicomweb.url: expected http:// or https://")
    if server.user and (server.token_file or not server.password_file):
        raise ValueError("dicomweb.user: needs password_file, and no token_file")
    if server.key and not server.certificate:
        raise ValueError("dicomweb.key: needs certificate")
    if (server.user or server.token_file) and server.url.startswith("http://") and not _is_loopback(server.url):
        raise ValueError("dicomweb.url: passwords and tokens need https://")
    return _with_times(server, "dicomweb")


def _dimse(table: dict[str, Any]) -> DimseServer:
    server = _made(DimseServer, table, "dimse")
    _checked_title(server.ae_title, "dimse.ae_title")
    if not 0 < server.port < 65536:
        raise ValueError("dimse.port: expected 1 to 65535")
    if server.tls_certificate and not server.tls_ca:
        raise ValueError("dimse.tls_certificate: needs tls_ca")
    return _with_times(server, "dimse")


def _with_times(server: S, place: str) -> S:
    if server.timeout_seconds <= 0 or server.deadline_seconds <= 0:
        raise ValueError(f"{place}: timeout_seconds and deadline_seconds are above zero")
    return server


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _table(said: dict[str, Any], name: str) -> dict[str, Any]:
    table = said.pop(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"{name}: expected a table")  # noqa: TRY004 - one error for the whole file
    return dict(table)


def _made(kind: type[T], values: Mapping[str, Any], place: str) -> T:
    """The dataclass of a table whose keys are its fields."""
    kinds = get_type_hints(kind)
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"{place}.{name}: unknown")
        wanted = kinds[name]
        if wanted not in _KIND_NAMES:
            continue
        fits = isinstance(value, (int, float) if wanted is float else wanted)
        if not fits or (isinstance(value, bool) and wanted is not bool):
            raise ValueError(f"{place}.{name}: expected {_KIND_NAMES[wanted]}")
    missing = [f.name for f in fields(kind) if f.name not in values and _is_required(f)]  # type: ignore[arg-type]
    if missing:
        raise ValueError(f"{place}.{missing[0]}: missing")
    return kind(**values)


def _is_required(one: Any) -> bool:
    from dataclasses import MISSING

    return one.default is MISSING and one.default_factory is MISSING


def _checked_title(value: object, place: str) -> str:
    """An AE title (PS3.5 6.2, AE): 1 to 16 characters of ASCII without backslash and control characters."""
    title = value.strip() if isinstance(value, str) else ""
    if not 0 < len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError(f"{place}: expected an AE title of 1 to 16 characters")
    return title
