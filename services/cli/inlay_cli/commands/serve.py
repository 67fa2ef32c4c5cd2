"""`inlay serve`: FHIR, the workstation API and the page, over HTTP."""

import dataclasses
from collections.abc import Sequence

from inlay_cli.environment import read_settings
from inlay_cli.parsing import command_parser, how_many

EXAMPLES = """
inlay serve                                       on INLAY_HTTP_HOST:INLAY_HTTP_PORT, by default 127.0.0.1:8080
INLAY_HTTP_PORT=9080 inlay serve                  on another port
inlay serve --workers 4                           four processes; each has INLAY_HTTP_THREADS threads
"""


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM."""
    parser = command_parser(
        "serve", "Serves FHIR at /fhir, the workstation API at /api/v1 and the page at /.", EXAMPLES
    )
    parser.add_argument("--workers", type=how_many, default=1, help="processes (default: 1)")
    parser.add_argument("--unwatched", action="store_true", help="leave INLAY_METRICS_PORT to another process")
    options = parser.parse_args(arguments)
    settings = read_settings()
    if options.unwatched:
        settings = dataclasses.replace(settings, metrics_port=0)

    from inlay_api.server import run

    run(settings, options.workers)
    return 0
