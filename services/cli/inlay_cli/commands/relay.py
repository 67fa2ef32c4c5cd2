"""`inlay relay`: carries out what transactions decided (wake-ups, results) and sweeps up what was forgotten."""

from collections.abc import Sequence

from inlay_cli.environment import read_settings
from inlay_cli.parsing import command_parser

EXAMPLES = """
inlay relay                                        beside the other processes; several may run
INLAY_ORU_TARGET=ris.example:2576 inlay relay      send results to the RIS
"""


def main(arguments: Sequence[str]) -> int:
    """Relay until SIGTERM."""
    command_parser("relay", "Delivers what waits in the outbox, and sweeps.", EXAMPLES).parse_args(arguments)
    settings = read_settings()

    from inlay_gateway.relay import run

    run(settings)
    return 0
