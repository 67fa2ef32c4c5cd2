"""`inlay hl7 dead`: results that a receiver refused for good, or did not take for days. Ids and codes, no patients."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from inlay_cli.environment import administrator, opened, read_settings
from inlay_cli.parsing import command_parser

if TYPE_CHECKING:
    from inlay_core.application.ports import OutboxItem
    from inlay_core.bootstrap import Services

EXAMPLES = """
inlay hl7 dead                  which, since when, and what the receiver said; exit status 1 when there are any
inlay hl7 dead --json           one JSON object per line, for a program
"""
_BATCH = 200


def main(arguments: Sequence[str]) -> int:
    """List; returns 0 when there are none and 1 when there are some."""
    parser = command_parser("hl7 dead", "Lists results that are not tried any more.", EXAMPLES)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args(arguments)
    found = False
    with opened(read_settings()) as services:
        for item in parked(services):
            found = True
            print(json.dumps(_row(item)) if options.json else "  ".join(str(value) for value in _row(item).values()))
    if not found and not options.json:
        print("Nothing is parked.")
    return 1 if found else 0


def parked(services: "Services") -> "Iterator[OutboxItem]":
    """Every parked delivery, the oldest first."""
    from inlay_core.application.publishing import parked_deliveries

    offset = 0
    while items := parked_deliveries(services.reader(), administrator(), limit=_BATCH, offset=offset):
        yield from items
        offset += len(items)


def _row(item: "OutboxItem") -> dict[str, object]:
    return {
        "id": item.id,
        "destination": item.destination,
        "report": item.payload.get("report_id"),
        "message": item.payload.get("message_id"),
        "version": item.payload.get("version"),
        "control_id": item.control_id,
        "attempts": item.attempts,
        "error": item.last_error,
        "created_at": item.created_at.isoformat(timespec="seconds"),
    }
