from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from inlay_core.domain.errors import Invalid
from inlay_core.settings import Settings
from inlay_core.targets import TlsFiles
from inlay_gateway.tls import client_context, listener_context
from inlay_hl7.ack import acknowledge
from inlay_hl7.client import MllpClient, NoAnswer
from inlay_hl7.header import read_header
from inlay_hl7.server import Limits, MllpServer
from inlay_testkit.core import MONDAY
from inlay_testkit.mllp import SECONDS, Wire, order_message, serving


@dataclass
class Papers:
    """Files of one authority: a server for localhost and a client, each certificate with its key in one file."""

    ca: Path
    server: Path
    client: Path
    stranger: Path
    """A client of another authority."""


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Fresh certificates."""
    folder = tmp_path_factory.mktemp("tls")
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = {
        "server": authority.issue_cert("localhost"),
        "client": authority.issue_cert("ris.example"),
        "stranger": other.issue_cert("ris.example"),
    }
    for name, certificate in issued.items():
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    return Papers(folder / "ca.pem", folder / "server.pem", folder / "client.pem", folder / "stranger.pem")


def listening(papers: Papers, *, clients: bool) -> Iterator[int]:
    """A listener with the server's certificate that answers AA."""

    async def handle(payload: bytes, _peer: str) -> bytes:
        return acknowledge(read_header(payload), "AA", now=MONDAY, control_id="X")

    settings = Settings(
        mllp_tls_certificate=str(papers.server),
        mllp_tls_key=str(papers.server),
        mllp_tls_clients=str(papers.ca) if clients else "",
    )
    with serving(MllpServer(handle), listener_context(settings)) as port:
        yield port


def send(port: int, context: ssl.SSLContext | None, server_name: str = "localhost") -> str:
    """The code of the answer to an order. Raises NoAnswer."""
    with MllpClient("127.0.0.1", port, timeout=SECONDS, tls=context, server_name=server_name) as client:
        return client.send(order_message("1")).code


def test_a_client_with_a_certificate_is_answered(papers: Papers) -> None:
    """Mutual authentication: both sides show a certificate that the other trusts, and the order is answered."""
    for port in listening(papers, clients=True):
        assert send(port, client_context(TlsFiles(papers.ca, papers.client, papers.client))) == "AA"


@pytest.mark.parametrize("who", ["nobody", "stranger", "plain"])
def test_a_client_without_a_trusted_certificate_is_not_heard(papers: Papers, who: str) -> None:
    """No certificate, one of another authority, or no TLS at all: nothing is answered."""
    contexts = {
        "nobody": client_context(TlsFiles(papers.ca)),
        "stranger": client_context(TlsFiles(papers.ca, papers.stranger, papers.stranger)),
        "plain": None,
    }
    for port in listening(papers, clients=True):
        with pytest.raises(NoAnswer):
            send(port, contexts[who])


def test_without_an_authority_for_clients_any_client_is_served(papers: Papers) -> None:
    """TLS without client certificates encrypts and authenticates the listener only."""
    for port in listening(papers, clients=False):
        assert send(port, client_context(TlsFiles(papers.ca))) == "AA"


def test_a_receiver_under_another_name_or_authority_gets_nothing(papers: Papers) -> None:
    """Results go only to the receiver whose name stands in a certificate of the trusted authority."""
    for port in listening(papers, clients=False):
        with pytest.raises(NoAnswer):
            send(port, client_context(TlsFiles(papers.ca)), "elsewhere.example")
        with pytest.raises(NoAnswer):
            send(port, client_context(TlsFiles(papers.stranger)))


def test_a_handshake_that_stands_still_is_ended(papers: Papers) -> None:
    """A peer that connects and says nothing is cut off after the time of a stalled frame, and others are served."""

    async def handle(payload: bytes, _peer: str) -> bytes:
        return acknowledge(read_header(payload), "AA", now=MONDAY, control_id="X")

    settings = Settings(mllp_tls_certificate=str(papers.server), mllp_tls_key=str(papers.server))
    with (
        # The others have this time for their handshakes, too.
        serving(MllpServer(handle, limits=Limits(stall=2.0)), listener_context(settings)) as port,
        Wire(port) as silent,
    ):
        assert send(port, client_context(TlsFiles(papers.ca))) == "AA"
        assert silent.is_closed()
        assert send(port, client_context(TlsFiles(papers.ca))) == "AA"


def test_versions_before_1_2_are_off(papers: Papers) -> None:
    """TLS 1.0 and 1.1 are spoken by neither side."""
    settings = Settings(mllp_tls_certificate=str(papers.server), mllp_tls_key=str(papers.server))
    server = listener_context(settings)
    assert server is not None
    assert server.minimum_version is ssl.TLSVersion.TLSv1_2
    assert client_context(TlsFiles(papers.ca)).minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"mllp_tls_key": "x"}, "INLAY_MLLP_TLS_CERTIFICATE"),
        ({"mllp_tls_clients": "x"}, "INLAY_MLLP_TLS_CERTIFICATE"),
        ({"mllp_tls_certificate": "/nowhere"}, "INLAY_MLLP_TLS_CERTIFICATE"),
        ({"mllp_tls_certificate": "{ca}"}, "INLAY_MLLP_TLS_CERTIFICATE"),
        ({"mllp_tls_certificate": "{server}", "mllp_tls_key": "/nowhere"}, "INLAY_MLLP_TLS_KEY"),
        ({"mllp_tls_certificate": "{server}", "mllp_tls_clients": "/nowhere"}, "INLAY_MLLP_TLS_CLIENTS"),
    ],
)
def test_files_that_cannot_be_are_named(papers: Papers, settings: dict[str, str], place: str) -> None:
    """A missing, mismatched or half configuration of TLS stops the start; it never falls back to plain text."""
    filled = {name: value.format(ca=papers.ca, server=papers.server) for name, value in settings.items()}
    with pytest.raises(Invalid) as refused:
        listener_context(Settings(**filled))  # type: ignore[arg-type]
    assert refused.value.place == place


def test_without_settings_there_is_no_tls() -> None:
    """Loopback needs none."""
    assert listener_context(Settings()) is None
