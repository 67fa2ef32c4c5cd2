"""`inlay bench round-trip`: the whole service on this machine and a model of random weights, measured from outside."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay_cli.environment import child_environment, read_settings
from inlay_cli.parsing import CommandError, command_parser, how_many

if TYPE_CHECKING:
    from inlay_cli.demonstration.ris import Results
    from inlay_cli.demonstration.site import Site
    from inlay_cli.round_trip.rounds import Rounds

EXAMPLES = """
inlay bench round-trip --shape toy                         a rehearsal on any machine; its times mean nothing
inlay bench round-trip --shape 26b --rounds 20 --out round-trip.json --table round-trip.md
INLAY_BROKER_URL=redis://... INLAY_REDIS_URL=redis://... inlay bench round-trip --shape 26b
"""

# A checkpoint of 52 GB is digested, read and put onto the device, and every pass is captured.
PATIENCE_SECONDS = {"26b": 560.0, "toy": 180.0}
# What of the caller's settings holds for the measured site as well: the model's way of working, and its peers.
KEPT = (
    "INLAY_DEVICE",
    "INLAY_STEPS",
    "INLAY_PRECISION",
    "INLAY_JOBS_TOGETHER",
    "INLAY_PROGRESS_SECONDS",
    "INLAY_DATABASE_URL",
    "INLAY_BROKER_URL",
    "INLAY_REDIS_URL",
    "INLAY_LOG_LEVEL",
)
# What the log says where a pass does not run as a captured graph with own kernels.
SLOWER = (
    "The accelerated",
    "This model is not accelerated",
    "Left to the library's own passes",
    "Triton cannot launch kernels",
)


def main(arguments: Sequence[str]) -> int:
    """Measure and write; 0 where every round succeeded and every lock was kept."""
    parser = command_parser("bench", "Measures the whole service on this machine.", EXAMPLES)
    parser.add_argument("what", choices=["round-trip"], help="from order to draft and from infill to its last event")
    parser.add_argument("--shape", choices=["26b", "toy"], required=True, help="of the model; its weights are random")
    parser.add_argument("--rounds", type=how_many, default=20, help="orders, each with two infills (default: 20)")
    parser.add_argument("--warm", type=how_many, default=2, help="rounds before these, not counted (default: 2)")
    parser.add_argument("--model", type=Path, help="checkpoint folder; made where it is missing (26b: 52 GB)")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--table", type=Path, help="write them there as Markdown, too")
    parser.add_argument("--log", type=Path, help="keep there what the processes print")
    parser.add_argument("--patience", type=float, metavar="SECONDS", help="for each wait")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inlay-round-trip-")))
        model = options.model or (home / "toy" if options.shape == "toy" else read_settings().home / "random-26b")
        _make_model(options.shape, model)
        report = _measure(stack, home / "site", model.absolute(), options)
    _write(report, options)
    return 0 if not report["failed"] and report["locks"]["kept"] == report["locks"]["asked"] else 1


def _make_model(shape: str, folder: Path) -> None:
    """In a process of its own, which gives the device back at its end."""
    command = [sys.executable, "-m", "inlay_model", "random", "--shape", shape, "--out", str(folder)]
    if subprocess.run(command, check=False).returncode != 0:
        raise CommandError(f"the checkpoint {folder} could not be made")


def _measure(stack: ExitStack, home: Path, model: Path, options: argparse.Namespace) -> dict[str, Any]:
    from inlay_cli.demonstration.ris import Results
    from inlay_cli.demonstration.site import plan, running

    patience = options.patience or PATIENCE_SECONDS[options.shape]
    results = stack.enter_context(Results())
    site = plan(home, results.port, [("127.0.0.1", 0)] * 2)
    # Warmed and accelerated unless the caller says otherwise, as a site with a GPU has it.
    own = {"INLAY_ACCELERATE": "true", "INLAY_WARM_UP": "true", "INLAY_MODEL": str(model)}
    given = {name: value for name, value in child_environment({}, KEPT).items() if name in KEPT}
    site = replace(site, environment={**site.environment, **own, **given})
    try:
        with running(site, patience):
            rounds, ready = _play(site, results, patience, options)
        return _report(rounds, site, ready, options, given)
    finally:
        if options.log and site.log.exists():
            options.log.write_bytes(site.log.read_bytes())


def _play(
    site: "Site", results: "Results", patience: float, options: argparse.Namespace
) -> "tuple[tuple[Rounds, Rounds], float]":
    """The rounds before and the counted ones, and how long the worker took until it was ready."""
    from inlay_cli.demonstration.web import Caller
    from inlay_cli.round_trip.rounds import RoundFailed, Rounds, await_worker

    radiologist = Caller(*site.http, site.token("radiologist", "Dr. Rada Phantom"))
    administrator = Caller(*site.http, site.token("admin", "Ada Phantom"))
    try:
        ready = await_worker(site, administrator, patience, _say)
    except RoundFailed as problem:
        raise CommandError(f"{problem}\n{_tail(site.log)}") from None
    _say(f"the worker was ready after {ready:.1f} s")
    warming, counted = (Rounds(site, results, radiologist, patience) for _ in range(2))
    parts = (warming, range(options.warm)), (counted, range(options.warm, options.warm + options.rounds))
    for rounds, numbers in parts:
        rounds.prepare(numbers)
    for rounds, numbers in parts:
        for number in numbers:
            rounds.play(number)
            _say(f"round {number + 1} of {options.warm + options.rounds}")
    if not counted.stages:
        failures = "\n".join([*warming.failed, *counted.failed])
        raise CommandError(f"no round succeeded:\n{failures}\n{_tail(site.log)}")
    return (warming, counted), ready


def _report(
    played: "tuple[Rounds, Rounds]", site: "Site", ready: float, options: argparse.Namespace, given: dict[str, str]
) -> dict[str, Any]:
    from inlay_cli.round_trip.rounds import logged
    from inlay_cli.round_trip.stages import summary

    warming, counted = played
    writer = counted.writer
    return {
        "suite": "round-trip",
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"inlay bench round-trip --shape {options.shape} --rounds {options.rounds} --warm {options.warm}",
        "machine": {
            "device": writer["device"],
            "cpus": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": writer["versions"],
        "shape": options.shape,
        "model": {
            name: writer[name] for name in ("model", "model_digest", "dtype", "precision", "canvas_length", "threads")
        },
        # URLs may carry passwords: of peers, only which they are.
        "settings": {name: value.partition("://")[0] for name, value in given.items()},
        "rounds": options.rounds,
        "rounds_before": options.warm,
        "worker_ready_seconds": round(ready, 1),
        "stages": {part: summary(stages) for part, stages in counted.stages.items()},
        "first_round": {part: summary(stages[:1]) for part, stages in warming.stages.items()},
        "runs": {part: summary([_numbers(run) for run in runs]) for part, runs in counted.runs.items()},
        "locks": {"asked": counted.locks_asked, "kept": counted.locks_kept},
        "passes_left": not_accelerated(logged(site.log)),
        "failed": [*warming.failed, *counted.failed],
    }


def not_accelerated(lines: Iterable[dict[str, Any]]) -> dict[str, int]:
    """What the log says of passes that were not accelerated, with what was raised where, and how often."""
    said = Counter[str]()
    for line in lines:
        event, raised = str(line.get("event")), line.get("error_type")
        if event.startswith(SLOWER):
            said[event if raised is None else f"{event} [{raised} at {line.get('error_at')}]"] += 1
    return dict(said)


def _numbers(run: dict[str, Any]) -> dict[str, float | None]:
    return {name: float(value) for name, value in run.items() if isinstance(value, int | float)} | {
        "tokens written in gaps": float(sum(run["gap_lengths"])) if run["gap_lengths"] else None
    }


def _write(report: dict[str, Any], options: argparse.Namespace) -> None:
    from inlay_cli.round_trip.stages import table

    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.table:
        options.table.write_text(table(report), encoding="utf-8")
    print(table(report), end="")


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _say(message: str) -> None:
    print(f"inlay: {message}", file=sys.stderr, flush=True)
