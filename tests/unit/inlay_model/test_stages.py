"""What the engine tells of the stages of a request."""

import time
from typing import Any

import numpy as np

from inlay_model import DraftRequest, Filled, GenerationSettings, Stage

IMAGE = np.eye(64, dtype=np.uint8)
SETTINGS = GenerationSettings(steps=3, seed=4)


def test_stages_are_told_in_their_order_with_their_steps(engine: Any) -> None:
    """A draft: prefix, denoising, perhaps a second look; their steps are those of the run, their seconds within it."""
    told: list[Stage] = []
    began = time.perf_counter()
    (answer,) = engine.batch([DraftRequest([IMAGE], settings=SETTINGS, on_stage=told.append)])
    seconds = time.perf_counter() - began
    assert isinstance(answer, Filled)
    assert [stage.name for stage in told] in (["prefix", "denoising"], ["prefix", "denoising", "second-look"])
    assert sum(stage.steps for stage in told) == answer.run.steps_taken > 0
    assert 0 < sum(stage.seconds for stage in told) <= seconds
