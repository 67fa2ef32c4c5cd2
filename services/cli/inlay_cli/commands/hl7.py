"""`inlay hl7`: what people do around the HL7 interface. The first word chooses; each part has a module of its own."""

import importlib
from collections.abc import Sequence

from inlay_cli.parsing import CommandError

PARTS = {
    "explain": ("hl7_explain", "how a message is read, field by field"),
    "replay": ("hl7_replay", "stored messages once more through the mapping; a dry run unless --apply"),
    "dead": ("hl7_dead", "results that a receiver did not take and that are not tried any more"),
    "resend": ("hl7_resend", "send such results again"),
}
EXAMPLES = """\
inlay hl7 explain order.hl7      what Inlay makes of a message
  inlay hl7 replay --refused       what refused messages would do under the mapping of today
  inlay hl7 dead                   which results nobody took
  inlay hl7 PART --help            options and more examples"""
MISUSED = 2


def main(arguments: Sequence[str]) -> int:
    """Run one part."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_help())
        return 0 if arguments else MISUSED
    if arguments[0] not in PARTS:
        raise CommandError(f"there is no `inlay hl7 {arguments[0]}`; `inlay hl7 --help` lists what there is", MISUSED)
    module = importlib.import_module(f"inlay_cli.commands.{PARTS[arguments[0]][0]}")
    status: int = module.main(arguments[1:])
    return status


def _help() -> str:
    width = max(map(len, PARTS))
    listed = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in PARTS.items())
    return f"usage: inlay hl7 PART [options]\n\nparts:\n{listed}\n\nexamples:\n  {EXAMPLES}"
