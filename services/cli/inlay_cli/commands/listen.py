"""`inlay listen`: the MLLP and DICOM listeners, which store what comes before they acknowledge it."""

import dataclasses
from collections.abc import Sequence

from inlay_cli.environment import read_settings
from inlay_cli.parsing import command_parser

EXAMPLES = """
inlay listen                                       on INLAY_MLLP_HOST:INLAY_MLLP_PORT, by default 127.0.0.1:2575
INLAY_MLLP_HOST=0.0.0.0 inlay listen               for the whole network: MLLP has no authentication of its own
INLAY_DICOM_HOST=0.0.0.0 INLAY_DICOM_CONFIG=/etc/inlay/dicom.toml inlay listen   images from the network; who may send
                                                   stands in the file (docs/howto/connect-pacs.md)
"""


def main(arguments: Sequence[str]) -> int:
    """Listen until SIGTERM."""
    parser = command_parser("listen", "Receives HL7 v2 orders over MLLP and images over DICOM.", EXAMPLES)
    parser.add_argument("--unwatched", action="store_true", help="leave INLAY_METRICS_PORT to another process")
    options = parser.parse_args(arguments)
    settings = read_settings()
    if options.unwatched:
        settings = dataclasses.replace(settings, metrics_port=0)

    from inlay_gateway.listen import run

    run(settings)
    return 0
