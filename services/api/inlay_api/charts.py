"""Charts as numbers for SVG templates: where bars and points stand. No script, and no library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 200
LEFT: Final = 56
_BOTTOM: Final = 28
_TOP: Final = 10
_INNER: Final = HEIGHT - _TOP - _BOTTOM


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle, the class that colours it, and the words that stand for it."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Line:
    """The points of one series as SVG writes them, its class, its name, and each point with its words."""

    points: str
    kind: str
    name: str
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """What a template draws. `ticks` are (y, text) of the left side, `labels` (x, text) below."""

    title: str
    ticks: tuple[tuple[float, str], ...]
    labels: tuple[tuple[float, str], ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


def shares(title: str, columns: Sequence[tuple[str, Mapping[str, float]]]) -> Chart:
    """Stacked columns from 0 to 100 %: per column its label and the share of each kind."""
    bars: list[Bar] = []
    slot = _slot(columns)
    for number, (label, parts) in enumerate(columns):
        top = float(HEIGHT - _BOTTOM)
        for kind, share in parts.items():
            height = share * _INNER
            top -= height
            words = f"{label}: {kind} {share:.0%}"
            bars.append(
                Bar(round(LEFT + number * slot + slot * 0.15, 1), round(top, 1), *_size(slot, height), kind, words)
            )
    ticks = tuple((_height_of(value, 1.0), f"{value:.0%}") for value in (0.0, 0.5, 1.0))
    kinds = tuple(dict.fromkeys(kind for _, parts in columns for kind in parts))
    labels = _labels([label for label, _ in columns], slot)
    return Chart(title, ticks, labels, tuple(bars), legend=tuple((kind, kind) for kind in kinds))


def courses(title: str, steps: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> Chart:
    """Lines over the same steps; a missing value is a gap in its line's dots, and is not invented."""
    highest = max((value for values in series.values() for value in values if value is not None), default=0.0) or 1.0
    slot = _slot(steps)
    lines: list[Line] = []
    for number, (name, values) in enumerate(series.items()):
        dots = tuple(
            (
                round(LEFT + (place + 0.5) * slot, 1),
                _height_of(value, highest),
                f"{steps[place]}: {name} {value:g}",
            )
            for place, value in enumerate(values)
            if value is not None
        )
        points = " ".join(f"{x},{y}" for x, y, _ in dots)
        lines.append(Line(points, f"series-{number}", name, dots))
    ticks = tuple((_height_of(value, highest), f"{value:.3g}") for value in (0.0, highest / 2, highest))
    legend = tuple((line.kind, line.name) for line in lines)
    return Chart(title, ticks, _labels(steps, slot), lines=tuple(lines), legend=legend)


def _slot(columns: Sequence[object]) -> float:
    return (WIDTH - LEFT) / max(1, len(columns))


def _size(slot: float, height: float) -> tuple[float, float]:
    return round(slot * 0.7, 1), round(height, 1)


def _height_of(value: float, highest: float) -> float:
    return round(HEIGHT - _BOTTOM - value / highest * _INNER, 1)


def _labels(texts: Sequence[str], slot: float) -> tuple[tuple[float, str], ...]:
    """As many labels as there is room for."""
    every = max(1, -(-len(texts) * 80 // (WIDTH - LEFT)))
    return tuple((round(LEFT + (n + 0.5) * slot, 1), text) for n, text in enumerate(texts) if n % every == 0)
