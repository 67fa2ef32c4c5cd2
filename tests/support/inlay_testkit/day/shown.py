"""A load run for people: its tables as Markdown, its stages and its queue as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inlay_testkit.drills.outcome import COUNTED

_COLOURS = {"p50": "#0072B2", "p95": "#E69F00", "p99": "#D55E00"}


def table(report: Mapping[str, Any]) -> str:
    """Everything that was found."""
    return "\n\n".join((_head(report), _stages(report["stages"]), _simulation(report["simulation"]), _verdict(report)))


def _head(report: Mapping[str, Any]) -> str:
    day, engine = report["day"], report["engine"]
    return (
        f"{day['studies']} studies ({', '.join(f'{n} {name}' for name, n in day['priorities'].items())}) and "
        f"{day['infills']} infills in {report['seconds']:.0f} s: a day {day['compress']:g} times as fast, "
        f"seed {day['seed']}.\n"
        f"Engine: {engine['says']}\nMachine: {report['machine']}; load before the run {report['load_before']}."
    )


def _stages(stages: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (name, str(row["count"]), *(_seconds(row[column]) for column in ("p50", "p95", "p99", "max")))
        for name, row in stages.items()
    ]
    return _markdown(("stage", "count", "p50, s", "p95, s", "p99, s", "most, s"), rows)


def _simulation(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (row["priority"], row["figure"], *(f"{row[name]:.3f}" for name in ("measured", "simulated", "deviation")))
        for row in rows
    ]
    return _markdown(("waits of", "figure", "measured, s", "simulated, s", "deviation, s"), cells)


def _verdict(report: Mapping[str, Any]) -> str:
    counted, cpu = report["outcome"], report["cpu_seconds"]
    wrong = ", ".join(f"{name} {counted[name]}" for name in COUNTED)
    used = ", ".join(f"{name} {seconds:.0f}" for name, seconds in cpu.items())
    return (
        f"Counted afterwards: {wrong}; the chain {'verifies' if counted['chain_verifies'] else 'IS BROKEN'}; "
        f"more urgent work passed over {report['passed_over']} times.\nCPU seconds: {used}."
    )


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(report: Mapping[str, Any], file: Path) -> None:
    """The picture, as SVG or PNG by the file's name; the same figures give the same SVG. Needs matplotlib."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 9.0), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, height_ratios=(3, 1))
    names = list(report["stages"])
    for row, name in enumerate(reversed(names)):
        found = report["stages"][name]
        above.plot(
            [max(found["p50"], 1e-3), max(found["p99"], 1e-3)], [row, row], color="#999999", linewidth=1, zorder=1
        )
        for share, colour in _COLOURS.items():
            first = share if row == 0 else None
            above.scatter(max(found[share], 1e-3), row, color=colour, s=28, zorder=2, label=first)
    above.set_yticks(range(len(names)), list(reversed(names)))
    above.set_xscale("log")
    above.set_xlabel("seconds")
    above.grid(axis="x", linewidth=0.5, alpha=0.5)
    above.legend(frameon=False, loc="lower right")
    day = report["day"]
    above.set_title(
        f"{day['studies']} studies, a day {day['compress']:g} times as fast; engine: {report['engine']['name']}",
        fontsize="medium",
    )
    hours = [moment["hour"] for moment in report["course"]]
    below.plot(hours, [moment["queued"] for moment in report["course"]], color="#0072B2", linewidth=1, label="queued")
    below.plot(
        hours, [moment["stat"] for moment in report["course"]], color="#D55E00", linewidth=1, label="of these STAT"
    )
    below.set_xlabel("hour of the simulated day")
    below.set_ylabel("jobs")
    below.grid(linewidth=0.5, alpha=0.5)
    below.legend(frameon=False)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "inlay"}):
        figure.savefig(file, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)
