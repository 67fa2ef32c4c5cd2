"""`inlay relay`: carries out what transactions decided (wake-ups, results) and sweeps up what was forgotten."""

import dataclasses
from collections.abc import Sequence

from inlay_cli.environment import read_settings
from inlay_cli.parsing import command_parser

EXAMPLES = """
inlay relay                                        beside the other processes; several may run
INLAY_ORU_TARGET=ris.example:2576 inlay relay      send results to the RIS
"""


def main(arguments: Sequence[str]) -> int:
    """Relay until SIGTERM."""
    parser = command_parser("relay", "Delivers what waits in the outbox, and sweeps.", EXAMPLES)
    parser.add_argument("--unwatched", action="store_true", help="leave INLAY_METRICS_PORT to another process")
    options = parser.parse_args(arguments)
    settings = read_settings()
    if options.unwatched:
        settings = dataclasses.replace(settings, metrics_port=0)

    from inlay_gateway.relay import run

    run(settings)
    return 0
