from __future__ import annotations

import re
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trustme

from inlay_core.application.trail import seal_trail
from inlay_core.domain.audit import AuditEvent, Kind, Outcome, Tag, event_of
from inlay_core.domain.errors import Invalid, Unavailable
from inlay_core.settings import Settings
from inlay_gateway.delivery import Books
from inlay_gateway.syslog import Receiver, export, frame, receiver_of, send, syslog_message
from inlay_testkit.core import MONDAY, RADIOLOGIST, RIS, StillClock, Ward, counting_ids, order_command
from inlay_testkit.memory import Memory
from inlay_testkit.peers import free_port
from inlay_testkit.syslog import SyslogReceiver, syslog_receiver

# RFC 5424, 6: PRI VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG.
RFC5424 = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) inlay - (DICOM\+RFC3881) "
    rb'\[meta sequenceId="(\d+)"\] (<\?xml.*)',
    re.DOTALL,
)
EVENT = event_of(
    "e1",
    MONDAY,
    RADIOLOGIST,
    Tag.CLINICIAN_REPORT_SIGNED,
    (Kind.REPORT, "r1"),
    report_id="r1",
    version=4,
    detail={"code": "ok"},
)


def _sequence(message: bytes) -> int:
    matched = RFC5424.fullmatch(message)
    assert matched is not None
    return int(matched[5])


class House:
    """A trail in memory and the books of a relay that exports it."""

    def __init__(self, *numbers: str) -> None:
        self.memory = Memory()
        self.clock = StillClock()
        self.books = Books(self.memory, self.clock, counting_ids("book"))
        self.ward = Ward(self.memory(), self.clock)
        for number in numbers:
            self.ward.receive(order_command(number))
        seal_trail(self.ward.uow)

    @property
    def positions(self) -> list[int]:
        """The positions of the chain."""
        return [link.position for link in self.memory.world.links]


@pytest.fixture
def peer() -> Iterator[SyslogReceiver]:
    """A receiver over TCP."""
    with syslog_receiver() as receiver:
        yield receiver


def _to(peer: SyslogReceiver, tls: ssl.SSLContext | None = None) -> Receiver:
    return Receiver("127.0.0.1", peer.port, tls, "ward-1", "INLAY")


def test_an_event_is_a_message_of_rfc_5424_with_dicoms_audit_message() -> None:
    """Header, facility and severity are those of ITI-20; the XML says who, what, when, on which record."""
    matched = RFC5424.fullmatch(syslog_message(7, EVENT, "ward-1", "INLAY"))
    assert matched is not None
    assert (int(matched[1]), matched[2], matched[3]) == (10 * 8 + 5, b"2026-03-02T08:00:00.000000Z", b"ward-1")
    root = ET.fromstring(matched[6])  # noqa: S314 (our own words)
    assert root.tag == "AuditMessage"
    what, who, source, record = root
    assert what.attrib == {
        "EventActionCode": "U",
        "EventDateTime": "2026-03-02T08:00:00.000000+00:00",
        "EventOutcomeIndicator": "0",
    }
    assert [code.attrib["csd-code"] for code in what] == ["110110", "clinician:report:signed"]
    assert (who.attrib["UserID"], who.attrib["UserName"]) == ("dr-1", "Dr. Ada Reader")
    assert source.attrib["AuditSourceID"] == "INLAY"
    assert record.attrib["ParticipantObjectID"] == "r1"


def test_what_was_refused_is_a_warning() -> None:
    """Severity 4 and outcome 4 let a receiver raise an alarm without reading XML."""
    message = syslog_message(1, replace(EVENT, outcome=Outcome.REFUSED), "h", "INLAY")
    assert message.startswith(b"<84>1 ")
    assert b'EventOutcomeIndicator="4"' in message


def test_any_name_stays_ascii_and_xml() -> None:
    """Names of tokens may hold anything: quotes, markup, control characters, other scripts."""
    wild = replace(EVENT, actor_name='Dr. "Ö" <b>&\x00\n漢', actor_id="\x1b[0m")
    message = syslog_message(1, wild, "hóst name", "INLAY")
    assert message.isascii()
    assert b"\n" not in message
    matched = RFC5424.fullmatch(message)
    assert matched is not None
    who = ET.fromstring(matched[6])[1]  # noqa: S314
    assert who.attrib["UserName"] == 'Dr. "Ö" <b>&??漢'


def test_the_sequence_begins_again_after_its_largest_number() -> None:
    """RFC 5424, 7.3.1: 2147483647 is followed by 1."""
    assert [_sequence(syslog_message(n, EVENT, "h", "s")) for n in (2**31 - 1, 2**31)] == [2**31 - 1, 1]


def test_frames_count_octets() -> None:
    """RFC 5425, 4.3.1."""
    assert frame(b"<1>1 a") == b"6 <1>1 a"


def test_the_whole_chain_is_sent_once_and_in_order(peer: SyslogReceiver) -> None:
    """Every event goes out in the order of the chain; what was sent is not sent again."""
    house = House("1", "2")
    assert export(house.books, _to(peer)) == len(house.positions)
    assert export(house.books, _to(peer)) == 0
    house.ward.receive(order_command("3"))
    seal_trail(house.ward.uow)
    export(house.books, _to(peer))
    assert list(map(_sequence, peer.messages)) == house.positions


def test_a_receiver_that_crashes_gets_the_batch_again(peer: SyslogReceiver) -> None:
    """Bytes that were on their way when it crashed are not lost: everything arrives, the first message twice."""
    house = House("1", "2")
    peer.crashes = 1
    with pytest.raises(Unavailable):
        export(house.books, _to(peer))
    export(house.books, _to(peer))
    assert list(map(_sequence, peer.messages)) == [1, *house.positions]


def test_a_receiver_that_is_away_loses_nothing(peer: SyslogReceiver) -> None:
    """Nobody listens: the cursor stays, and the events go out when somebody does."""
    house = House("1")
    away = replace(_to(peer), port=free_port())
    with pytest.raises(Unavailable):
        export(house.books, away)
    assert house.memory.world.cursors == {away.name: (0, None)}


def test_two_relays_do_not_send_at_once(peer: SyslogReceiver) -> None:
    """While one holds the cursor the other sends nothing; a holder that died is replaced after its lease."""
    house = House("1")
    receiver = _to(peer)
    with house.memory() as uow:
        assert uow.audit.claim_cursor(receiver.name, MONDAY, MONDAY.replace(minute=1)) == 0
        uow.commit()
    assert export(house.books, receiver) == 0
    house.clock.advance(61)
    assert export(house.books, receiver) == len(house.positions)


def test_no_patient_is_named() -> None:
    """Of an order with a patient's name, number and birth date, none is in any message."""
    house = House("1")
    events = map(AuditEvent.from_canonical, house.memory.world.events.values())
    text = b"".join(syslog_message(n, event, "h", "INLAY") for n, event in enumerate(events, 1))
    with house.memory() as uow:
        order = uow.orders.by_placer("RIS", "P1")
    assert order is not None
    patient = order.patient
    assert patient.name is not None
    for secret in (patient.identifier, patient.name.family, str(patient.birth_date), order.accession_number or "?"):
        assert secret.encode() not in text


def test_tls_goes_to_whom_the_authority_signed_only() -> None:
    """RFC 5425: the certificate is checked, a batch arrives whole, and a stranger's receiver gets nothing."""
    authority, stranger = trustme.CA(), trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting, other = ssl.create_default_context(), ssl.create_default_context()
    authority.configure_trust(trusting)
    stranger.configure_trust(other)
    house = House("1", "2")
    with syslog_receiver(server) as peer:
        with pytest.raises(Unavailable):
            export(house.books, _to(peer, other))
        assert export(house.books, _to(peer, trusting)) == len(house.positions)
        assert list(map(_sequence, peer.messages)) == house.positions


def test_a_tls_receiver_that_crashes_is_noticed() -> None:
    """A reset while our close_notify waits for its answer is no delivery."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with syslog_receiver(server) as peer:
        peer.crashes = 1
        with pytest.raises(Unavailable):
            send(_to(peer, trusting), [b"<85>1 - - - - - - " + b"x" * 200_000] * 40)


@pytest.mark.parametrize("target", ["host:6514", "udp://host:514", "tls://host", "tls://:6514", "tcp://host:99999"])
def test_a_target_is_a_url_of_tls_or_tcp(target: str) -> None:
    """Anything else stops the process and names the setting."""
    with pytest.raises(Invalid) as refused:
        Settings.from_env({"INLAY_SYSLOG_TARGET": target})
    assert refused.value.place == "INLAY_SYSLOG_TARGET"


def test_tls_is_checked_when_the_relay_starts() -> None:
    """A missing file is named; without a target there is no receiver."""
    assert receiver_of(Settings()) is None
    with pytest.raises(Invalid):
        receiver_of(Settings(syslog_target="tls://h:6514", syslog_tls_ca="/nowhere.pem"))
    plain = receiver_of(Settings(syslog_target="tcp://[::1]:601"))
    assert plain is not None
    assert (plain.host, plain.port, plain.tls) == ("::1", 601, None)


def test_systems_have_the_role_of_an_application() -> None:
    """A peer system without a person has its roles; one of our own processes is an application."""
    assert b'csd-code="ris"' in syslog_message(1, replace(EVENT, actor_id=RIS.id, roles=tuple(RIS.roles)), "h", "s")
