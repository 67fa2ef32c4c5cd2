from __future__ import annotations

from dataclasses import replace

import pytest

from inlay_core.application.ports import MessageOutcome, Verdict
from inlay_core.application.replaying import Replayed, replay_message, stored_messages
from inlay_core.domain.errors import Forbidden
from inlay_gateway.reception import Reception
from inlay_hl7.ack import read_acknowledgement
from inlay_hl7.senders import Sender, read_senders
from inlay_testkit.core import ADMIN, RADIOLOGIST, StillClock, counting_ids
from inlay_testkit.memory import Memory
from inlay_testkit.mllp import order_message

# A RIS that writes its accession number into OBR-20.
ELSEWHERE = order_message("1").replace(b"|A1|", b"||").replace(b"||||||DX", b"||STEP1||||DX")


class Desk:
    """A reception whose mapping can change."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.reception = Reception(self.memory, StillClock(), counting_ids(), read_senders("", Sender()))

    def configure(self, text: str) -> None:
        """Another mapping from now on."""
        self.reception = replace(self.reception, senders=read_senders(text, Sender()))

    def replay(self, *, apply: bool = False) -> list[Replayed]:
        """All stored messages once more."""
        return [
            replay_message(
                self.memory(),
                StillClock(),
                self.reception.new_id,
                ADMIN,
                message.id,
                self.reception.interpret,
                acknowledge=self.keep(message.id) if apply else None,
                site=self.reception.site,
            )
            for message in stored_messages(self.memory(), ADMIN)
        ]

    def keep(self, message_id: str):  # type: ignore[no-untyped-def]  # noqa: ANN201 (a closure for one call)
        """The builder of the new answer."""
        envelope = self.memory.world.messages[message_id].envelope

        def build(verdict: Verdict) -> bytes:
            return self.reception.acknowledgement(envelope, verdict)

        return build


def accession(desk: Desk) -> str | None:
    """The accession number of the only order."""
    (order,) = desk.memory.world.orders.values()
    return order.accession_number


def test_a_dry_run_shows_what_would_be_different_and_changes_nothing() -> None:
    """With another mapping the accession number would be another one; the database is as it was."""
    desk = Desk()
    desk.reception.take(order_message("1"), "peer")
    before = desk.memory.world
    desk.configure('[default]\naccession_number = ["OBR-2"]')
    (replayed,) = desk.replay()
    (difference,) = replayed.differences
    assert (difference.name, difference.before, difference.after) == ("accession_number", "A1", "P1")
    assert (replayed.changes, replayed.done) == (True, False)
    assert desk.memory.world is before


def test_the_same_mapping_makes_no_difference() -> None:
    """Nothing is reported as different when nothing is."""
    desk = Desk()
    desk.reception.take(order_message("1"), "peer")
    assert [replayed.changes for replayed in desk.replay()] == [False]


def test_a_refused_message_is_taken_once_its_mapping_is_mended() -> None:
    """Applied, the message makes its order, is kept as accepted with a positive answer, and the trail says so."""
    desk = Desk()
    refused = order_message("1").replace(b"|P|2.3.1", b"|T|2.3.1")
    desk.reception.take(refused, "peer")
    assert not desk.memory.world.orders
    desk.configure('[default]\nprocessing_ids = ["P", "T"]')
    assert [(r.error, r.changes) for r in desk.replay()] == [(None, True)]
    assert [r.done for r in desk.replay(apply=True)] == [True]
    assert accession(desk) == "A1"
    (message,) = desk.memory.world.messages.values()
    assert (message.outcome, message.error_code, message.flags) == (MessageOutcome.ACCEPTED, None, ("replayed",))
    again = read_acknowledgement(desk.reception.take(refused, "peer").payload)
    assert again is not None
    assert again.code == "AA"
    assert any('"admin:message:replayed"' in body for body in desk.memory.world.events.values())


def test_applying_corrects_the_orders_of_accepted_messages() -> None:
    """An accession number that was read from the wrong field is right after the replay."""
    desk = Desk()
    desk.reception.take(order_message("1"), "peer")
    desk.configure('[default]\naccession_number = ["OBR-2"]')
    desk.replay(apply=True)
    assert accession(desk) == "P1"


def test_what_would_still_be_refused_stays_as_it_is() -> None:
    """A message that cannot be read under any mapping keeps its refusal and its answer."""
    desk = Desk()
    desk.reception.take(order_message("1").replace(b"|NW|", b"|QQ|"), "peer")
    before = desk.memory.world
    (replayed,) = desk.replay(apply=True)
    assert replayed.error is not None
    assert not replayed.changes
    assert desk.memory.world is before


def test_replaying_an_older_message_never_overwrites_a_newer_one() -> None:
    """A stored order that a later message changed keeps the change."""
    desk = Desk()
    desk.reception.take(order_message("1"), "peer")
    later = order_message("1", "C9", control="XO", reason="newer").replace(b"20260302080000", b"20260302090000")
    desk.reception.take(later, "peer")
    desk.replay(apply=True)
    (order,) = desk.memory.world.orders.values()
    assert order.reason == "newer"


def test_replaying_takes_an_administrator() -> None:
    """A radiologist neither lists nor replays messages."""
    desk = Desk()
    with pytest.raises(Forbidden):
        stored_messages(desk.memory(), RADIOLOGIST)
