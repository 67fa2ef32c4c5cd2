import json
from pathlib import Path

import numpy as np
import pytest

from inlay_model import BadRequest
from inlay_model.__main__ import main
from inlay_model.accelerator.random_checkpoint import shape_config, write_checkpoint
from inlay_model.accelerator.random_weights import without_storage
from inlay_model.engine import Engine
from inlay_model.loading import load
from inlay_model.request import Gap, GenerationSettings, Lock, Section


def test_a_random_checkpoint_loads_like_any_other(tmp_path: Path) -> None:
    """What `inlay model random` wrote is loaded, accelerated, asked, keeps locks, and is for phantoms only.

    What it writes stands: every step asked for is taken once, and the second look doubts nothing.
    """
    folder = tmp_path / "toy"
    assert main(["random", "--shape", "toy", "--out", str(folder), "--device", "cpu"]) == 0
    checkpoint = load(folder, device="cpu", accelerate=True)
    assert checkpoint.about.demonstration
    assert checkpoint.about.name == "random-toy"
    assert checkpoint.control.image == checkpoint.model.config.image_token_id
    assert len(checkpoint.tokenizer) == checkpoint.vocabulary  # type: ignore[arg-type]
    sections = [Section("findings", (Lock("The heart is normal. "), Gap(9, 9), Lock(" No pneumothorax.")))]
    filled = Engine(checkpoint).infill([np.eye(384, dtype=np.uint8)], sections, settings=GenerationSettings(steps=8))
    assert [piece.text for piece in filled.sections[0].pieces] == [
        "The heart is normal. ",
        ".........",
        " No pneumothorax.",
    ]
    assert (filled.run.steps_taken, filled.run.second_looks, filled.run.doubted) == (8, 1, 0)


def test_a_folder_is_used_again_or_refused(tmp_path: Path) -> None:
    """The same shape and seed are left as they are; anything else in the folder is neither used nor touched."""
    folder = tmp_path / "toy"
    assert write_checkpoint("toy", folder, "cpu")
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert not write_checkpoint("toy", folder, "cpu")
    with pytest.raises(BadRequest, match="something else"):
        write_checkpoint("toy", folder, "cpu", seed=1)
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert json.loads((folder / "inlay.json").read_text())["random_weights"] == {
        "shape": "toy",
        "seed": 0,
        "writes": ".",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_the_26b_shape_is_the_public_one() -> None:
    """25.25 thousand million parameters and a vision tower of 0.57, a canvas of 256 and 262,144 words."""
    config = shape_config("26b")
    model = without_storage(config)
    vision = sum(weight.numel() for weight in model.model.encoder.vision_tower.parameters())
    whole = sum(weight.numel() for weight in model.parameters())
    assert round((whole - vision) / 1e9, 2) == pytest.approx(25.25, abs=0.03)
    assert round(vision / 1e9, 2) == 0.57
    assert config.canvas_length == 256
    assert config.text_config.vocab_size == 262_144
