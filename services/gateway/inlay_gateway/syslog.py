"""The audit trail to a syslog receiver: RFC 5424 over TLS (RFC 5425) or TCP (RFC 6587), as IHE ITI-20 asks.

A message names Inlay's own ids and who acted, and no patient: docs/decisions/0171 says why, and when a batch is done.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from types import MappingProxyType
from typing import Final
from xml.sax.saxutils import quoteattr

from inlay_core.application.exporting import batch_refused, batch_taken, claim_batch
from inlay_core.domain.audit import AuditEvent, Kind, Outcome
from inlay_core.domain.errors import Invalid, Unavailable
from inlay_core.domain.identity import ActorKind
from inlay_core.settings import Settings
from inlay_fhir.mapping.audit_event import interaction_of, outcome_of
from inlay_gateway.delivery import Books

# ITI-20: facility 10 (security and authorization); severity 5 (notice), 4 (warning) for what was refused.
_FACILITY: Final = 10
_NOTICE, _WARNING = 5, 4
# RFC 5424, 7.3.1: the largest sequenceId, after which it begins again with 1.
_LAST_SEQUENCE: Final = 2_147_483_647
# Some 300 KB: more than a second of a busy hospital, less than a receiver minds.
_BATCH: Final = 200
_TIMEOUT_SECONDS: Final = 20.0
# Longer than connecting, sending and waiting for the end of the connection may take together.
_LEASE_SECONDS: Final = 4 * _TIMEOUT_SECONDS

# DICOM PS3.16, CID 400. What is not here is an activity of the application.
_ACTIVITY: Final = ("110100", "Application Activity")
_EVENTS: Final[Mapping[Kind, tuple[str, str]]] = MappingProxyType(
    {
        Kind.REPORT: ("110110", "Patient Record"),
        Kind.PRIOR: ("110110", "Patient Record"),
        Kind.PATIENT: ("110110", "Patient Record"),
        Kind.ORDER: ("110109", "Order Record"),
        Kind.MESSAGE: ("110107", "Import"),
        Kind.AUDIT: ("110101", "Audit Log Used"),
        Kind.CLIENT: ("110114", "User Authentication"),
        Kind.SESSION: ("110114", "User Authentication"),
        Kind.ACCESS: ("110113", "Security Alert"),
    }
)
_VERBS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"searched": ("110112", "Query"), "sent": ("110106", "Export")}
)


def frame(message: bytes) -> bytes:
    """Octet counting: RFC 5425 4.3.1, RFC 6587 3.4.1."""
    return b"%d %s" % (len(message), message)


def syslog_message(position: int, event: AuditEvent, host: str, site: str) -> bytes:
    """One event as RFC 5424 message, ASCII throughout; its place in the chain is the sequenceId."""
    severity = _WARNING if event.outcome is Outcome.REFUSED else _NOTICE
    moment = event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    sequence = (position - 1) % _LAST_SEQUENCE + 1
    name = "".join(character for character in host if "!" <= character <= "~")[:255] or "-"
    data = f'[meta sequenceId="{sequence}"]'
    header = f"<{_FACILITY * 8 + severity}>1 {moment} {name} inlay - DICOM+RFC3881 {data} "
    return header.encode("ascii") + audit_message(position, event, site)


def audit_message(position: int, event: AuditEvent, site: str) -> bytes:
    """The event as DICOM audit message (PS3.15, A.5)."""
    event_id = _VERBS.get(event.tag.rpartition(":")[2]) or _EVENTS.get(event.subject_kind, _ACTIVITY)
    person = event.actor_kind is ActorKind.PERSON
    roles = event.roles or (() if person else ("Application",))
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><AuditMessage>'
        + _element(
            "EventIdentification",
            {
                "EventActionCode": interaction_of(event)[1],
                "EventDateTime": event.at.astimezone(UTC).isoformat(timespec="microseconds"),
                "EventOutcomeIndicator": outcome_of(event),
            },
            _code("EventID", event_id[0], "DCM", event_id[1]) + _code("EventTypeCode", event.tag, "Inlay", event.tag),
        )
        + _element(
            "ActiveParticipant",
            {"UserID": event.actor_id, "UserName": event.actor_name, "UserIsRequestor": "true"},
            "".join(_code("RoleIDCode", str(role), "Inlay", str(role)) for role in roles),
        )
        # PS3.15 A.5.1: 4 is an application server process tier.
        + _element("AuditSourceIdentification", {"AuditSourceID": site}, '<AuditSourceTypeCode csd-code="4"/>')
        + "".join(_objects(position, event))
        + "</AuditMessage>"
    )
    return text.encode("ascii", "xmlcharrefreplace")


def _objects(position: int, event: AuditEvent) -> Iterable[str]:
    """The record that the event is about, with what is known of it, and the report that it belongs to."""
    details = {"event": event.id, "position": str(position), "version": event.version, "request": event.request_id}
    details |= {f"detail.{key}": value for key, value in sorted(event.detail.items())}
    stated = "".join(
        _element("ParticipantObjectDetail", {"type": key, "value": base64.b64encode(str(value).encode()).decode()})
        for key, value in details.items()
        if value is not None
    )
    yield _object(event.subject_id, str(event.subject_kind), stated)
    if event.report_id and event.report_id != event.subject_id:
        yield _object(event.report_id, str(Kind.REPORT), "")


def _object(record_id: str, kind: str, details: str) -> str:
    # System object, resource: a patient's record of ours is one too, since its id names nobody to anybody else.
    attributes = {
        "ParticipantObjectID": record_id,
        "ParticipantObjectTypeCode": "2",
        "ParticipantObjectTypeCodeRole": "4",
    }
    named = _code("ParticipantObjectIDTypeCode", kind, "Inlay", kind)
    return _element("ParticipantObjectIdentification", attributes, named + details)


def _code(name: str, code: str, system: str, text: str) -> str:
    return _element(name, {"csd-code": code, "codeSystemName": system, "originalText": text})


def _element(name: str, attributes: Mapping[str, str], content: str = "") -> str:
    written = "".join(f" {key}={quoteattr(_clean(value))}" for key, value in attributes.items())
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def _clean(text: str) -> str:
    """Without what XML 1.0 cannot hold; a name of a token may contain anything."""
    return "".join(character if character.isprintable() else "?" for character in text)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where the trail goes, and as whom we send it."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    own_host: str
    site: str
    timeout_seconds: float = _TIMEOUT_SECONDS

    @property
    def name(self) -> str:
        """Its cursor: another receiver begins at the beginning."""
        return f"syslog {self.host}:{self.port}"[:64]


def receiver_of(settings: Settings) -> Receiver | None:
    """The receiver of these settings. Raises Invalid."""
    if settings.syslog_address is None:
        return None
    transport, host, port = settings.syslog_address
    tls = _context(settings) if transport == "tls" else None
    return Receiver(host, port, tls, socket.gethostname(), settings.facility)


def _context(settings: Settings) -> ssl.SSLContext:
    for path, setting in (
        (settings.syslog_tls_ca, "INLAY_SYSLOG_TLS_CA"),
        (settings.syslog_tls_certificate, "INLAY_SYSLOG_TLS_CERTIFICATE"),
    ):
        if path and not Path(path).is_file():
            raise Invalid("bad-setting", "No such file.", setting)
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.syslog_tls_ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.syslog_tls_certificate:
            context.load_cert_chain(settings.syslog_tls_certificate)
    except (ssl.SSLError, OSError):
        raise Invalid("bad-setting", "A file for TLS cannot be read.", "INLAY_SYSLOG_TLS_CA") from None
    return context


def send(receiver: Receiver, messages: Sequence[bytes]) -> None:
    """Send all, and wait until the receiver has read to the end. Raises Unavailable when that is not certain."""
    try:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(
                socket.create_connection((receiver.host, receiver.port), timeout=receiver.timeout_seconds)
            )
            if receiver.tls is not None:
                connection = stack.enter_context(receiver.tls.wrap_socket(connection, server_hostname=receiver.host))
            connection.sendall(b"".join(map(frame, messages)))
            _read_to_its_end(connection)
    except OSError as error:
        raise Unavailable("syslog-away", f"The syslog receiver does not take it ({type(error).__name__}).") from None


def _read_to_its_end(connection: socket.socket) -> None:
    """Close our side; the receiver closes its own after it has read everything before, and resets where it has not."""
    if isinstance(connection, ssl.SSLSocket):
        try:
            # Our close_notify, then the receiver's.
            connection = connection.unwrap()
        except ssl.SSLEOFError:
            # It closed the connection in good order, but without its own close_notify: many do.
            return
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(4096):
        pass


def export(books: Books, receiver: Receiver) -> int:
    """Send the next batch; returns how many events it had. Raises Unavailable; they are due again then."""
    batch = claim_batch(books.new_uow(), books.clock, receiver.name, limit=_BATCH, lease_seconds=_LEASE_SECONDS)
    if batch is None:
        return 0
    try:
        send(receiver, [syslog_message(at, event, receiver.own_host, receiver.site) for at, event in batch.events])
    except Unavailable:
        batch_refused(books.new_uow(), batch)
        raise
    batch_taken(books.new_uow(), batch)
    return len(batch.events)
