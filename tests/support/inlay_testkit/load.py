"""A hospital's day against a whole Inlay of real processes, compressed in time, and what each stage of it took.

Orders come over MLLP by the hours of a day, with bursts; images follow; radiologists poll the worklist, read drafts,
lock a sentence, resubmit and sign; a target takes the results. api (gunicorn), listener, relay and workers are the
real processes on a PostgreSQL and a Redis of their own; your installation is not touched. What each of them holds is
told, too: a day that takes an hour is a soak.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from inlay_api.auth import mint
from inlay_core.domain.job import JobState
from inlay_core.domain.order import Priority
from inlay_testkit.bench_hl7 import machine
from inlay_testkit.day.course import Sample, every, thinned, told
from inlay_testkit.day.house import House, house
from inlay_testkit.day.plan import PlannedStudy, day_of, plan, priorities_of
from inlay_testkit.day.readers import Readers
from inlay_testkit.day.ris import Ris
from inlay_testkit.day.shown import draw, table
from inlay_testkit.day.stages import (
    MARGIN_SECONDS,
    Clocks,
    ends_of,
    passed_over,
    records_of,
    results_of,
    simulated,
    stages_of,
)
from inlay_testkit.day.worker import Pace
from inlay_testkit.drills.outcome import examine, unfinished, untold

EXAMPLES: Final = """
make load                                             2,000 studies in 15 minutes
make load ARGS="--studies 60 --compress 4320"         a minute, to see how it goes
make load ARGS="--compress 24 --workers 4 --out day.json"   an hour with four workers; day.json, day.svg
make load ARGS="--engine demo --studies 100 --compress 48"  the small model that is shipped, in place of the paced one

--compress says how many times as fast as the clock the day goes: 96 makes it 15 minutes. The engine's seconds are not
compressed: at 96, a draft of 0.1 s is as much load as one of 9.6 s on a real day. Readers work as fast as they can, and
poll once per second, however compressed the day is.
"""
_PATIENCE_SECONDS: Final = 900.0
_LOOK_SECONDS: Final = 1.0
_TELL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is made of."""

    studies: int = 2_000
    compress: float = 96.0
    seed: int = 20_261_128
    engine: str = "paced"
    pace: Pace = Pace(0.1, 0.06)  # noqa: RUF009 (immutable)
    workers: int = 2
    readers: int = 6
    connections: int = 4
    durable: bool = True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the day, print its tables; status 1 where something that must hold did not."""
    given = _parser().parse_args(arguments)
    # A soak runs in the background; told to end, it takes its servers with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = Options(
        studies=given.studies,
        compress=given.compress,
        seed=given.seed,
        engine=given.engine,
        pace=Pace(given.draft_seconds, given.infill_seconds),
        workers=given.workers,
        readers=given.readers,
        connections=given.connections,
    )
    with tempfile.TemporaryDirectory(prefix="inlay-load-", ignore_cleanup_errors=True) as folder:
        report = {"command": _command(arguments), **run(options, Path(folder), _say)}
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n")
        draw(report, given.out.with_suffix(".svg"))
    print(json.dumps(report, indent=1) if given.json else table(report))
    return 0 if report["holds"] else 1


def run(options: Options, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The day, and what was found. Raises TimeoutError where it does not end, RuntimeError where a process does."""
    studies = plan(options.seed, options.studies, options.compress)
    load_before = round(os.getloadavg()[0], 1)
    settings = {"INLAY_MAX_STREAMS": str(max(8, options.readers))}
    settings |= options.pace.to_env() if options.engine == "paced" else {"INLAY_DEMO_MODEL_ON_ANY_STUDY": "true"}
    say("starting PostgreSQL, Redis, api, listener, relay and workers")
    with house(
        folder, _worker(options.engine), workers=options.workers, settings=settings, durable=options.durable
    ) as running:
        clocks = Clocks()
        site = running.site.settings
        tokens = [mint(site, f"dr-{n}", f"Dr. {n}", ["radiologist"], 12) for n in range(options.readers)]
        ris = Ris(site.mllp_port, site.images, studies, options.connections)
        readers = Readers(site.http_port, tokens, studies, clocks.took)
        began, cpu_before = time.monotonic(), running.cpu()
        try:
            ris.start()
            readers.start()
            course, samples = _follow(options, running, ris, readers, say)
        finally:
            ris.stop()
            readers.stop()
        seconds = time.monotonic() - began
        cpu = {name: round(used - cpu_before[name], 1) for name, used in running.cpu().items()}
        say("looking at what is in the database")
        found = _found(options, running, ris, readers, clocks)
    return {
        "machine": machine(),
        "load_before": load_before,
        "engine": _engine(options),
        "day": _day(options, studies),
        "seconds": round(seconds, 1),
        **found,
        "cpu_seconds": cpu,
        "holding": told(samples, options.compress),
        "course": thinned(course),
    }


def _follow(
    options: Options, running: House, ris: Ris, readers: Readers, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[Sample]]:
    """Until all has come to its end: the queue second by second, as hours of the day, and what processes hold."""
    course: list[dict[str, Any]] = []
    samples: list[Sample] = []
    said = 0.0
    while True:
        running.check()
        passed = time.monotonic() - ris.began
        with running.services.reader() as uow:
            counted = uow.jobs.count([JobState.QUEUED])
        stat = sum(n for (_, priority), n in counted.items() if priority is Priority.STAT)
        queued = sum(counted.values())
        course.append({"hour": round(passed * options.compress / 3600, 2), "queued": queued, "stat": stat})
        done = ris.is_done and readers.is_done and not any(unfinished(running.services).values())
        done = done and not untold(running.services)
        if done or not samples or passed >= samples[-1].seconds + every(options.compress):
            samples.append(running.sample(passed))
        if done or passed >= said + _TELL_SECONDS:
            said = passed
            say(
                f"{day_of(passed, options.compress)}  orders {len(ris.sent)}/{options.studies}"
                f"  images {len(ris.imaged)}  queued {queued} (STAT {stat})  read {readers.read}"
                f"  infills {readers.infills}  results {len(running.told)}"
            )
        if done:
            return course, samples
        if passed > 86_400.0 / options.compress + _PATIENCE_SECONDS:
            raise TimeoutError(f"not at its end {_PATIENCE_SECONDS:g} s after the day; logs in {running.site.folder}")
        time.sleep(_LOOK_SECONDS)


def _found(options: Options, running: House, ris: Ris, readers: Readers, clocks: Clocks) -> dict[str, Any]:
    for sent in ris.sent:
        clocks.took("frame to ACK", sent.seconds)
        clocks.took("order sent late", sent.late)
    done, turns = records_of(running.services, ends_of(running.logs("work")))
    ordered = {f"ACC{sent.number}": sent.began for sent in ris.sent}
    imaged = {f"ACC{number}": moment for number, moment in ris.imaged.items()}
    results = results_of(running.services, running.told)
    outcome = examine(
        running.services,
        ris.acknowledged,
        edits=readers.edits,
        signing=readers.signing,
        received=running.results.payloads,
    )
    # A moment in the trail is the begin of a transaction: what it wrote is seen by others as much later as it took.
    margin = max(MARGIN_SECONDS, *(sent.seconds for sent in ris.sent))
    passed = passed_over(done, margin)
    return {
        "stages": stages_of(done, ordered, imaged, results, clocks.by_stage),
        "simulation": simulated(turns, options.workers),
        "outcome": asdict(outcome),
        "passed_over": passed,
        "passed_over_margin_seconds": round(margin, 2),
        "unanswered_frames": ris.unanswered,
        "holds": outcome.holds and not outcome.parked and not passed,
    }


def _worker(engine: str) -> tuple[str, ...]:
    if engine == "paced":
        return (sys.executable, "-m", "inlay_testkit.day.worker", str(os.getpid()))
    return ()


def _engine(options: Options) -> dict[str, Any]:
    workers = f"{options.workers} worker{'s' if options.workers > 1 else ''}"
    if options.engine == "demo":
        return {"name": "demo", "says": f"{workers} with the demonstration model on the CPU"}
    pace = options.pace
    says = (
        f"{workers} with the PACED engine: no model; {pace.draft:g} s per draft and {pace.infill:g} s per infill "
        f"in {pace.steps} steps"
    )
    return {"name": "paced", **asdict(pace), "workers": options.workers, "says": says}


def _day(options: Options, studies: Sequence[PlannedStudy]) -> dict[str, Any]:
    return {
        "studies": options.studies,
        "compress": options.compress,
        "seed": options.seed,
        "priorities": priorities_of(studies),
        "infills": sum(study.infills for study in studies),
        "readers": options.readers,
        "connections": options.connections,
        "postgresql_waits_for_its_disk": options.durable,
    }


def _say(line: str) -> None:
    print(f"load: {line}", file=sys.stderr, flush=True)


def _command(arguments: Sequence[str] | None) -> str:
    return shlex.join(["python", "-m", "inlay_testkit.load", *(sys.argv[1:] if arguments is None else arguments)])


def _parser() -> argparse.ArgumentParser:
    preset = Options()
    parser = argparse.ArgumentParser(
        prog="make load", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--studies", type=_whole, default=preset.studies, metavar="N", help=f"of the day ({preset.studies})")
    add("--compress", type=_above_zero, default=preset.compress, metavar="X", help=f"({preset.compress:g})")
    add("--seed", type=int, default=preset.seed, metavar="N", help="names the day; the same seed gives the same plan")
    add("--engine", choices=("paced", "demo"), default=preset.engine, help="paced: waits, and writes fixed sentences")
    add("--draft-seconds", type=_above_zero, default=preset.pace.draft, metavar="S", help="of the paced engine (0.1)")
    add("--infill-seconds", type=_above_zero, default=preset.pace.infill, metavar="S", help="likewise (0.06)")
    add("--workers", type=_whole, default=preset.workers, metavar="N", help=f"processes ({preset.workers})")
    add("--readers", type=_whole, default=preset.readers, metavar="N", help=f"radiologists ({preset.readers})")
    add("--connections", type=_whole, default=preset.connections, metavar="N", help="of the RIS (4)")
    add("--out", type=Path, metavar="FILE.json", help="keep the figures there, and the picture beside them as .svg")
    add("--json", action="store_true", help="print JSON")
    return parser


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


def _above_zero(text: str) -> float:
    number = float(text)
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError("expected a number above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
