import contextlib
import ipaddress
import os
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless
from pynetdicom.pdu import A_ASSOCIATE_RQ

from inlay_dicom.dataset import read
from inlay_dicom.folder import FolderIndex
from inlay_dicom.mapping import FolderImages
from inlay_dicom.scp import CANNOT_UNDERSTAND, DOES_NOT_MATCH, OUT_OF_RESOURCES, SUCCESS, Peer, Use
from inlay_testkit.dicom import in_syntax, radiograph
from inlay_testkit.scp import LOOPBACK, Running, storage

# pynetdicom's requestor, which plays the peers here, leaves sockets to the garbage collector when it is hung up on.
# What broken peers make its own thread of an association raise ends that thread alone, which is what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

PIXELS = np.arange(4096, dtype=np.uint16).reshape(64, 64)
LARGE = np.zeros((1024, 1024), dtype=np.uint16)


@pytest.fixture
def scp(tmp_path: Path) -> Iterator[Running]:
    """A Storage SCP that anybody may send to."""
    with storage(tmp_path) as running:
        yield running


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def film(**tags: Any) -> Dataset:
    """A radiograph of 12 bits."""
    return radiograph(PIXELS, bits_stored=12, **tags)


# ── what is sent is there ────────────────────────────────────────────────────────────────────────────────────────────


def test_echo_is_answered(scp: Running) -> None:
    """C-ECHO gets success."""
    association = scp.associate()
    assert association.send_c_echo().Status == SUCCESS
    association.release()


def test_an_image_that_was_acknowledged_is_in_the_image_source(scp: Running, tmp_path: Path) -> None:
    """After success the watched folder has the study, with the bytes that were sent, whatever their syntax."""
    plain, packed = film(), in_syntax(film(ViewPosition="LL"), JPEG2000Lossless)
    assert scp.send(plain, packed) == [SUCCESS, SUCCESS]
    source = FolderImages(FolderIndex(tmp_path, settle_s=0.0), rescan_s=0.0)
    first, second = source.find("1.2.3", None)
    assert read(source.load(first)).PixelData == plain.PixelData
    assert read(source.load(second)).PixelData == packed.PixelData
    assert read(source.load(second)).file_meta.TransferSyntaxUID == JPEG2000Lossless


def test_repeated_and_conflicting_images(scp: Running) -> None:
    """The same image again is success and one file; another one under its UID is success, kept aside, and told."""
    image = film(SOPInstanceUID="1.2.9")
    other = film(SOPInstanceUID="1.2.9", ViewPosition="AP")
    assert scp.send(image, image, other) == [SUCCESS] * 3
    assert [code for event, code in scp.heard if event == "object"] == ["stored", "repeated", "conflicting"]
    assert len(scp.files) == 2


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_store_is_told(tmp_path: Path) -> None:
    """Beyond the quota: A700, out of resources, and nothing is kept."""
    with storage(tmp_path, quota_bytes=9000) as scp:
        assert scp.send(film(), film()) == [SUCCESS, OUT_OF_RESOURCES]
        assert len(scp.files) == 1


def test_objects_that_cannot_be_kept_are_told_why(scp: Running) -> None:
    """No study: C000. Another object than the command names: A900. Neither is kept."""
    lying = film(SOPInstanceUID="1.2.9")
    association = scp.associate(lying)
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = lying.SOPClassUID, "1.2.10"
    plain = Dataset()
    plain.update(lying)
    request.DataSet = BytesIO(encode(plain, is_implicit_vr=False, is_little_endian=True) or b"")
    (context,) = [one for one in association.accepted_contexts if one.abstract_syntax == lying.SOPClassUID]
    association._reactor_checkpoint.clear()  # As pynetdicom's own send_c_store: its thread must not take the answer.
    until(lambda: association._is_paused)
    association.dimse.send_msg(request, context.context_id)
    _, answer = association.dimse.get_msg(block=True)
    assert answer.Status == DOES_NOT_MATCH
    association._reactor_checkpoint.set()
    association.release()
    assert scp.send(film(StudyInstanceUID=None)) == [CANNOT_UNDERSTAND]
    assert scp.files == []


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [("XRAY1", "OTHER", 7), ("STRANGER", "INLAY", 3), ("FARAWAY", "INLAY", 3)],
)
def test_only_named_peers_may_send(tmp_path: Path, calling: str, called: str, reason: int) -> None:
    """A wrong called title, an unknown calling one, and a known one from elsewhere are rejected with the reason."""
    elsewhere = (ipaddress.ip_network("198.51.100.0/24"),)
    with storage(tmp_path, peers=(Peer("XRAY1", LOOPBACK), Peer("FARAWAY", elsewhere))) as scp:
        refused = scp.associate(calling=calling, called=called)
        assert refused.is_rejected
        assert refused.acceptor.primitive.diagnostic == reason
        assert scp.send(film()) == [SUCCESS]


def test_other_networks_are_not_spoken_to(tmp_path: Path) -> None:
    """Where every peer has its networks, a connection from elsewhere is closed before anything is read."""
    with (
        storage(tmp_path, peers=(Peer("XRAY1", (ipaddress.ip_network("198.51.100.0/24"),)),)) as scp,
        socket.create_connection(("127.0.0.1", scp.port), timeout=5) as connection,
    ):
        assert connection.recv(1) == b""


def test_associations_are_counted(tmp_path: Path) -> None:
    """One above the most is rejected for the time being; when one has ended the next is taken."""
    with storage(tmp_path, use=Use(associations=1)) as scp:
        first = scp.associate()
        assert scp.associate().is_rejected
        first.release()
        until(lambda: scp.associate().is_established)


# ── what breaks off, stalls, or is no DICOM ──────────────────────────────────────────────────────────────────────────


def test_an_association_that_breaks_off_leaves_no_half_file(scp: Running) -> None:
    """Whole objects before the break are kept; of the one that was under way nothing is, not even unfinished."""
    assert scp.send(film()) == [SUCCESS]
    association = scp.associate(radiograph(LARGE))
    transport, sent = association.dul.socket, 0
    send = transport.send

    def send_some(data: bytes) -> None:
        nonlocal sent
        sent += len(data)
        send(data)
        if sent > 400_000:
            transport.socket.shutdown(socket.SHUT_RDWR)

    transport.send = send_some
    association.send_c_store(radiograph(LARGE))
    assert 400_000 < sent < LARGE.nbytes
    assert len(scp.files) == 1
    assert scp.send(film()) == [SUCCESS]


def test_an_object_above_the_limit_ends_the_association(tmp_path: Path) -> None:
    """What one object may take is bounded while it arrives, not when it has filled the memory."""
    with storage(tmp_path, use=Use(object_bytes=200_000)) as scp:
        association = scp.associate(radiograph(LARGE))
        association.send_c_store(radiograph(LARGE))
        until(lambda: not association.is_established)
        assert scp.files == []
        # The bound is that of one object: many small ones on one association may be more together.
        assert scp.send(*(film() for _ in range(40))) == [SUCCESS] * 40


@pytest.mark.parametrize("announced", [0xFFFFFFFF, 1 << 24])
def test_a_pdu_that_announces_gigabytes_is_hung_up_on(scp: Running, announced: int) -> None:
    """The length in a PDU's header is not believed: no memory is reserved and no waiting is done for it."""
    with socket.create_connection(("127.0.0.1", scp.port), timeout=5) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, announced) + b"x" * 100)
        # One that waited would let the connection's own time run out.
        while connection.recv(4096):
            pass


def test_a_pdu_that_stalls_is_given_up(tmp_path: Path) -> None:
    """A peer that sends a byte now and then does not hold its connection for ever."""
    with (
        storage(tmp_path, use=Use(stall_s=0.3)) as scp,
        socket.create_connection(("127.0.0.1", scp.port), timeout=5) as connection,
    ):
        connection.sendall(struct.pack(">BBL", 1, 0, 200))
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - the drip is one thing with its end
            # Fewer bytes than the PDU announced.
            for _ in range(150):
                connection.sendall(b"x")
                time.sleep(0.05)
        assert scp.associate().is_established


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.binary(max_size=300), max_size=4), st.booleans())
def test_garbage_ends_its_own_connection_only(scp: Running, pieces: list[bytes], as_pdu: bool) -> None:
    """Whatever bytes a stranger sends, the next peer is served."""
    with socket.create_connection(("127.0.0.1", scp.port), timeout=5) as connection:
        try:
            for number, piece in enumerate(pieces):
                head = struct.pack(">BBL", number % 8, 0, len(piece)) if as_pdu else b""
                connection.sendall(head + piece)
        except OSError:
            pass
    assert scp.send(film(SOPInstanceUID="1.2.9")) == [SUCCESS]


def test_broken_connections_use_up_no_associations(tmp_path: Path) -> None:
    """Peers that spoke nonsense, gone or still connected, do not count: whoever speaks DICOM is served at once."""
    with storage(tmp_path, use=Use(associations=2)) as scp, contextlib.ExitStack() as open_ones:
        for number in range(6):
            connection = socket.create_connection(("127.0.0.1", scp.port), timeout=5)
            connection.sendall(struct.pack(">BBLL", 5, 0, 4, 0))  # A release of nothing.
            assert connection.recv(100)
            if number % 2:
                connection.close()
            else:
                open_ones.callback(connection.close)
        assert scp.send(film()) == [SUCCESS]


@pytest.fixture(scope="module")
def conversation() -> tuple[bytes, bytes]:
    """What a peer sends to store an image: the request of its association, and all that follows its acceptance."""
    following = bytearray()
    with tempfile.TemporaryDirectory() as folder, storage(Path(folder)) as scp:
        association = scp.associate(film())
        transport = association.dul.socket
        send = transport.send
        transport.send = lambda data: (following.extend(data), send(data))[1]
        assert association.send_c_store(film(SOPInstanceUID="1.2.9")).Status == SUCCESS
        request = A_ASSOCIATE_RQ()
        request.from_primitive(association.requestor.primitive)
        return request.encode(), bytes(following)


def converse(scp: Running, request: bytes, following: bytes, patience: float) -> None:
    """Send the request, wait for whatever is answered, and send the rest."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", scp.port), timeout=patience) as connection,
    ):
        connection.sendall(request)
        connection.recv(4096)
        connection.sendall(following)
        connection.recv(4096)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
def test_a_conversation_with_flipped_bytes_harms_nobody(
    scp: Running, conversation: tuple[bytes, bytes], data: st.DataObject
) -> None:
    """Bytes changed anywhere in a real conversation end in an answer or a closed connection; the next is served."""
    broken = [bytearray(part) for part in conversation]
    for part in broken:
        for at in data.draw(st.lists(st.integers(0, min(len(part), 1000) - 1), max_size=3)):
            part[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(broken[1])))
    converse(scp, bytes(broken[0]), bytes(broken[1][:cut]), patience=0.2)
    association = scp.associate()
    assert association.send_c_echo().Status == SUCCESS
    association.release()


def test_the_conversation_is_real(scp: Running, conversation: tuple[bytes, bytes]) -> None:
    """Sent as it is, it stores its image: what the fuzzer breaks works when it is whole."""
    converse(scp, *conversation, patience=60)
    assert len(scp.files) == 1


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Certificates:
    """A hospital's authority with a server and a peer, and a stranger with one of another."""

    def __init__(self) -> None:
        self.authority, self.other = trustme.CA(), trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("localhost", "127.0.0.1").configure_cert(self.server)
        self.server.verify_mode = ssl.CERT_REQUIRED
        self.authority.configure_trust(self.server)

    def client(self, of: trustme.CA | None) -> ssl.SSLContext:
        """A client that trusts the hospital, with a certificate of an authority, or none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        self.authority.configure_trust(context)
        if of is not None:
            of.issue_cert("xray1.hospital").configure_cert(context)
        return context


def test_tls_asks_peers_for_their_certificate(tmp_path: Path) -> None:
    """A peer with a certificate of ours is served; one with another's, with none, or without TLS is not."""
    certificates = Certificates()
    with storage(tmp_path, tls=certificates.server, use=Use(stall_s=2)) as scp:
        good = certificates.client(certificates.authority)
        assert scp.send(film(), tls_args=(good, None)) == [SUCCESS]
        for bad in (certificates.client(certificates.other), certificates.client(None)):
            assert not scp.associate(tls_args=(bad, None)).is_established
        assert not scp.associate().is_established
        assert len(scp.files) == 1


def test_a_silent_tls_peer_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A connection that never shakes hands does not stop others from being accepted."""
    certificates = Certificates()
    with (
        storage(tmp_path, tls=certificates.server) as scp,
        socket.create_connection(("127.0.0.1", scp.port), timeout=5) as silent,
    ):
        time.sleep(0.2)
        assert scp.send(film(), tls_args=(certificates.client(certificates.authority), None)) == [SUCCESS]
        # It was not given up before the other one was served.
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.recv(1)


def test_an_unwritable_store_is_out_of_resources(tmp_path: Path) -> None:
    """A folder that cannot be written to is told as A700, which peers send again."""
    (tmp_path / "received").write_bytes(b"a file where the folder should be")
    assert os.path.isfile(tmp_path / "received")  # noqa: PTH113
    with storage(tmp_path) as scp:
        assert scp.send(film()) == [OUT_OF_RESOURCES]
