"""Which reader takes which message: the one table from MSH-9 to what a message asks for."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Table
from types import MappingProxyType
from typing import Final

from inlay_core.application.ports import Command
from inlay_hl7.ack import Outcome, issue_of
from inlay_hl7.mapping.orders import order_commands
from inlay_hl7.mapping.patients import patient_commands
from inlay_hl7.mapping.places import Mapping
from inlay_hl7.mapping.priors import prior_commands
from inlay_hl7.mapping.reading import Use
from inlay_hl7.mapping.refusals import Malformed
from inlay_hl7.message import Condition, Message, MessageError

Reader = Callable[[Message, Mapping, list[Use] | None], tuple[Command, ...]]

READERS: Final[Table[str, Reader]] = MappingProxyType(
    {
        "ORM": order_commands,
        "OMI": order_commands,
        "OMG": order_commands,
        "ADT": patient_commands,
        "ORU": prior_commands,
    }
)
"""MSH-9.1 -> what reads it. Which events are taken is `inlay_hl7.ack.MESSAGES`."""


def commands_of(message: Message, mapping: Mapping, uses: list[Use] | None = None) -> tuple[Command, ...]:
    """What the message asks for; the places that were read are added to `uses`. Raises Malformed."""
    reader = READERS.get(message.type)
    if reader is None:
        error = MessageError(Condition.MESSAGE_TYPE, message.header.place(9), "message type not supported")
        raise Malformed(Outcome.HEADER_REFUSED, issue_of(error))
    return reader(message, mapping, uses)
