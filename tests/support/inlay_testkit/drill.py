"""Fault drills on real processes: whether Inlay loses, doubles or overwrites anything, and how soon it is back.

Run as `python -m inlay_testkit.drill [--only NAME ...] [--runs N] [--orders N] [--json] [--keep FILE]`; ends with
status 1 where something that must hold did not. Needs PostgreSQL and Redis, some drills Orthanc, root or libfaketime;
what this machine does not permit is told as skipped.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from inlay_testkit.bench_hl7 import machine
from inlay_testkit.drills.faults import DRILLS
from inlay_testkit.drills.outcome import COUNTED
from inlay_testkit.drills.skipped import Skipped
from inlay_testkit.peers import PeerMissing


def main(arguments: Sequence[str] | None = None) -> int:
    """Run drills one after the other and print what came of each; `--keep` writes after each."""
    options = _parser().parse_args(arguments)
    rows: list[dict[str, Any]] = []
    report = {"command": _command(arguments), "machine": machine(), "summary": rows, "drills": rows}
    for row in _rows(options):
        rows.append(row)
        report["summary"] = summary(rows)
        if options.keep:
            options.keep.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
            options.keep.with_suffix(".md").write_text(page(report))
    print(json.dumps(report, indent=1) if options.json else table(rows))
    return 0 if all(row["holds"] or "skipped" in row for row in rows) else 1


def _rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for number in range(options.runs):
        for name in options.only:
            yield run(name, orders=options.orders, number=number)


def run(name: str, *, orders: int, number: int = 0) -> dict[str, Any]:
    """One drill as a row: what it did, what was counted, how soon it was back. `number` seeds its random moments."""
    began = time.monotonic()
    row: dict[str, Any] = {"drill": name, "run": number + 1}
    with tempfile.TemporaryDirectory(prefix=f"inlay-drill-{name}-", ignore_cleanup_errors=True) as folder:
        try:
            result = DRILLS[name](Path(folder), orders, number)
        except Skipped as skipped:
            row |= {"holds": False, "skipped": str(skipped)}
        except (PeerMissing, TimeoutError, AssertionError, RuntimeError) as problem:
            row |= {"holds": False, "problem": f"{type(problem).__name__}: {problem}", "log": _tails(Path(folder))}
        else:
            row |= {"holds": result.outcome.holds, "harm": result.harm, **asdict(result.outcome)}
            row["recovery_seconds"] = result.recoveries
    told = f"skipped: {row['skipped']}" if "skipped" in row else "holds" if row["holds"] else "BROKEN"
    print(f"{name}: {told}", file=sys.stderr)
    return row | {"seconds": round(time.monotonic() - began, 1)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    head = ("drill", "run", "harm", "orders", *COUNTED, "chain", "recovery, s", "holds")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(map(str, _cells(row)))} |" for row in rows]
    return "\n".join(lines)


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All runs of each drill as one row: how many held, the counts of all of them together, and the recovery times."""
    names = dict.fromkeys(row["drill"] for row in rows)
    return [_together(name, [row for row in rows if row["drill"] == name]) for name in names]


def _together(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ended = [row for row in rows if "lost" in row]
    recoveries = [seconds for row in ended for seconds in row["recovery_seconds"]]
    return {
        "drill": name,
        "runs": len(rows),
        "held": sum(row["holds"] for row in rows),
        "skipped": sum("skipped" in row for row in rows),
        "orders": sum(row["acknowledged"] for row in ended),
        "edits": sum(row["edits"] for row in ended),
        **{count: sum(row[count] for row in ended) for count in COUNTED},
        "chains_broken": sum(not row["chain_verifies"] for row in ended),
        "recovery_median": round(median(recoveries), 1) if recoveries else None,
        "recovery_max": round(max(recoveries), 1) if recoveries else None,
    }


def page(report: dict[str, Any]) -> str:
    """The summary as a page of Markdown, and below it whatever did not hold."""
    rows = report["summary"]
    lines = ["# Fault drills", "", f"`{report['command']}`", "", f"{report['machine']}.", ""]
    lines += [f"| {' | '.join(key.replace('_', ' ') for key in rows[0])} |", "|---" * len(rows[0]) + "|"]
    lines += [f"| {' | '.join('-' if cell is None else str(cell) for cell in row.values())} |" for row in rows]
    bad = [row for row in report["drills"] if not row["holds"]]
    lines += ["", "All of these held." if not bad else "What did not hold:", ""]
    lines += [f"- {row['drill']}, run {row['run']}: {_why(row)}" for row in bad]
    lines += ["", "Recovery is in seconds; [what is counted, and how](../howto/drills.md)."]
    return "\n".join(lines) + "\n"


def _why(row: dict[str, Any]) -> str:
    if "skipped" in row:
        return f"skipped: {row['skipped']}"
    return row.get("problem") or ", ".join(f"{count} {row[count]}" for count in COUNTED if row[count]) or "the chain"


def _cells(row: dict[str, Any]) -> list[object]:
    if "lost" not in row:
        return [row["drill"], row["run"], _why(row), *[""] * (len(COUNTED) + 3), "-" if "skipped" in row else "no"]
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
    parser.add_argument("--keep", type=Path, help="write what came of it into this file and its neighbour: .json, .md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
