"""Plots of the figures, as SVG or PNG by the file's name. They need matplotlib: `pip install inlay[plots]`.

Every plot shows its 95 % intervals, and shares begin at zero.
"""

import importlib.util
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay_model.calibration import Bin
from inlay_model.errors import ModelError
from inlay_model.evaluation.statistics import wilson

SUFFIXES = (".svg", ".png")
# Distinguishable without colour vision (Okabe and Ito).
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


class NoPlot(ModelError):
    """A plot was asked for and cannot be drawn here; the message says what is missing."""

    code = "no-plot"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: the group that it stands in, its series, its value, and the ends of its interval."""

    group: str
    series: str
    value: float
    low: float
    high: float


def check(file: Path) -> None:
    """Raise `NoPlot` before the work where the plot could not be drawn after it."""
    if file.suffix.lower() not in SUFFIXES:
        raise NoPlot(f"A plot is written as {' or '.join(SUFFIXES)}, not as {file.suffix or 'a file without an end'}.")
    if importlib.util.find_spec("matplotlib") is None:
        raise NoPlot("Plots need matplotlib, which is not installed: pip install 'inlay[plots]'.")


def draw(bars: Sequence[Bar], file: Path, *, title: str, unit: str, share: bool) -> None:
    """Draw grouped bars with their intervals. The same figures give the same SVG."""
    check(file)
    groups = list(dict.fromkeys(bar.group for bar in bars))
    series = list(dict.fromkeys(bar.series for bar in bars))
    figure, axes = _figure(max(5.0, 1.1 * len(groups) * max(1, len(series) / 2)), 4.2)
    width = 0.8 / len(series)
    for bar in bars:
        at = groups.index(bar.group) + (series.index(bar.series) - (len(series) - 1) / 2) * width
        errors = [[max(0.0, bar.value - bar.low)], [max(0.0, bar.high - bar.value)]]
        colour = _COLOURS[series.index(bar.series) % len(_COLOURS)]
        # Only the first bar of a series carries its name, so that the legend has it once.
        first = next(other for other in bars if other.series == bar.series) is bar
        axes.bar(
            at, bar.value, width, yerr=errors, color=colour, capsize=3, label=bar.series if first else None, zorder=2
        )
    axes.set_xticks(range(len(groups)), [_wrapped(group) for group in groups])
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize="medium")
    # Gains may be losses; everything else begins at zero.
    axes.set_ylim(bottom=0 if min(bar.low for bar in bars) >= 0 else None, top=1.02 if share else None)
    axes.grid(axis="y", linewidth=0.5, alpha=0.5, zorder=0)
    if len(series) > 1:
        axes.legend(frameon=False)
    _save(figure, file)


def draw_reliability(bins: Sequence[Bin], file: Path, *, title: str) -> None:
    """Draw what was said against what was right, with Wilson's 95 % intervals, beside the line of perfect agreement."""
    figure, axes = _figure(4.6, 4.6)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", zorder=1)
    spans = [wilson(one.right, one.n) for one in bins]
    low = [max(0.0, one.right - span[0]) for one, span in zip(bins, spans, strict=True)]
    high = [max(0.0, span[1] - one.right) for one, span in zip(bins, spans, strict=True)]
    said, right = [one.said for one in bins], [one.right for one in bins]
    axes.errorbar(said, right, yerr=[low, high], color=_COLOURS[0], marker="o", capsize=3, zorder=2)
    for one in bins:
        axes.annotate(f"n = {one.n}", (one.said, one.right), xytext=(6, -12), textcoords="offset points", fontsize=8)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability said", ylabel="share that was right")
    axes.set_title(title, fontsize="medium")
    axes.grid(linewidth=0.5, alpha=0.5, zorder=0)
    _save(figure, file)


def phantom_bars(rows: Sequence[tuple[str, float, tuple[float, float] | None]]) -> list[Bar]:
    """The rows of the phantom suite's table; means have no interval."""
    return [Bar(title, "share", value, *(span or (value, value))) for title, value, span in rows]


def infill_bars(figures: Mapping[str, Any]) -> list[Bar]:
    """The gains of the infill suite by the right-hand side, with their interaction, per measure."""
    names = {"token_f1": "token-F1", "judged": "judged right"}
    found: list[Bar] = []
    for measure, series in names.items():
        effects = figures.get(measure, {})
        models = [name for name in ("diffusion", "autoregressive") if name in effects]
        found += [_gain(model, series, effects[model]["gain"]) for model in models]
        if "interaction" in effects:
            found.append(_gain("interaction", series, effects["interaction"]))
    return found


def vqa_bars(figures: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    """The accuracy of every candidate on every set."""
    return [
        Bar(title, name, row["all"]["accuracy"], *row["all"]["wilson_95"])
        for title, found in figures.items()
        for name, row in found["candidates"].items()
    ]


def speed_bars(figures: Mapping[str, Any]) -> list[Bar]:
    """How many times as fast as the model compared with each one is."""
    return [Bar(title, "speed", row["faster"], *row["faster_95"]) for title, row in figures["models"].items()]


def _gain(group: str, series: str, found: Mapping[str, float]) -> Bar:
    return Bar(group, series, found["mean"], found["bootstrap_low"], found["bootstrap_high"])


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of these inches, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Any, file: Path) -> None:
    import matplotlib as mpl

    # Text stays text, and nothing in the file says when it was drawn.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "inlay"}):
        figure.savefig(file, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 16))
