"""Application acknowledgements on a connection of their own: who is answered so, and sending what the outbox holds.

HL7 v2 chapter 2, "Enhanced mode": the second answer is an exchange that we begin, and that the peer commits (CA).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inlay_core.application.ports import ACK_PREFIX, OutboxItem
from inlay_core.application.publishing import claim_deliveries
from inlay_core.domain.errors import Invalid
from inlay_core.settings import Settings
from inlay_core.targets import SETTING, ResultTarget, result_targets
from inlay_gateway.delivery import Books, Sent, send_item, sent_each
from inlay_hl7.client import MllpClient
from inlay_hl7.senders import Sender, Senders, codec_of, read_senders


def senders_of(settings: Settings) -> Senders:
    """What is configured per sending application. Raises Invalid, naming the setting."""
    try:
        default = Sender(charset=codec_of(settings.mllp_charset))
    except ValueError as error:
        raise Invalid("bad-setting", str(error), "INLAY_MLLP_CHARSET") from None
    if not settings.hl7_mapping:
        return Senders(default)
    try:
        return read_senders(Path(settings.hl7_mapping).read_text(encoding="utf-8"), default)
    except OSError as error:
        raise Invalid("bad-setting", f"The file cannot be read ({error.strerror}).", "INLAY_HL7_MAPPING") from None
    except ValueError as error:
        raise Invalid("bad-setting", f"{settings.hl7_mapping}: {error}", "INLAY_HL7_MAPPING") from None


def answer_targets(settings: Settings, senders: Senders) -> list[ResultTarget]:
    """The targets that get application acknowledgements. Raises Invalid for one that is named and not described."""
    known = {target.filter.name: target for target in result_targets(settings)}
    for name, table in senders.answered_apart.items():
        if name not in known:
            raise Invalid("bad-setting", f"{table}.answer_to: no such target in {SETTING}.", "INLAY_HL7_MAPPING")
    return [known[name] for name in senders.answered_apart]


def deliver_answer(books: Books, target: ResultTarget, client: MllpClient) -> Sequence[Sent]:
    """Send the next due acknowledgement; one at a time, because each waits for its commit acknowledgement."""
    lease = 3 * target.timeout_seconds + 30
    destination = ACK_PREFIX + target.filter.name
    items = claim_deliveries(books.new_uow(), books.clock, destination, limit=1, lease_seconds=lease)
    return sent_each(books, items, lambda item: _send(books, client, item))


def _send(books: Books, client: MllpClient, item: OutboxItem) -> Sent:
    assert item.message is not None  # It was kept with the message that it answers.
    return send_item(books, client, item, item.message)
