"""`inlay audit`: verify the hash chain of the audit trail, sign where it stands, or export it as JSON lines."""

import getpass
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inlay_cli.environment import opened, read_settings
from inlay_cli.parsing import CommandError, command_parser

if TYPE_CHECKING:
    from inlay_core.domain.audit import Verification
    from inlay_core.domain.identity import Actor

EXAMPLES = """
inlay audit verify                     does every link fit? exit status 1 where not
inlay audit verify --json              the same for a program
inlay audit export > trail.jsonl       every link with its event; the export itself is recorded
inlay audit checkpoint >> kept.jws     sign where the chain stands, and print it: keep it on another machine
inlay audit checkpoint --all           every checkpoint that was made, also those by the relay
inlay audit verify --checkpoint kept.jws   is what was signed then still in the chain?
inlay audit keys > audit-jwks.json     the public keys, for whoever verifies elsewhere
"""


def main(arguments: Sequence[str]) -> int:
    """Verify (1 when the chain is broken), sign, or export."""
    parser = command_parser("audit", "Verifies, signs or exports the audit trail.", EXAMPLES)
    parser.add_argument("action", choices=("verify", "export", "checkpoint", "keys"))
    parser.add_argument("--json", action="store_true", help="verify: one JSON object instead of a sentence")
    parser.add_argument("--checkpoint", metavar="FILE", help="verify: checkpoints that were kept, one a line")
    parser.add_argument("--all", action="store_true", help="checkpoint: print all that were made")
    options = parser.parse_args(arguments)
    if options.action == "verify":
        return _verify(options.checkpoint, as_json=options.json)
    if options.action == "checkpoint":
        return _checkpoint(print_all=options.all)
    if options.action == "keys":
        return _keys()
    return _export()


def _verify(path: str | None, *, as_json: bool) -> int:
    from inlay_core.application.trail import verify_trail
    from inlay_core.notary import notary_of, required_notary

    settings = read_settings()
    kept = _lines(path) if path else []
    notary = required_notary(settings) if kept else notary_of(settings)
    with opened(settings) as services:
        found = verify_trail(services.reader(), notary, kept)
    print(json.dumps(as_details(found)) if as_json else sentence(found))
    return 0 if found.holds else 1


def _lines(path: str) -> list[str]:
    try:
        kept = [line for line in Path(path).read_text(encoding="ascii").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read ({type(error).__name__})") from error
    if not kept:
        raise CommandError(f"{path} holds no checkpoint")
    return kept


def _checkpoint(*, print_all: bool) -> int:
    from inlay_core.application.trail import kept_checkpoints, make_checkpoint, seal_trail
    from inlay_core.notary import required_notary

    settings = read_settings()
    notary = required_notary(settings)
    with opened(settings) as services:
        while seal_trail(services.uow()):
            pass
        make_checkpoint(services.uow(), services.clock, notary)
        made = kept_checkpoints(services.reader(), auditor())
    if not made:
        raise CommandError("nothing was recorded yet")
    for token in made if print_all else made[-1:]:
        print(token)
    return 0


def _keys() -> int:
    from inlay_core.notary import required_notary

    print(required_notary(read_settings()).public_keys)
    return 0


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
    details |= {"head": found.head, "purged": found.purged, "checkpoints": found.checkpoints}
    if found.first_break is not None:
        broken = found.first_break
        details["break"] = {"position": broken.position, "event": broken.event_id, "reason": broken.reason}
    return details


def sentence(found: "Verification") -> str:
    """The result of a walk, for a person."""
    tail = f"{found.unsealed} more not chained yet" if found.unsealed else "nothing waits to be chained"
    if found.first_break is None:
        purged = f"{found.purged} purged before them, " if found.purged else ""
        held = f"signed checkpoints that fit: {found.checkpoints}, " if found.checkpoints else ""
        return f"The audit trail holds: {found.sealed} events chained, {purged}{held}{tail}, head {found.head}."
    broken = found.first_break
    return (
        f"The audit trail is BROKEN at position {broken.position} (event {broken.event_id}): {broken.reason}; {tail}."
    )
