"""A load run for people: its tables as Markdown, its stages and its queue as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inlay_testkit.drills.outcome import COUNTED

_WHEN = ("warm", "middle", "end")
# Okabe and Ito's, which people who see colours differently can tell apart.
_LINES = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#999999")
_COLOURS = {"p50": "#0072B2", "p95": "#E69F00", "p99": "#D55E00"}


def table(report: Mapping[str, Any]) -> str:
    """Everything that was found."""
    parts = (_head(report), _stages(report["stages"]), _simulation(report["simulation"]), _holding(report["holding"]))
    return "\n\n".join((*parts, _verdict(report)))


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


def _holding(holding: Mapping[str, Any]) -> str:
    rows = [
        (
            name,
            *(f"{row['pss_mb'][when]:.1f}" for when in _WHEN),
            f"{row['heap_mb']['growth_per_hour']:+.2f}",
            *(f"{row['files'][when]:g}" for when in _WHEN),
        )
        for name, row in holding["processes"].items()
    ]
    head = ("held by", "MB after the warm-up", "middle", "end", "heap, MB per hour", "files then", "middle", "end")
    connections = ", ".join(f"{holding['connections'][when]:g}" for when in _WHEN)
    return f"{_markdown(head, rows)}\n\nConnections to PostgreSQL at these times: {connections}."


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

    figure = Figure(figsize=(9.0, 12.0), layout="constrained")
    FigureCanvasAgg(figure)
    above, below, held = figure.subplots(3, 1, height_ratios=(3, 1, 1.5))
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
    below.set_ylabel("jobs")
    holding = report["holding"]
    for number, (name, row) in enumerate(holding["processes"].items()):
        colour = _LINES[number % len(_LINES)]
        held.plot(holding["hour"], row["pss_mb"]["course"], color=colour, linewidth=1, label=name)
    held.set_ylim(bottom=0.0)
    held.set_ylabel("memory (PSS), MB")
    held.set_xlabel("hour of the simulated day")
    held.sharex(below)
    for each in (below, held):
        each.grid(linewidth=0.5, alpha=0.5)
        each.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "inlay"}):
        figure.savefig(file, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)
