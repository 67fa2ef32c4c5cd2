"""`inlay hl7 explain`: how a message from a file would be read. It prints the message's values, and stores nothing."""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inlay_cli.commands.send import read_message
from inlay_cli.environment import MISCONFIGURED, read_settings
from inlay_cli.parsing import CommandError, command_parser

if TYPE_CHECKING:
    from inlay_core.settings import Settings
    from inlay_hl7.mapping.explaining import Explanation
    from inlay_hl7.senders import Senders

EXAMPLES = """
inlay hl7 explain order.hl7                          by INLAY_HL7_MAPPING, or the defaults where it is empty
inlay hl7 explain order.hl7 --mapping hl7.toml       by another file, for instance a draft of it
inlay hl7 explain - --json < order.hl7               for a program
"""


def main(arguments: Sequence[str]) -> int:
    """Explain; returns 0 when the message would be taken and 1 when it would be refused."""
    parser = command_parser("hl7 explain", "Shows field by field how a message is read.", EXAMPLES)
    parser.add_argument("file", help="the message as bytes; - is standard input")
    parser.add_argument("--mapping", metavar="FILE", help="TOML file per sending application")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    options = parser.parse_args(arguments)
    settings = read_settings()
    if options.mapping:
        settings = dataclasses.replace(settings, hl7_mapping=options.mapping)
    message = read_message(options.file)

    from inlay_hl7.mapping.explaining import explain

    explanation = explain(message, _senders(settings))
    print(json.dumps(dataclasses.asdict(explanation), indent=1) if options.json else as_text(explanation))
    return 0 if explanation.accepted else 1


def _senders(settings: "Settings") -> "Senders":
    from inlay_core.domain.errors import Invalid
    from inlay_gateway.answers import senders_of

    try:
        return senders_of(settings)
    except Invalid as error:
        raise CommandError(f"{error.place}: {error.message}", status=MISCONFIGURED) from error


def as_text(explanation: "Explanation") -> str:
    """The explanation as a table for people."""
    lines = _table(explanation.facts)
    lines.append("")
    rows = [(row.place, row.value, ", ".join(row.uses) or "–") for row in explanation.rows]
    width = max((len(place) for place, _, _ in rows), default=0)
    long = min(max((len(value) for _, value, _ in rows), default=0), 60)
    lines += [f"{place:<{width}}  {value:<{long}}  {uses}" for place, value, uses in rows]
    for title, pairs in explanation.asks:
        lines += ["", title, *(f"  {line}" for line in _table(pairs))]
    lines += ["", *_table(explanation.answer)]
    return "\n".join(lines)


def _table(pairs: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{name:<{width}}  {value}" for name, value in pairs]
