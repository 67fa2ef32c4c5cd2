"""A small syslog receiver of its own: octet counting over TCP or TLS; it can crash with bytes unread."""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socket import SO_LINGER, SOL_SOCKET


class SyslogReceiver:
    """What came, message by message. While `crashes` is above 0, a connection is reset after its first message."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.crashes = 0
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read frames (RFC 6587, 3.4.1) until the sender closes; then close as well."""
        try:
            while size := await self._size(reader):
                self.messages.append(await reader.readexactly(size))
                if self.crashes:
                    self.crashes -= 1
                    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                    return
        finally:
            writer.close()

    @staticmethod
    async def _size(reader: asyncio.StreamReader) -> int:
        digits = b""
        while (byte := await reader.read(1)).isdigit():
            digits += byte
        assert byte in (b" ", b""), "a frame begins with its length and a blank"
        return int(digits or b"0")


@contextmanager
def syslog_receiver(tls: ssl.SSLContext | None = None) -> Iterator[SyslogReceiver]:
    """A receiver on a free loopback port, in a thread of its own."""
    receiver = SyslogReceiver()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(receiver.handle, "127.0.0.1", 0, ssl=tls))
    receiver.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
