import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from inlay_model import CheckpointProblem, Engine, UnpinnedRevision
from inlay_model.__main__ import main
from inlay_model.loading import make_image_processor, soft_tokens
from inlay_model.prefix import Prefix, Prefixes, encoder_masks
from inlay_model.provenance import digest_of_folder


def test_a_hub_id_needs_a_commit_hash() -> None:
    """A name without a commit, or with a branch, is refused before any network is touched."""
    for revision in (None, "main", "v1.0"):
        with pytest.raises(UnpinnedRevision):
            Engine.load("google/diffusiongemma-26B-A4B-it", revision=revision)


def test_unfit_folders_are_named_errors(tmp_path: Path, checkpoint_folder: Path) -> None:
    """A missing folder, a missing file, another model type and broken JSON each say what is wrong."""
    with pytest.raises(CheckpointProblem, match="no checkpoint folder"):
        Engine.load(tmp_path / "nowhere")
    copy = Path(shutil.copytree(checkpoint_folder, tmp_path / "copy"))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointProblem, match=r"no tokenizer\.json"):
        Engine.load(copy)
    (copy / "config.json").write_text(json.dumps({"model_type": "gemma4"}))
    shutil.copy(checkpoint_folder / "tokenizer.json", copy)
    with pytest.raises(CheckpointProblem, match="gemma4"):
        Engine.load(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointProblem, match="JSON"):
        Engine.load(copy)


def test_the_digest_follows_every_file(tmp_path: Path, checkpoint_folder: Path) -> None:
    """Changing one byte of one file, or adding a file, changes the digest; a copy has the same one."""
    copy = Path(shutil.copytree(checkpoint_folder, tmp_path / "copy"))
    first = digest_of_folder(copy)
    assert first == digest_of_folder(checkpoint_folder)
    about = copy / "inlay.json"
    about.write_text(about.read_text().replace("tiny", "tinY"))
    second = digest_of_folder(copy)
    (copy / "extra.txt").write_text("x")
    assert len({first, second, digest_of_folder(copy)}) == 3


def test_the_digest_of_a_folder_can_be_asked_for(
    checkpoint_folder: Path, engine: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`inlay model digest` prints what run records have; a folder that is not there is a named error."""
    assert main(["digest", str(checkpoint_folder)]) == 0
    assert capsys.readouterr().out == f"{checkpoint_folder} {engine.digest}\n"
    assert main(["digest", str(tmp_path / "nowhere")]) == 2
    assert "[checkpoint-problem]" in capsys.readouterr().err


def test_what_a_checkpoint_says_of_itself_is_read(checkpoint_folder: Path, tmp_path: Path, engine: Any) -> None:
    """inlay.json gives name, styles and whether it is the demonstration; without it locks go to the prompt."""
    assert (engine.name, engine.styles, engine.is_demonstration) == ("tiny", ("concise",), False)
    copy = Path(shutil.copytree(checkpoint_folder, tmp_path / "copy"))
    (copy / "inlay.json").unlink()
    plain = Engine.load(copy, device="cpu")
    assert plain.checkpoint.about.locked_in_prompt
    assert not plain.is_demonstration


def test_soft_tokens_are_counted_without_pixels() -> None:
    """The count for a size equals what the image processor reports for an image of that size."""
    from PIL import Image

    processor = make_image_processor(max_soft_tokens=70)
    for size in ((384, 384), (512, 300), (1000, 2000)):
        made = processor(images=[Image.new("L", size)], return_tensors="pt")
        assert soft_tokens(processor, *size) == int(made["num_soft_tokens_per_image"][0])
    assert soft_tokens(processor, 384, 384) == 64


def test_the_masks_let_an_image_see_itself_in_both_directions(engine: Any) -> None:
    """Image tokens attend to later image tokens, text does not attend to later text."""
    ids_BT = torch.tensor([[5, 9, 9, 9, 5, 5]])
    types_BT = torch.tensor([[0, 1, 1, 1, 0, 0]])
    mask = encoder_masks(engine.checkpoint.model, ids_BT, types_BT)["full_attention"]
    assert mask is not None
    seen = mask[0, 0]
    assert bool(seen[1, 3])
    assert not bool(seen[0, 1])
    assert not bool(seen[4, 5])


class _Layer:
    def __init__(self, size: int) -> None:
        self.keys = self.values = torch.zeros(size, dtype=torch.uint8)


class _Cache:
    def __init__(self, size: int) -> None:
        self.layers = [_Layer(size)]


def test_prefixes_are_dropped_oldest_first_beyond_the_byte_budget() -> None:
    """The store never holds more bytes than its budget, and what was used last stays longest."""
    kept = Prefixes(budget_bytes=100)
    for name in ("a", "b"):
        kept.put(name, Prefix(_Cache(20), 1))
    assert kept.get("a") is not None
    kept.put("c", Prefix(_Cache(20), 1))
    assert kept.get("b") is None
    assert kept.get("a") is not None
    kept.put("huge", Prefix(_Cache(51), 1))
    assert kept.get("huge") is None
    assert kept.get("a") is not None
    assert kept.get("c") is not None
    assert kept.nbytes <= 100


def test_a_scrape_may_come_while_a_study_is_being_kept() -> None:
    """What comes into the store between two looks is no error of whoever adds up its bytes."""
    kept = Prefixes(budget_bytes=1_000)

    class Meanwhile:
        @property
        def layers(self) -> list[_Layer]:
            kept._kept[f"study {len(kept._kept)}"] = Prefix(_Cache(20), 1)
            return [_Layer(10)]

    for name in ("a", "b"):
        kept.put(name, Prefix(Meanwhile(), 1))
    before = len(kept._kept)
    assert kept.nbytes == 2 * 20 + (before - 2) * 40
    assert len(kept._kept) == before + 2
