"""The load run's worker: `inlay work` with a model that takes a set time per draft and infill, whatever it is asked.

Run as `python -m inlay_testkit.day.worker PARENT`; the pace is in the environment (`Pace.to_env`). How well a model
writes, and whether a GPU keeps up, is measured elsewhere: this one says what the service around it does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from inlay_cli.parent import die_with_parent
from inlay_core.settings import Settings
from inlay_model import DraftRequest, Filled, InfillRequest
from inlay_testkit.engine import FakeModel


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of a draft and of an infill, in so many denoising steps of equal length."""

    draft: float
    infill: float
    steps: int = 16

    def to_env(self) -> dict[str, str]:
        """As the worker's process reads it."""
        return {"LOAD_DRAFT": str(self.draft), "LOAD_INFILL": str(self.infill), "LOAD_STEPS": str(self.steps)}

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """What `to_env` gave."""
        return cls(float(environ["LOAD_DRAFT"]), float(environ["LOAD_INFILL"]), int(environ["LOAD_STEPS"]))


class PacedModel(FakeModel):
    """Writes the same sentences as the fake model, at a set pace."""

    def __init__(self, pace: Pace) -> None:
        # As real models do, it stops before all the steps that it may take.
        super().__init__(steps=pace.steps, foreseen=2 * pace.steps, before_step=self._wait)
        self.name = "paced"
        self._pace = pace
        self._began = 0.0
        self._step_seconds = 0.0

    def _answer(self, request: DraftRequest | InfillRequest) -> Filled:
        seconds = self._pace.draft if isinstance(request, DraftRequest) else self._pace.infill
        self._began, self._step_seconds = time.monotonic(), seconds / self.steps
        self.asked.clear()
        return super()._answer(request)

    def _wait(self, step: int) -> None:
        # By the clock and not by the step: what telling a step takes is not added to the pace.
        time.sleep(max(0.0, self._began + step * self._step_seconds - time.monotonic()))


def main() -> int:
    """Work until told to end."""
    from inlay_worker.celery_app import run

    die_with_parent(int(sys.argv[1]))
    pace = Pace.from_env(os.environ)

    def load(_: Settings) -> PacedModel:
        print('{"event": "model.loaded"}', flush=True)
        return PacedModel(pace)

    return run(Settings.from_env(os.environ), load)


if __name__ == "__main__":
    sys.exit(main())
