from __future__ import annotations

import pytest

from inlay_hl7.header import read_header
from inlay_hl7.mapping.places import At
from inlay_hl7.senders import Sender, codec_of, read_senders

TEXT = """
[default]
charset = "windows-1252"

[sender."RIS|EAST"]
accession_number = ["OBR-20", "ORC-3"]
processing_ids = ["P", "T"]
zone = "Europe/Berlin"

[sender.CPOE]
charset = "utf-8"
"""


def header(application: str, facility: str) -> bytes:
    """A header from that sender."""
    return f"MSH|^~\\&|{application}|{facility}|I|I|2025||ORM^O01|1|P|2.3.1\r".encode()


def test_each_sender_has_its_own_rules_on_top_of_the_default() -> None:
    """Application and facility choose the rules, then the application alone, then the default."""
    senders = read_senders(TEXT, Sender())
    east = senders.of(read_header(header("RIS", "EAST")))
    assert east.mapping().accession_number == (At("OBR", 20), At("ORC", 3))
    assert east.acceptance.processing_ids == {"P", "T"}
    assert str(east.mapping().zone) == "Europe/Berlin"
    assert east.charset == "cp1252"
    assert senders.of(read_header(header("CPOE", "WEST"))).charset == "utf-8"
    assert senders.of(read_header(header("RIS", "WEST"))) == senders.default
    assert senders.of(read_header(header("RIS^1.2.3^ISO", "EAST^4.5^ISO"))) == east


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[other]", "other"),
        ("[default]\ncolour = 1", "default.colour"),
        ("[sender.A]\ncharset = 'klingon'", "sender.A.charset"),
        ("[sender.A]\nzone = 'Mars/Crater'", "sender.A.zone"),
        ("[sender.A]\naccession_number = ['OBR']", "sender.A.accession_number"),
        ("[sender.A]\naccession_number = 'OBR-18'", "sender.A.accession_number"),
        ("[sender.A]\nversions = ['3']", "sender.A.versions"),
    ],
)
def test_a_configuration_with_a_mistake_is_refused_as_a_whole(text: str, place: str) -> None:
    """An unknown key, character set, zone or location stops the start and is named; nothing is ignored."""
    with pytest.raises(ValueError, match=place):
        read_senders(text, Sender())


def test_no_character_set_is_ascii() -> None:
    """An empty setting means the standard: ASCII, that is, no fallback."""
    assert codec_of("") is None
