"""From the bytes of a message to what it asks for, by its sender's rules: the header is judged before the content."""

from __future__ import annotations

from collections.abc import Sequence

from inlay_core.application.ports import Command
from inlay_hl7.ack import Outcome, check_header, issue_of
from inlay_hl7.header import Header
from inlay_hl7.mapping.commands import commands_of
from inlay_hl7.mapping.reading import Use
from inlay_hl7.mapping.refusals import Malformed
from inlay_hl7.message import Message, MessageError, read
from inlay_hl7.senders import Sender


def opened(payload: bytes, header: Header, sender: Sender) -> tuple[Message | None, Malformed | None]:
    """The message as far as it can be read, and why it is refused, if it is."""
    refused = check_header(header, sender.acceptance)
    try:
        message = read(payload, sender.charset)
    except MessageError as error:
        return None, Malformed(*(refused or (Outcome.CONTENT_ERROR, issue_of(error))))
    return message, Malformed(*refused) if refused else None


def interpreted(
    message: Message | None, refusal: Malformed | None, sender: Sender, uses: list[Use] | None = None
) -> Sequence[Command]:
    """What an opened message asks for. Raises Malformed."""
    if refusal is not None:
        raise refusal
    assert message is not None
    return commands_of(message, sender.mapping(message.type, message.header.text(12)), uses)
