"""What a run tells while it goes: a bar with throughput and time left, a log of JSON lines, TensorBoard events."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from inlay_model.errors import BadRecipe


class RunLog:
    """The log of one run, in its folder: `log.jsonl`, on request `events/` for TensorBoard, and the terminal.

    On a terminal there is a bar on standard error; elsewhere each logged line is printed to standard output.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "log.jsonl"
        self._events: Any = _event_writer(folder / "events") if tensorboard else None
        self._quiet = not sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()

    def begin(self, phase: str, done: int, steps: int, batch: int) -> Pace:
        """A phase begins, or goes on after `done` of its steps."""
        self._bar = tqdm(
            desc=phase, initial=done, total=steps, unit="step", dynamic_ncols=True, disable=self._quiet, leave=True
        )
        return Pace(done, batch)

    def step(self) -> None:
        """One step more has been made."""
        self._bar.update()

    def shorten(self, steps: int) -> None:
        """The phase was given another number of steps."""
        self._bar.total = steps

    def end(self) -> None:
        """The phase is over."""
        self._bar.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Keep one line: numbers become TensorBoard scalars under the phase's name, at its step."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._quiet:
            print(json.dumps(line), flush=True)
        elif self._bar is not None:
            shown = {name: line[name] for name in ("loss", "images/s") if name in line}
            self._bar.set_postfix(shown, refresh=False)
        if self._events is not None and "step" in line:
            for name, value in line.items():
                if name not in {"phase", "step", "of"} and isinstance(value, (int, float)):
                    self._events.add_scalar(f"{line['phase']}/{name}", value, line["step"])


class Pace:
    """How fast a phase goes since it began or went on."""

    def __init__(self, first: int, batch: int) -> None:
        self._first, self._batch = first, batch
        self._began = time.monotonic()

    def at(self, done: int, steps: int) -> dict[str, int]:
        """Throughput and seconds left after `done` of `steps` steps."""
        per_step = (time.monotonic() - self._began) / max(1, done - self._first)
        return {"images/s": round(self._batch / per_step), "eta s": round(per_step * (steps - done))}


def _event_writer(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as problem:
        raise BadRecipe("TensorBoard logs need tensorboardX: pip install 'inlay[train]'.") from problem
    return SummaryWriter(str(folder), flush_secs=30)
