"""Storage SCPs for tests: ours on a free port with a folder, and what it was heard to say."""

import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from inlay_dicom.scp import Peer, StorageScp, Use
from inlay_dicom.store import ReceivedStore

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@dataclass(slots=True)
class Running:
    """A Storage SCP that listens; `heard` are its events as (event, code)."""

    port: int
    store: ReceivedStore
    heard: list[tuple[str, str]] = field(default_factory=list)
    opened: list[Any] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        """All that it keeps, unfinished files included."""
        return sorted(path for path in self.store.root.rglob("*") if path.is_file())

    def associate(self, *datasets: Dataset, calling: str = "XRAY1", called: str = "INLAY", **options: Any) -> Any:
        """An association that proposes Verification and the classes and syntaxes of `datasets`."""
        ae = AE(ae_title=calling)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = 30
        ae.add_requested_context(Verification)
        for dataset in datasets:
            ae.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", self.port, ae_title=called, **options)
        self.opened.append(association)
        return association

    def hang_up(self) -> None:
        """End what tests left open."""
        for association in self.opened:
            if association.is_established:
                association.abort()
            if association.dul.socket is not None:
                association.dul.socket.close()

    def send(self, *datasets: Dataset, **options: Any) -> list[int]:
        """C-STORE each; their statuses."""
        association = self.associate(*datasets, **options)
        assert association.is_established
        try:
            return [int(association.send_c_store(dataset).Status) for dataset in datasets]
        finally:
            association.release()


@contextmanager
def storage(
    folder: Path,
    *,
    peers: tuple[Peer, ...] = (),
    quota_bytes: int = 1 << 26,
    tls: ssl.SSLContext | None = None,
    use: Use | None = None,
    ae_title: str = "INLAY",
) -> Iterator[Running]:
    """Our Storage SCP on loopback; it has ended at the end of the block."""
    running = Running(0, ReceivedStore(folder, quota_bytes=quota_bytes))
    scp = StorageScp(
        running.store,
        ae_title=ae_title,
        peers=peers,
        tls=tls,
        use=use,
        observe=lambda event, _peer, code, _size: running.heard.append((event, code)),
    )
    running.port = scp.start("127.0.0.1", 0)
    try:
        yield running
    finally:
        running.hang_up()
        scp.stop()
