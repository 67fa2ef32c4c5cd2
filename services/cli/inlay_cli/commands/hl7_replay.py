"""`inlay hl7 replay`: stored messages once more through the mapping of today. It changes nothing without --apply."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from inlay_cli.environment import administrator, opened, read_settings
from inlay_cli.parsing import command_parser

if TYPE_CHECKING:
    from inlay_core.application.ports import StoredMessage
    from inlay_core.application.replaying import Replayed
    from inlay_core.bootstrap import Services
    from inlay_gateway.reception import Reception

EXAMPLES = """
inlay hl7 replay --refused                        would refused messages be taken now? nothing is changed
inlay hl7 replay --sender RIS --since 2026-03-01  what would be different in the orders of one sender
inlay hl7 replay --refused --apply                take them, in the order of their arrival
"""
_BATCH = 100


def main(arguments: Sequence[str]) -> int:
    """Replay; returns 0."""
    parser = command_parser("hl7 replay", "Takes stored messages once more through the mapping.", EXAMPLES)
    parser.add_argument("ids", nargs="*", metavar="ID", help="ids of messages (they stand in the log and the trail)")
    parser.add_argument("--refused", action="store_true", help="only messages that were refused")
    parser.add_argument("--sender", metavar="MSH-3", help="only messages of this sending application")
    parser.add_argument("--since", type=_day, metavar="DATE", help="only messages that arrived on that day or later")
    parser.add_argument("--mapping", metavar="FILE", help="by this mapping instead of INLAY_HL7_MAPPING")
    parser.add_argument("--apply", action="store_true", help="keep what comes of it; otherwise it is a dry run")
    options = parser.parse_args(arguments)

    import dataclasses

    from inlay_gateway.answers import senders_of
    from inlay_gateway.reception import Reception

    settings = read_settings()
    if options.mapping:
        settings = dataclasses.replace(settings, hl7_mapping=options.mapping)
    senders = senders_of(settings)
    counts = {"messages": 0, "different": 0, "refused": 0}
    with opened(settings) as services:
        reception = Reception(services.uow, services.clock, services.new_id, senders, services.site)
        for message in _messages(services, options):
            replayed = _replay(services, reception, message, apply=options.apply)
            counts["messages"] += 1
            counts["different"] += replayed.changes
            counts["refused"] += replayed.error is not None
            if replayed.changes or options.ids:
                print(as_text(replayed))
    done = "Done." if options.apply else "Nothing was changed; --apply keeps it."
    print(f"{counts['messages']} messages, {counts['different']} different, {counts['refused']} refused. {done}")
    return 0


def _messages(services: "Services", options: argparse.Namespace) -> "Iterator[StoredMessage]":
    from inlay_core.application.ports import MessageOutcome
    from inlay_core.application.replaying import stored_messages

    if options.ids:
        with services.reader() as uow:
            yield from [message for each in options.ids if (message := uow.messages.get(each)) is not None]
        return
    outcome = MessageOutcome.REFUSED if options.refused else None
    after: tuple[datetime, str] | None = None
    while batch := stored_messages(
        services.reader(),
        administrator(),
        outcome=outcome,
        since=options.since,
        application=options.sender,
        after=after,
        limit=_BATCH,
    ):
        yield from batch
        after = (batch[-1].received_at, batch[-1].id)


def _replay(services: "Services", reception: "Reception", message: "StoredMessage", *, apply: bool) -> "Replayed":
    from inlay_core.application.replaying import replay_message

    return replay_message(
        services.uow(),
        services.clock,
        services.new_id,
        administrator(),
        message.id,
        reception.interpret,
        acknowledge=(lambda verdict: reception.acknowledgement(message.envelope, verdict)) if apply else None,
        site=services.site,
    )


def as_text(replayed: "Replayed") -> str:
    """What is different, for a person: the values of a message are shown."""
    message = replayed.message
    was = f"refused ({message.error_code} at {message.error_place})" if message.error_code else "accepted"
    now = f"refused ({replayed.error})" if replayed.error else "accepted"
    head = f"{message.id}  {message.envelope.message_type} {message.envelope.control_id}: {was} -> {now}"
    lines = [
        f"  new order {each.after}"
        if each.before is None and each.name == "order"
        else f"  order {each.order_id}: {each.name}: {_shown(each.before)} -> {_shown(each.after)}"
        for each in replayed.differences
    ]
    return "\n".join([head, *lines])


def _shown(value: object) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, each.name) for each in fields(value))
        return " ".join(_shown(part) for part in parts if part not in (None, "", ()))
    return "–" if value is None else str(value)


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date (YYYY-MM-DD)") from None
