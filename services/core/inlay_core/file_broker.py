"""Celery's file transport, made safe: a reader sees whole messages only, and a broken one is dropped.

kombu's own writes messages in place (a reader may take half of one), moves them through the system's temporary folder,
and ends its consumer on a message that it cannot read. A dropped wake-up costs a delay: the sweeper repeats it.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from queue import Empty
from time import monotonic_ns
from typing import Any

from kombu.transport import filesystem, virtual
from kombu.utils.json import dumps, loads


class Channel(filesystem.Channel):
    """Messages as files `<time>_<uuid>.<queue>.msg`; names that begin with a dot belong to one process alone.

    Each process declares the queue that it uses, so that which exchange leads to it needs no file of its own (kombu's
    is read while it is being written); broadcasts between processes are what this costs.
    """

    supports_fanout = False

    def get_table(self, exchange: str) -> Any:
        """Bindings of the exchange, as this connection declared them."""
        return self.state.exchanges[exchange]["table"]

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]  # kombu uses two names
        """Write under a hidden name, then rename: the message is there at once and whole."""
        name = f"{monotonic_ns()}_{uuid.uuid4()}.{queue}.msg"
        hidden = Path(self.data_folder_out, f".{name}")
        hidden.write_bytes(dumps(payload).encode())  # type: ignore[no-untyped-call]
        hidden.rename(Path(self.data_folder_out, name))

    def _get(self, queue: str, timeout: Any = None) -> Any:  # noqa: ARG002 - kombu's signature
        """The oldest message of the queue; whoever renames it first has it."""
        for name in sorted(os.listdir(self.data_folder_in)):  # noqa: PTH208 - names are enough
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            taken = Path(self.data_folder_in, f".{name}.taken")
            try:
                Path(self.data_folder_in, name).rename(taken)
                data = taken.read_bytes()
                taken.unlink()
            except OSError:
                continue  # Another worker was faster.
            try:
                return loads(data.decode())  # type: ignore[no-untyped-call]
            except ValueError:
                continue  # Written by something that was killed, or by nobody we know.
        raise Empty


class Transport(filesystem.Transport):
    """The transport for Celery's setting `broker_transport`."""

    Channel = Channel

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)  # type: ignore[no-untyped-call]
        # kombu keeps one state per process, in which a second folder's queues would count as declared.
        self.state = virtual.BrokerState()  # type: ignore[no-untyped-call]
