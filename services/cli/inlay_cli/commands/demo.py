"""`inlay demo`: starts everything on loopback and plays the way of an order over it."""

import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from inlay_cli.environment import read_settings
from inlay_cli.parsing import CommandError, command_parser
from inlay_cli.supervisor import stop_on_signals

if TYPE_CHECKING:
    from inlay_cli.demonstration.ris import Ris
    from inlay_cli.demonstration.show import Show
    from inlay_cli.demonstration.site import Site

EXAMPLES = """
inlay demo                        watch it; afterwards the service stays up until Ctrl-C
inlay demo --once                 once, and leave nothing behind
inlay demo --once --json          one JSON object per step, for scripts; the exit status tells the rest
"""

# A laptop without a GPU loads torch and the model within this; everything else takes moments.
PATIENCE_SECONDS = 180.0


def main(arguments: Sequence[str]) -> int:
    """Play the flow; 0 when every step went well."""
    parser = command_parser("demo", "Shows the whole flow on this machine, over the real processes.", EXAMPLES)
    parser.add_argument("--once", action="store_true", help="end everything after the last step, keep no data")
    parser.add_argument("--json", action="store_true", help="print one JSON object per step")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_SECONDS,
        metavar="SECONDS",
        help="for each wait (default: %(default)g)",
    )
    options = parser.parse_args(arguments)

    from inlay_cli.demonstration.show import JsonLines, Terminal

    # As with Ctrl-C: the processes are ended and the temporary home is removed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    show: Show = JsonLines(sys.stdout) if options.json else Terminal(sys.stdout)
    with ExitStack() as stack:
        if options.once:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inlay-demo-")))
            return _run(stack, home, show, options.patience, stay=False)
        return _run(stack, read_settings().home / "demo", show, options.patience, stay=True)


def _run(stack: ExitStack, home: Path, show: "Show", patience: float, *, stay: bool) -> int:
    from inlay_cli.demonstration.phantom import phantom_file
    from inlay_cli.demonstration.ris import Ris
    from inlay_cli.demonstration.site import plan, running

    study = f"2.25.{uuid.uuid4().int}"
    ris = stack.enter_context(Ris(study))
    preferred = [("127.0.0.1", 8080), ("127.0.0.1", 2575)] if stay else [("127.0.0.1", 0)] * 2
    site = plan(home, ris.port, preferred)
    # Drawn while the processes start.
    drawing = stack.enter_context(ThreadPoolExecutor(1)).submit(phantom_file, study, ris.accession_number)
    show.note(f"Starting Inlay in {site.home} ...")
    try:
        up = stack.enter_context(running(site, patience))
        went_well = _play(ris, site, drawing, show, patience)
    except CommandError as error:
        show.begin("order")
        show.end("order", 0.0, {"reason": str(error)}, ok=False)
        return 1
    if stay:
        _stay(up, site, waiting=went_well and _leave_a_study(stack, site))
    return 0 if went_well else 1


def _leave_a_study(stack: ExitStack, site: "Site") -> bool:
    """Order one more study, with its images, for whoever opens the page; whether that went well."""
    from inlay_cli.demonstration.phantom import OTHER_FINDINGS, phantom_file
    from inlay_cli.demonstration.ris import Ris
    from inlay_cli.demonstration.site import place

    study = f"2.25.{uuid.uuid4().int}"
    ris = stack.enter_context(Ris(study))
    ris.listener = site.mllp
    ris.send_order()
    code, _ = ris.await_acknowledgement()
    place(phantom_file(study, ris.accession_number, OTHER_FINDINGS), site.images, f"{ris.accession_number}.dcm")
    return code in {"AA", "CA"}


def _play(ris: "Ris", site: "Site", drawing: "Future[bytes]", show: "Show", patience: float) -> bool:
    from inlay_cli.demonstration.flow import People, Story, play
    from inlay_cli.demonstration.site import place
    from inlay_cli.demonstration.web import Caller

    def place_images() -> list[str]:
        name = f"{ris.accession_number}.dcm"
        place(drawing.result(), site.images, name)
        return [name]

    people = People(
        ehr=Caller(*site.http, site.token("ehr", "Demonstration EHR")),
        radiologist=Caller(*site.http, site.token("radiologist", "Dr. Rada Phantom")),
    )
    ris.listener = site.mllp
    return play(Story(ris, people, place_images, site.verify_trail, show, patience))


def _stay(up: "subprocess.Popen[bytes]", site: "Site", *, waiting: bool) -> None:
    with stop_on_signals() as stop:
        if waiting:
            print(f"Your turn: one more study waits at {site.url} to be read.", file=sys.stderr, flush=True)
        print(f"Inlay is up at {site.url}; its log is {site.log}. Ctrl-C ends it.", file=sys.stderr, flush=True)
        while not stop.wait(0.5) and up.poll() is None:
            pass
