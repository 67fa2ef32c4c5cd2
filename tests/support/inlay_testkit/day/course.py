"""The course of a day: how the queue stood, what each process held, and whether that grew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from inlay_testkit.day.holding import Held
from inlay_testkit.day.plan import length

# Enough for a line in a picture, however long the day is.
MOMENTS = 720
_SAMPLES = 120
_EVERY_SECONDS = (1.0, 30.0)
# What was loaded by then is not growth.
_WARM_UP = 0.1
_MIDDLE = (1 / 3, 2 / 3)
_GROWTH_FROM = 0.25


@dataclass(frozen=True, slots=True)
class Sample:
    """What was held at a moment: seconds from the begin, by process, and connections to PostgreSQL."""

    seconds: float
    held: Mapping[str, Held]
    connections: int


def every(compress: float) -> float:
    """Seconds between two samples: a look into every process costs CPU that the day wants."""
    least, most = _EVERY_SECONDS
    return min(most, max(least, length(compress) / _SAMPLES))


def thinned(course: Sequence[Mapping[str, Any]], most: int = MOMENTS) -> list[Mapping[str, Any]]:
    """At most so many moments: of those that follow each other the one with the longest queue."""
    size = -(-len(course) // most) or 1
    parts = (course[start : start + size] for start in range(0, len(course), size))
    return [max(part, key=lambda moment: moment["queued"]) for part in parts]


def told(samples: Sequence[Sample], compress: float) -> dict[str, Any]:
    """What came of the samples, as it is kept; growth is per hour by the clock, not of the day."""
    seconds = [sample.seconds for sample in samples]
    names = [name for name in samples[0].held if all(name in sample.held for sample in samples)]

    def of(name: str) -> dict[str, Any]:
        held = [sample.held[name] for sample in samples]
        return {
            "pss_mb": _told(seconds, [each.pss for each in held]),
            "heap_mb": _told(seconds, [each.heap for each in held]),
            "files": _told(seconds, [each.files for each in held]),
            "processes": _told(seconds, [each.processes for each in held]),
        }

    return {
        "hour": [round(moment * compress / 3600.0, 2) for moment in seconds],
        "connections": _told(seconds, [sample.connections for sample in samples]),
        "processes": {name: of(name) for name in names},
    }


def _told(seconds: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    end = seconds[-1]
    # The last sample of the warm-up, the first of all where it was shorter than the time between two.
    warm = next((value for at, value in zip(seconds[::-1], values[::-1], strict=True) if at <= _WARM_UP * end))
    middle = [
        value for at, value in zip(seconds, values, strict=True) if _MIDDLE[0] * end <= at <= _MIDDLE[1] * end
    ] or [warm]
    later = [(at / 3600.0, value) for at, value in zip(seconds, values, strict=True) if at >= _GROWTH_FROM * end]
    return {
        "warm": round(warm, 1),
        "middle": round(median(middle), 1),
        "end": round(values[-1], 1),
        "growth_per_hour": round(slope(later), 2),
        "course": [round(value, 1) for value in values],
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's: the median of the slopes between all pairs, which outliers do not move; 0 without a pair."""
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] != a[0]]
    return median(slopes) if slopes else 0.0
