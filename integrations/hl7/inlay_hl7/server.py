"""An MLLP server on asyncio: connections, limits and time; what a message means is the handler's business.

A connection is read again only after the answer to its last message was written, so a slow database slows the senders
down instead of filling the memory. An answer goes out in one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from inlay_hl7.framing import MAX_NOISE, MAX_PAYLOAD, Abandoned, Event, Frame, FrameDecoder, Notice, Refused, encode_all

Handler = Callable[[bytes, str], Awaitable[bytes]]
"""Takes a payload and the peer's address; gives the answer's payload, empty for none. Raising cuts the peer off.

Several answers to one message have `framing.BETWEEN` between them.
"""

Observe = Callable[[str, str, str], None]
"""Is told of (event, address of the peer, detail) for logs and metrics. Never a byte of a message is among them."""

_READ = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may use. Times are in seconds."""

    max_payload: int = MAX_PAYLOAD
    max_noise: int = MAX_NOISE
    connections: int = 100
    stall: float = 30.0
    # A client that leaves out the CR after FS waits for its answer at that moment, so it is not kept waiting long.
    missing_cr: float = 0.25
    # A peer that takes no answer for so long is gone.
    write: float = 30.0
    # Connections that the kernel holds before they are accepted.
    backlog: int = 128


@dataclass(eq=False, slots=True)
class _Connection:
    """One peer. `task` is its reader; `busy` while the handler or the write of an answer runs."""

    address: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    decoder: FrameDecoder
    task: asyncio.Task[None] | None = None
    busy: bool = False
    last: bool = field(default=False)  # close after the answer in progress


class MllpServer:
    """Listens from `start` until `stop`."""

    def __init__(self, handler: Handler, *, limits: Limits | None = None, observe: Observe | None = None) -> None:
        self._handler = handler
        self._limits = limits or Limits()
        self._observe = observe or _unwatched
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._stopping = False

    @property
    def port(self) -> int:
        """The port that is listened on, also when 0 was asked for."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many peers are connected."""
        return len(self._connections)

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Bind and listen. Raises OSError where the address cannot be bound."""
        # A peer that begins a handshake and goes silent is not kept longer than one that begins a frame.
        patience = self._limits.stall if tls else None
        self._server = await asyncio.start_server(
            self._accept, host, port, ssl=tls, backlog=self._limits.backlog, ssl_handshake_timeout=patience
        )

    async def stop(self, grace: float = 10.0) -> None:
        """Stop listening, let begun answers finish for `grace` seconds, close everything."""
        if self._server is not None:
            self._server.close()
        self._stopping = True
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        for connection in list(self._connections):
            connection.last = True
            if not connection.busy and connection.task is not None:
                connection.task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("unknown",))[0])
        if self._stopping or len(self._connections) >= self._limits.connections:
            self._observe("connection-refused", address, "too many connections")
            writer.close()
            return
        _keep_alive(writer)
        decoder = FrameDecoder(self._limits.max_payload, self._limits.max_noise)
        connection = _Connection(address, reader, writer, decoder, asyncio.current_task())
        self._connections.add(connection)
        self._observe("connected", address, "")
        try:
            await self._follow(connection)
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self._observe("connection-lost", address, type(error).__name__)
        except asyncio.CancelledError:
            # Only `stop` cancels; asyncio's own callback would report the cancellation as an error.
            self._observe("connection-closed", address, "shutdown")
        finally:
            self._connections.discard(connection)
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError, TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(writer.wait_closed(), 1.0)
            self._observe("disconnected", address, "")

    async def _follow(self, connection: _Connection) -> None:
        while not connection.last:
            data = await self._read(connection)
            events = connection.decoder.feed(data) if data else connection.decoder.end()
            for event in events:
                if not await self._take(event, connection):
                    return
            if data == b"":
                return

    async def _read(self, connection: _Connection) -> bytes | None:
        """The next bytes; empty at the end of the stream, None where a frame that lacks only its CR waits."""
        decoder = connection.decoder
        wait = self._limits.missing_cr if decoder.ended_but_for_cr else self._limits.stall if decoder.begun else None
        try:
            async with asyncio.timeout(wait):
                return await connection.reader.read(_READ)
        except TimeoutError:
            if decoder.ended_but_for_cr:
                return None
            self._observe("stalled", connection.address, f"{self._limits.stall} seconds")
            return b""

    async def _take(self, event: Event, connection: _Connection) -> bool:
        """Deal with one event; false when the connection is to be closed."""
        if isinstance(event, Refused):
            self._observe("refused", connection.address, event.reason)
            return False
        if isinstance(event, Abandoned):
            self._observe("abandoned", connection.address, f"{len(event.payload)} bytes")
            return True
        for notice in event.notices:
            self._observe("notice", connection.address, notice.value)
        if Notice.EMPTY_PAYLOAD in event.notices:
            return True
        return await self._answer(event, connection) and not connection.last

    async def _answer(self, frame: Frame, connection: _Connection) -> bool:
        connection.busy = True
        try:
            answer = await self._handler(frame.payload, connection.address)
        except Exception as error:  # noqa: BLE001 (a defect in the handler: no answer is better than a false one)
            self._observe("handler-failed", connection.address, type(error).__name__)
            return False
        if answer:
            connection.writer.write(encode_all(answer))
            async with asyncio.timeout(self._limits.write):
                await connection.writer.drain()
        connection.busy = False
        return True


def _unwatched(event: str, peer: str, detail: str) -> None:
    """Nobody watches."""


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Idle connections are normal and stay open; the kernel finds out which of them have lost their peer."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
