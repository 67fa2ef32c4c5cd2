"""`inlay status`: queues, workers, switches, connections and parked results, as the database tells them."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from inlay_cli.environment import administrator, opened, read_settings
from inlay_cli.parsing import command_parser

if TYPE_CHECKING:
    from inlay_core.application.administration import Overview

EXAMPLES = """
inlay status               how the installation stands
inlay status --json        the same for a program, as `GET /api/v1/administration` gives it
"""


def main(arguments: Sequence[str]) -> int:
    """Print how everything stands."""
    parser = command_parser("status", "Tells how the installation stands; counts and codes, no patients.", EXAMPLES)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)

    from inlay_core.application.administration import overview

    with opened(read_settings()) as services:
        found = overview(services.reader(), services.clock, administrator(), services.site)
    if options.json:
        from inlay_api.administration import overview_body

        print(json.dumps(overview_body(found)))
    else:
        print(text(found))
    return 0


def text(found: "Overview") -> str:
    """The overview for a person."""
    stopped = [f"{one.name}  since {_moment(one.changed_at)} by {one.changed_by}" for one in found.switches if one.on]
    parts = {
        f"Generation: the settings allow {', '.join(sorted(found.uses)) or 'nothing'}; stopped by switches": stopped,
        "Jobs": (
            f"{one.number} {one.kind} {one.state} ({one.priority}), the oldest from {_moment(one.oldest)}"
            for one in found.queues
        ),
        "Workers": (
            f"{one.host}  {one.model} {one.model_digest[:12]}  "
            f"{f'{one.jobs} job(s)' if one.jobs else 'idle'}, seen {_moment(one.seen_at)}"
            f"{' SILENT' if found.is_silent(one) else ''}"
            for one in found.workers
        ),
        "Senders (30 days)": (
            f"{one.application} {one.facility}  {one.number} messages, the last {_moment(one.last_at)}; "
            f"{one.refused} refused{f', the last: {one.last_error}' if one.last_error else ''}"
            for one in found.senders
        ),
        "Destinations": (
            f"{one.destination}  {one.pending} waiting, {one.dead} parked, last delivered {_moment(one.last_delivered)}"
            f"{f', last error {one.last_error}' if one.last_error else ''}"
            for one in found.destinations
        ),
        "Parked (inlay hl7 resend ID)": (
            f"{one.id}  {one.destination}  {one.last_error or '-'}  since {_moment(one.created_at)}"
            for one in found.parked
        ),
    }
    return "\n".join(f"{head}:\n{_lines(lines)}" for head, lines in parts.items())


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in lines) or "  none"


def _moment(moment: datetime | None) -> str:
    return moment.isoformat(sep=" ", timespec="minutes") if moment else "never"
