"""The drill's worker: `inlay work` with a model that answers at once, is slow, or fails as the drill wants it.

Run as `python -m inlay_testkit.drills.worker PARENT`. DRILL_STEP_SECONDS: how long each of two steps takes.
DRILL_OUT_OF_MEMORY: how many jobs find the device's memory full. An image of `POISON_WIDTH` ends the process.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import Any

from inlay_cli.parent import die_with_parent
from inlay_core.settings import Settings
from inlay_model import Filled
from inlay_testkit.drills.ris import POISON_WIDTH
from inlay_testkit.engine import FakeModel


class OutOfMemoryError(RuntimeError):
    """What torch raises on a full GPU, by its name."""


class FaultyModel(FakeModel):
    """The fake model with the faults that the environment names."""

    def __init__(self) -> None:
        seconds = float(os.environ.get("DRILL_STEP_SECONDS", "0.02"))
        super().__init__(before_step=lambda _: _rest(seconds))
        self._failures = int(os.environ.get("DRILL_OUT_OF_MEMORY", "0"))

    def draft(self, images: Any, **options: Any) -> Filled:
        """A draft, unless a fault is due."""
        if any(POISON_WIDTH in _size(image) for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._failures:
            self._failures -= 1
            raise OutOfMemoryError
        return super().draft(images, **options)


def _rest(seconds: float) -> None:
    """Not time.sleep: that sleeps until a moment, which libfaketime takes for one of another clock and refuses."""
    select.select((), (), (), seconds)


def _size(image: Any) -> tuple[int, ...]:
    pixels = getattr(image, "pixels", image)
    return tuple(getattr(pixels, "shape", None) or pixels.size)


def main() -> int:
    """Work until told to end."""
    from inlay_worker.celery_app import run

    die_with_parent(int(sys.argv[1]))

    def load(_: Settings) -> FakeModel:
        print('{"event": "model.loaded"}', flush=True)
        return FaultyModel()

    return run(Settings.from_env(os.environ), load)


if __name__ == "__main__":
    sys.exit(main())
