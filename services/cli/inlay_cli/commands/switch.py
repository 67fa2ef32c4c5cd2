"""`inlay switch`: stop generation at once, all of it or a part, and let it go on. Reading and signing stay usable."""

import json
from collections.abc import Sequence

from inlay_cli.environment import administrator, opened, read_settings
from inlay_cli.parsing import command_parser

EXAMPLES = """
inlay switch stop                            the kill switch: nothing is generated any more, running jobs stop
inlay switch stop --use draft --site NORTH   drafts from images of one site only
inlay switch stop --model tiny --modality CT one model's drafts and infills of CT
inlay switch resume --use draft --site NORTH turns that switch off again
inlay switch list                            what is stopped, since when and by whom; exit status 1 when something is
"""


def main(arguments: Sequence[str]) -> int:
    """Stop, resume, or list (1 when something is stopped)."""
    parser = command_parser("switch", "Stops generation, all of it or a part, and lets it go on.", EXAMPLES)
    parser.add_argument("action", choices=("stop", "resume", "list"))
    parser.add_argument("--use", choices=("draft", "infill"), help="intended use (default: both)")
    parser.add_argument("--site", help="who assigns the order's numbers, as in MSH-4 (default: all)")
    parser.add_argument("--modality", help="the order's modality (default: all)")
    parser.add_argument("--model", help="a model's name or digest (default: all)")
    parser.add_argument("--json", action="store_true", help="list: one JSON object per line")
    options = parser.parse_args(arguments)

    from inlay_core.application import switching
    from inlay_core.domain.switch import Scope

    with opened(read_settings()) as services:
        if options.action == "list":
            on = [one for one in switching.switches(services.reader(), administrator()) if one.on]
            for one in on:
                row = {"name": one.name, "since": one.changed_at.isoformat(timespec="seconds"), "by": one.changed_by}
                print(json.dumps(row) if options.json else "  ".join(row.values()))
            if not on and not options.json:
                print("Nothing is stopped by a switch.")
            return 1 if on else 0
        scope = Scope.of(options.use, options.site, options.modality, options.model)
        act = switching.stop_generation if options.action == "stop" else switching.resume_generation
        switch = act(services.uow(), services.clock, services.new_id, administrator(), scope)
    print(f"{switch.name}: {'stopped' if switch.on else 'goes on, as far as settings and other switches allow'}")
    return 0
