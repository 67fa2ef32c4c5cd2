"""Fault drills on real processes: whether Inlay loses, doubles or overwrites anything, and how soon it is back.

Run as `python -m inlay_testkit.drill [--only NAME ...] [--runs N] [--orders N] [--json] [--keep FILE]`; ends with
status 1 where something that must hold did not. Needs PostgreSQL and Redis, some drills Orthanc, root or libfaketime.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inlay_testkit.bench_hl7 import machine
from inlay_testkit.drills.faults import DRILLS
from inlay_testkit.peers import PeerMissing

COUNTED = ("lost", "doubled", "overwritten", "unsigned_finals", "untold")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run drills one after the other and print their table."""
    options = _parser().parse_args(arguments)
    rows = [run(name, orders=options.orders, number=number) for number in range(options.runs) for name in options.only]
    report = {"command": _command(arguments), "machine": machine(), "drills": rows}
    if options.keep:
        options.keep.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1) if options.json else table(rows))
    return 0 if all(row["holds"] for row in rows) else 1


def run(name: str, *, orders: int, number: int = 0) -> dict[str, Any]:
    """One drill as a row: what it did, what was counted, how soon it was back. `number` seeds its random moments."""
    began = time.monotonic()
    row: dict[str, Any] = {"drill": name, "run": number + 1}
    with tempfile.TemporaryDirectory(prefix=f"inlay-drill-{name}-", ignore_cleanup_errors=True) as folder:
        try:
            result = DRILLS[name](Path(folder), orders, number)
        except (PeerMissing, TimeoutError, AssertionError, RuntimeError) as problem:
            row |= {"holds": False, "problem": f"{type(problem).__name__}: {problem}", "log": _tails(Path(folder))}
        else:
            row |= {"holds": result.outcome.holds, "harm": result.harm, **asdict(result.outcome)}
            row["recovery_seconds"] = result.recoveries
    print(f"{name}: {'holds' if row['holds'] else 'BROKEN'}", file=sys.stderr)
    return row | {"seconds": round(time.monotonic() - began, 1)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    head = ("drill", "run", "harm", "orders", *COUNTED, "chain", "recovery, s", "holds")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(map(str, _cells(row)))} |" for row in rows]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[object]:
    if "problem" in row:
        return [row["drill"], row["run"], row["problem"], *[""] * (len(COUNTED) + 3), "no"]
    counted = [row[name] for name in COUNTED]
    recovery = ", ".join(f"{seconds:.1f}" for seconds in row["recovery_seconds"]) or "-"
    chain = "verifies" if row["chain_verifies"] else "broken"
    head = [row["drill"], row["run"], row["harm"], row["acknowledged"]]
    return [*head, *counted, chain, recovery, "yes" if row["holds"] else "no"]


def _tails(folder: Path) -> dict[str, list[str]]:
    return {log.name: log.read_text(errors="replace").splitlines()[-12:] for log in sorted(folder.glob("*.log"))}


def _command(arguments: Sequence[str] | None) -> str:
    return shlex.join(["python", "-m", "inlay_testkit.drill", *(sys.argv[1:] if arguments is None else arguments)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(DRILLS), default=list(DRILLS), metavar="NAME")
    parser.add_argument("--runs", type=int, default=1, help="how often each")
    parser.add_argument("--orders", type=int, default=40, help="orders per drill")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--keep", type=Path, help="write the JSON into this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
