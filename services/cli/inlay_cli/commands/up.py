"""`inlay up`: all processes of Inlay on one machine, supervised, with the embedded defaults."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inlay_cli.environment import read_settings
from inlay_cli.parsing import command_parser
from inlay_cli.supervisor import Program, Supervisor, only_one, require_free, stop_on_signals

if TYPE_CHECKING:
    from inlay_core.settings import Settings

EXAMPLES = """
inlay up                             everything, data in ./var, http://127.0.0.1:8080, MLLP on 2575
INLAY_HOME=/srv/inlay inlay up       keep the data elsewhere
INLAY_HTTP_PORT=9080 inlay up        another port
inlay up --without work              no model on this machine (a worker elsewhere, or none)
"""

PROCESSES = ("serve", "listen", "relay", "work")


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or Ctrl-C; returns 0 then."""
    parser = command_parser(
        "up", "Runs all processes of Inlay on this machine and restarts the ones that die.", EXAMPLES
    )
    parser.add_argument("--without", choices=PROCESSES, action="append", default=[], help="leave a process out")
    options = parser.parse_args(arguments)
    names = [name for name in PROCESSES if name not in options.without]

    settings = read_settings()
    with stop_on_signals() as stop, only_one(settings.home):
        _require_ports(settings, names)
        _prepare(settings)
        _announce(settings, names)
        Supervisor([program(name) for name in names], say).run(stop)
    say("stopped")
    return 0


def program(name: str) -> Program:
    """An `inlay` command as a child that ends with this process."""
    ours = (sys.executable, "-m", "inlay_cli", "--parent", str(os.getpid()), name)
    # One port for health and metrics, four that would take it: here `inlay up` watches, and the worker has figures.
    return Program(name, ours if name == "work" else (*ours, "--unwatched"))


def say(message: str) -> None:
    """One line for the person who watches; logs of the children go their own way."""
    print(f"inlay: {message}", file=sys.stderr, flush=True)


def _require_ports(settings: "Settings", names: Sequence[str]) -> None:
    if "serve" in names:
        require_free(settings.http_host, settings.http_port, "INLAY_HTTP_PORT")
    if "listen" in names:
        require_free(settings.mllp_host, settings.mllp_port, "INLAY_MLLP_PORT")
        require_free(settings.dicom_host, settings.dicom_port, "INLAY_DICOM_PORT")


def _prepare(settings: "Settings") -> None:
    """Do once, before the children start, what they would otherwise do at the same time."""
    from inlay_core import bootstrap

    bootstrap.upgrade_database(settings)
    if not settings.images_folder:
        settings.images.mkdir(parents=True, exist_ok=True)


def _announce(settings: "Settings", names: Sequence[str]) -> None:
    if "serve" in names:
        say(f"page, FHIR and API at http://{settings.http_host}:{settings.http_port}")
    if "listen" in names:
        say(f"HL7 v2 orders over MLLP at {settings.mllp_host}:{settings.mllp_port}")
        say(f"DICOM images at {settings.dicom_host}:{settings.dicom_port}")
    say(f"images are taken from {settings.images}; data is kept in {settings.home}")
    say("Ctrl-C stops everything")
