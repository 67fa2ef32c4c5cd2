"""The file of a benchmark: read at start, written whole after every measurement, so a broken run loses nothing.

Figures are medians; beside each stand the fastest, the slowest and the number of rounds. What failed is recorded with
its error in place of a figure.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

# Which figure is compared with which: name, slower side, faster side.
RATIOS = (
    ("draft16_over_transformers_compiled", ("transformers_compiled", "draft16_s"), ("ours", "draft16_s")),
    ("draft16_over_transformers_eager", ("transformers_eager", "draft16_s"), ("ours", "draft16_s")),
    ("draft48_over_transformers_compiled", ("transformers_compiled", "draft48_s"), ("ours", "draft48_s")),
    ("draft16_over_sibling_compiled", ("sibling_compiled", "tokens256_s"), ("ours", "draft16_s")),
    ("draft16_over_sibling_eager", ("sibling_eager", "tokens256_s"), ("ours", "draft16_s")),
    ("step_over_floor", ("ours", "step_ms"), ("", "floor_step_ms")),
    ("step_fp8_over_floor", ("ours", "step_fp8_ms"), ("", "floor_step_fp8_ms")),
)

# What must be the same in parts of one record.
_SAME = ("suite", "machine", "versions", "shape")


class Record:
    """The figures measured so far, in a file."""

    def __init__(self, file: Path, about: dict[str, Any]) -> None:
        self._file = file
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        self.figures: dict[str, Any] = {**kept, **about}
        self._write()

    def put(self, group: str, name: str, value: Any) -> None:
        """Keep a figure (or a table) under a group; the group "" is the top."""
        place = self.figures if not group else self.figures.setdefault(group, {})
        place[name] = value
        self.figures.get("errors", {}).pop(f"{group}.{name}", None)
        print(f"{time.strftime('%H:%M:%S')}  {group}.{name} = {value}", flush=True)
        self._write()

    def measure(self, group: str, name: str, rounds: Sequence[float], digits: int = 4) -> None:
        """Keep the median of these rounds, and their spread."""
        self.figures.setdefault("spread", {})[f"{group}.{name}"] = {
            "low": round(min(rounds), digits),
            "high": round(max(rounds), digits),
            "rounds": len(rounds),
        }
        self.put(group, name, round(statistics.median(rounds), digits))

    def attempt(self, group: str, name: str, work: Callable[[], None]) -> bool:
        """Do the work; where it fails, keep the error under this name and go on. Returns whether it was done."""
        try:
            work()
        except Exception as problem:  # noqa: BLE001 - one figure that fails must not cost the others
            self.figures.setdefault("errors", {})[f"{group}.{name}"] = f"{type(problem).__name__}: {problem}"[:600]
            print(f"{time.strftime('%H:%M:%S')}  {group}.{name} FAILED: {problem!r}"[:800], flush=True)
            problem.__traceback__ = None
            self._write()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return False
        return True

    def _write(self) -> None:
        self.figures["ratios"] = ratios(self.figures)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".part")
        fresh.write_text(json.dumps(self.figures, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self._file)


def merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record of several that were measured in parts, later ones replacing what earlier ones have by the same name.

    Raises `ValueError` naming what differs where they are not of the same suite, kind of machine, versions and shape:
    figures of two kinds are no comparison.
    """
    first, *others = parts
    for what in _SAME:
        if any(other.get(what) != first.get(what) for other in others):
            raise ValueError(f"The parts differ in {what}: they are no parts of one record.")
    whole: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, dict) and name not in _SAME:
                whole[name] = {**whole.get(name, {}), **value}
            else:
                whole[name] = value
        measured = {f"{group}.{name}" for group, said in part.items() if isinstance(said, dict) for name in said}
        failed = part.get("errors", {})
        whole["errors"] = {
            name: error for name, error in whole.get("errors", {}).items() if name in failed or name not in measured
        }
    whole["date"] = max(str(part.get("date", "")) for part in parts)
    whole["ratios"] = ratios(whole)
    return whole


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """The ratios for which both sides were measured."""

    def value(place: tuple[str, str]) -> float | None:
        group, name = place
        found = (figures.get(group, {}) if group else figures).get(name)
        return float(found) if isinstance(found, int | float) and found else None

    pairs = {name: (value(slow), value(fast)) for name, slow, fast in RATIOS}
    return {name: round(slow / fast, 3) for name, (slow, fast) in pairs.items() if slow and fast}


def timed(work: Callable[[], Any], rounds: int, warm: int = 1) -> list[float]:
    """Seconds of each round, the device waited for, after some that are not counted."""
    found = []
    for number in range(warm + rounds):
        _wait()
        began = time.perf_counter()
        work()
        _wait()
        if number >= warm:
            found.append(time.perf_counter() - began)
    return found


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
