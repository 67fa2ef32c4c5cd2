"""`inlay listen`: the MLLP listener, which stores an order before it acknowledges it."""

from collections.abc import Sequence

from inlay_cli.environment import read_settings
from inlay_cli.parsing import command_parser

EXAMPLES = """
inlay listen                                       on INLAY_MLLP_HOST:INLAY_MLLP_PORT, by default 127.0.0.1:2575
INLAY_MLLP_HOST=0.0.0.0 inlay listen               for the whole network: MLLP has no authentication of its own
"""


def main(arguments: Sequence[str]) -> int:
    """Listen until SIGTERM."""
    command_parser("listen", "Receives HL7 v2 orders over MLLP.", EXAMPLES).parse_args(arguments)
    settings = read_settings()

    from inlay_gateway.listen import run

    run(settings)
    return 0
