import contextlib
import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_dicom.site import Site, read_site, read_site_file

FULL = """
ae_title = "READER"

[listener]
quota_gib = 2
keep_days = 7
associations = 4

[[listener.peer]]
ae_title = "XRAY1"
networks = ["10.1.2.0/24", "192.0.2.7"]

[[listener.peer]]
ae_title = "PACS"
"""


def test_a_full_file_is_read() -> None:
    """Every key of the documented file arrives."""
    site = read_site(FULL)
    assert (site.ae_title, site.listener.quota_gib, site.listener.keep_days) == ("READER", 2, 7)
    first, second = site.listener.peers
    assert first.networks == (ipaddress.ip_network("10.1.2.0/24"), ipaddress.ip_network("192.0.2.7/32"))
    assert (second.ae_title, second.networks) == ("PACS", ())


def test_nothing_said_is_a_site_without_neighbours() -> None:
    """Neither no file nor an empty one is an error: nobody is asked, nothing is sent."""
    assert read_site("") == read_site_file("") == Site()
    assert Site().listener.tls() is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("ae_title = 'SEVENTEEN_LETTERS'", "ae_title"),
        ("ae_title = 5", "ae_title"),
        ("[listner]", "listner"),
        ("listener = 1", "listener"),
        ("[listener]\nquota = 1", "listener.quota"),
        ("[listener]\nquota_gib = 'much'", "listener.quota_gib"),
        ("[listener]\nquota_gib = 0", "listener"),
        ("[listener]\ntls_peer_ca = 'x'", "listener.tls_peer_ca"),
        ("[[listener.peer]]\nnetworks = []", "listener.peer[1].ae_title"),
        ("[[listener.peer]]\nae_title = 'A'\nhost = 'b'", "listener.peer[1].host"),
        ("[[listener.peer]]\nae_title = 'A'\nnetworks = ['10.0.0.0/40']", "listener.peer[1].networks"),
        ("[[listener.peer]]\nae_title = 'A'\nnetworks = '10.0.0.1'", "listener.peer[1].networks"),
        ("[listener", "not TOML"),
        ("[dicomweb]", "dicomweb.url: missing"),
        ("[dicomweb]\nurl = 'ftp://pacs'", "dicomweb.url"),
        ("[dicomweb]\nurl = 'https://pacs'\nuser = 'inlay'", "dicomweb.user"),
        ("[dicomweb]\nurl = 'http://pacs.hospital'\ntoken_file = 'x'", "dicomweb.url: passwords and tokens"),
        ("[dicomweb]\nurl = 'https://pacs'\npassword = 'geheim'", "dicomweb.password: unknown"),
        ("[dicomweb]\nurl = 'https://pacs'\ntimeout_seconds = 0", "dicomweb: timeout_seconds"),
        ("[dimse]\nae_title = 'PACS'\nhost = 'pacs'", "dimse.port: missing"),
        ("[dimse]\nae_title = 'PACS'\nhost = 'pacs'\nport = 0", "dimse.port"),
        ("[dimse]\nae_title = 'PACS'\nhost = 'pacs'\nport = true", "dimse.port"),
        ("[dimse]\nae_title = 'PACS'\nhost = 'pacs'\nport = 104\ntls_certificate = 'x'", "dimse.tls_certificate"),
    ],
)
def test_a_mistake_is_named(text: str, place: str) -> None:
    """A key that is misspelt or of the wrong kind is an error with its place, never a silent default."""
    with pytest.raises(ValueError, match=f"^{re.escape(place)}"):
        read_site(text)


def test_a_missing_file_is_named() -> None:
    """A file that is not there is an error of the setting."""
    with pytest.raises(ValueError, match="cannot be read"):
        read_site_file("/nowhere/dicom.toml")


@given(st.text(max_size=80))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever the file holds, the answer is a site or a ValueError."""
    with contextlib.suppress(ValueError):
        assert read_site(text).ae_title
