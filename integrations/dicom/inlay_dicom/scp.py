"""Verification and Storage SCP: who may send, how much a peer may use, and what each object is answered with.

An object is answered with success only when it is on disk. What breaks off leaves nothing behind: an object reaches the
store as a whole or not at all. Reference: PS3.4 A and B, PS3.7 9.1, PS3.8 9.3.
"""

import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from inlay_dicom.dataset import DEFAULT_LIMITS
from inlay_dicom.errors import InvalidDicom
from inlay_dicom.pixels import SUPPORTED_TRANSFER_SYNTAXES
from inlay_dicom.store import ReceivedStore, StoreFull

# What pynetdicom logs quotes values of datasets and tracebacks of broken peers; our own events say what happened.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
_config.LOG_HANDLER_LEVEL = "none"

SUCCESS: Final = 0x0000
# PS3.4 B.2.3: failures of C-STORE; the peer may send again later for the first, needs another object for the others.
OUT_OF_RESOURCES: Final = 0xA700
DOES_NOT_MATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
# PS3.8 9.3.4: result, source and reason of a rejection.
_CALLING_UNKNOWN: Final = (1, 1, 3)
_CALLED_UNKNOWN: Final = (1, 1, 7)
# A PDU of this size needs few round trips; larger ones would only be held in memory.
_MAX_PDU: Final = 1 << 18
_SHUTDOWN_S: Final = 5.0
_ASKING_S: Final = 10.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Observe = Callable[[str, str, str, int], None]
"""Is told what happens: event, address of the peer, a code, and a number of bytes (0 where there are none)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who may send: a calling AE title, and where from (no network: from anywhere)."""

    ae_title: str
    networks: tuple[Network, ...] = ()

    def fits(self, ae_title: str, address: str) -> bool:
        """Whether this is that peer."""
        return self.ae_title == ae_title and _is_within(address, self.networks)


@dataclass(frozen=True, slots=True)
class Use:
    """What peers may use: associations at a time, bytes of one object, and seconds that a begun PDU may take."""

    associations: int = 16
    object_bytes: int = DEFAULT_LIMITS.file_bytes
    stall_s: float = 30.0
    idle_s: float = 300.0


class StorageScp:
    """Listens for C-ECHO and C-STORE. No `peers` means anybody: whoever starts it allows that on loopback only.

    `tls` is a server context; with a CA that it verifies peers against, only peers with a certificate are served.
    """

    def __init__(
        self,
        store: ReceivedStore,
        *,
        ae_title: str,
        peers: Sequence[Peer] = (),
        tls: ssl.SSLContext | None = None,
        use: Use | None = None,
        observe: Observe = lambda _event, _peer, _code, _bytes: None,
    ) -> None:
        self._store = store
        self._ae_title = ae_title
        self._peers = tuple(peers)
        self._tls = tls
        self._use = use or Use()
        self._observe = observe
        self._server: _Server | None = None

    def start(self, host: str, port: int) -> int:
        """Listen; return the port. Raises OSError for one that is taken."""
        ae = AE(ae_title=self._ae_title)
        ae.maximum_associations = self._use.associations
        ae.maximum_pdu_size = _MAX_PDU
        # A connection that asks for nothing counts as an association until this is over.
        ae.acse_timeout = min(self._use.stall_s, _ASKING_S)
        ae.dimse_timeout = self._use.stall_s
        ae.network_timeout = self._use.idle_s
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax), sorted(SUPPORTED_TRANSFER_SYNTAXES))
        handlers = [
            (evt.EVT_CONN_OPEN, self._measure),
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_DIMSE_RECV, _measure_anew),
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_C_STORE, self._take),
            (evt.EVT_ABORTED, self._aborted),
        ]
        make = partial(_Server, networks=self._networks(), connections=2 * self._use.associations, tls=self._tls)
        make_server: Any = ae.make_server
        server: _Server = make_server((host, port), evt_handlers=handlers, server_class=make)
        self._server = server
        ae._servers.append(server)  # noqa: SLF001 - the server takes itself off this list when it is shut down.
        threading.Thread(target=server.serve_forever, args=(0.1,), name="dicom", daemon=True).start()
        return int(server.server_address[1])

    def stop(self) -> None:
        """End: no new associations, and those that are open are aborted; what they had not finished is not kept."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        for association in server.active_associations:
            if association.is_established:
                association.abort()
            else:
                association.kill()
                association.dul.to_user_queue.put(None)
            association.join(_SHUTDOWN_S)

    def _networks(self) -> tuple[Network, ...]:
        """Where connections may come from at all; empty where that is anywhere."""
        if not self._peers or any(not peer.networks for peer in self._peers):
            return ()
        return tuple(network for peer in self._peers for network in peer.networks)

    # ── what happens on an association ───────────────────────────────────────────────────────────────────────────────

    def _measure(self, event: Any) -> None:
        """Have the connection read within limits: pynetdicom would take a PDU of four gigabytes, or for ever."""
        event.assoc.inlay_meter = meter = _Meter(event.assoc, self._use)
        event.assoc.dul.socket.recv = meter.read

    def _admit(self, event: Any) -> None:
        requested = event.assoc.requestor
        calling, called = requested.primitive.calling_ae_title.strip(), requested.primitive.called_ae_title.strip()
        if called != self._ae_title:
            self._reject(event, _CALLED_UNKNOWN, "called-ae-unknown")
        elif self._peers and not any(peer.fits(calling, requested.address) for peer in self._peers):
            self._reject(event, _CALLING_UNKNOWN, "calling-ae-unknown")

    def _reject(self, event: Any, reason: tuple[int, int, int], code: str) -> None:
        event.assoc.acse.send_reject(*reason)
        event.assoc.kill()
        self._observe("association-rejected", event.assoc.requestor.address, code, 0)

    def _echo(self, event: Any) -> int:
        self._observe("echo", event.assoc.requestor.address, "success", 0)
        return SUCCESS

    def _take(self, event: Any) -> int:
        """Answer a C-STORE request; the store has the object before this returns success."""
        data = event.encoded_dataset()
        named = str(event.request.AffectedSOPClassUID), str(event.request.AffectedSOPInstanceUID)
        status, code = self._stored(data, named)
        self._observe("object", event.assoc.requestor.address, code, len(data))
        return status

    def _stored(self, data: bytes, named: tuple[str, str]) -> tuple[int, str]:
        try:
            kept, _ = self._store.put(data, named)
        except InvalidDicom as problem:
            return (DOES_NOT_MATCH if problem.code == "mismatch" else CANNOT_UNDERSTAND), problem.code
        except StoreFull:
            return OUT_OF_RESOURCES, "store-full"
        except OSError:
            return OUT_OF_RESOURCES, "store-unusable"
        return SUCCESS, str(kept)

    def _aborted(self, event: Any) -> None:
        self._observe("association-aborted", event.assoc.requestor.address or "", "aborted", 0)


class _Meter:
    """Reads a connection within limits: of one PDU, of one message, and of the time that a begun PDU may take."""

    def __init__(self, association: Any, use: Use) -> None:
        self._association = association
        self._use = use
        self.message_bytes = 0

    def read(self, count: int) -> bytearray:
        """`count` bytes, fewer where the connection ended. Raises OSError, by which pynetdicom closes it."""
        received = bytearray()
        try:
            received = self._read(count)
        finally:
            if len(received) < count and self._association.requestor.primitive is None:
                # It ended before it asked for an association, for which pynetdicom would wait on, and count it.
                self._association.dul.to_user_queue.put(None)
        return received

    def _read(self, count: int) -> bytearray:
        self.message_bytes += count
        # The header of a PDU may announce anything; association requests are far below the limit of data, too.
        if count > _MAX_PDU + 1024 or self.message_bytes > self._use.object_bytes + _MAX_PDU:
            raise OSError("more than a peer may send")
        connection: socket.socket = self._association.dul.socket.socket
        usual, ends = connection.gettimeout(), time.monotonic() + self._use.stall_s
        received = bytearray()
        try:
            while len(received) < count:
                connection.settimeout(max(ends - time.monotonic(), 0.001))
                piece = connection.recv(min(count - len(received), 1 << 16))
                if not piece:
                    break
                received += piece
        finally:
            connection.settimeout(usual)
        return received


def _measure_anew(event: Any) -> None:
    event.assoc.inlay_meter.message_bytes = 0


class _Server(ThreadedAssociationServer):
    """Accepts connections: from known networks only, so many at a time, and with the TLS handshake in their own thread.

    pynetdicom's own shakes hands where it accepts, so that one silent peer would keep all others out.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, *arguments: Any, networks: Sequence[Network], connections: int, tls: ssl.SSLContext | None, **named: Any
    ) -> None:
        self._networks = networks
        self._tls = tls
        self._free = threading.BoundedSemaphore(connections)
        super().__init__(*arguments, **named)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver passes both
        """Whether to talk to that address at all."""
        for association in self.active_associations:
            if _is_over(association):
                _end(association)
        # One above the most is told so by a rejection; what floods us is not even listened to.
        free = len(self.active_associations) < 2 * self.ae.maximum_associations
        return free and _is_within(client_address[0], self._networks)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands where TLS is spoken, then begin the association."""
        if self._tls is None:
            super().process_request_thread(request, client_address)
            return
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            request.settimeout(self.ae.acse_timeout)
            secured = self._tls.wrap_socket(request, server_side=True)
            secured.settimeout(self.ae.network_timeout)
        except OSError:
            self.shutdown_request(request)
            return
        finally:
            self._free.release()
        super().process_request_thread(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that fails concerns nobody else; the default prints its traceback."""


def _is_over(association: Any) -> bool:
    """Whether nothing more can come: its reader has died, its connection is closed, or is only waited for to close.

    pynetdicom counts such associations until their time-out, so that a few broken peers would use up all there are.
    """
    reader = association.dul
    died = association._started_dul and not reader.is_alive()  # noqa: SLF001 - no other way to tell it from a new one
    closed = reader.socket is None or reader.socket.socket is None
    return died or closed or reader.state_machine.current_state == "Sta13"


def _end(association: Any) -> None:
    """Let its threads end. `Association.kill` would wait for the reader, in the thread that accepts connections."""
    association.dul.kill_dul()
    association._kill = True  # noqa: SLF001 - what `kill` sets
    association._reactor_checkpoint.set()  # noqa: SLF001 - as `kill` does
    association.is_established = False
    association.dul.to_user_queue.put(None)


def _is_within(address: str, networks: Sequence[Network]) -> bool:
    if not networks:
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return any((mapped or ip) in network for network in networks)
