"""`inlay audit`: verify the hash chain of the audit trail, or export it as JSON lines."""

import getpass
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inlay_cli.environment import opened, read_settings
from inlay_cli.parsing import command_parser

if TYPE_CHECKING:
    from inlay_core.domain.audit import Verification
    from inlay_core.domain.identity import Actor

EXAMPLES = """
inlay audit verify                     does every link fit? exit status 1 where not
inlay audit verify --json              the same for a program
inlay audit export > trail.jsonl       every link with its event; the export itself is recorded
"""


def main(arguments: Sequence[str]) -> int:
    """Verify (1 when the chain is broken) or export."""
    parser = command_parser("audit", "Verifies or exports the audit trail.", EXAMPLES)
    parser.add_argument("action", choices=("verify", "export"))
    parser.add_argument("--json", action="store_true", help="verify: one JSON object instead of a sentence")
    options = parser.parse_args(arguments)
    if options.action == "verify":
        return _verify(as_json=options.json)
    return _export()


def _verify(*, as_json: bool) -> int:
    from inlay_core.application.trail import verify_trail

    with opened(read_settings()) as services:
        found = verify_trail(services.reader())
    print(json.dumps(as_details(found)) if as_json else sentence(found))
    return 0 if found.holds else 1


def _export() -> int:
    from inlay_core.application.trail import export_trail

    with opened(read_settings()) as services:
        for line in export_trail(services.uow(), services.clock, services.new_id, auditor()):
            sys.stdout.write(line + "\n")
    return 0


def auditor() -> "Actor":
    """Whoever runs commands on this machine, by the name of their account: the trail says who exported it."""
    from inlay_core.domain.identity import Actor, Role

    account = getpass.getuser()
    return Actor(id=f"cli:{account}", name=account, roles=frozenset({Role.AUDITOR}))


def as_details(found: "Verification") -> dict[str, object]:
    """The result of a walk, for JSON."""
    details: dict[str, object] = {"holds": found.holds, "sealed": found.sealed, "unsealed": found.unsealed}
    details["head"] = found.head
    if found.first_break is not None:
        broken = found.first_break
        details["break"] = {"position": broken.position, "event": broken.event_id, "reason": broken.reason}
    return details


def sentence(found: "Verification") -> str:
    """The result of a walk, for a person."""
    tail = f"{found.unsealed} more not chained yet" if found.unsealed else "nothing waits to be chained"
    if found.first_break is None:
        return f"The audit trail holds: {found.sealed} events chained, {tail}, head {found.head}."
    broken = found.first_break
    return (
        f"The audit trail is BROKEN at position {broken.position} (event {broken.event_id}): {broken.reason}; {tail}."
    )
