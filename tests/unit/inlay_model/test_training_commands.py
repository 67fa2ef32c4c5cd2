"""`inlay model train` and `inlay model merge` as they are typed, with recipes of a few steps."""

import json
from pathlib import Path

import pytest

from inlay_model.__main__ import main
from inlay_model.loading import default_checkpoint, load
from inlay_model.provenance import digest_of_folder
from inlay_testkit.tiny_training import (
    save_picture,
    save_tiny_checkpoint,
    tiny_recipe,
    write_jsonl,
    write_recipe,
)

KINDS = ("diffusion", "autoregressive")
CONFIGS = Path(__file__).parents[3] / "model" / "configs"
SMALL = ["training.steps=2", "training.batch=2", "training.precision=fp32", "lora.rank=4"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_from_scratch(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe gives a checkpoint that loads; run again, there is nothing left to do."""
    recipe, out = write_recipe(tiny_recipe(kind), tmp_path / "r.toml"), tmp_path / "run"
    command = ["train", "--config", str(recipe), "--out", str(out), "--tokenizer", str(default_checkpoint())]
    command += ["--device", "cpu", "--workers", "0", "--set", "training.steps=1", "--tensorboard"]
    assert main(command) == 0
    assert "M parameters" in capsys.readouterr().err
    assert load(out, device="cpu", kind=kind).about.name == f"tiny-{kind}"
    assert list((out / "events").iterdir())
    lines = (out / "log.jsonl").read_text()
    assert main(command) == 0
    assert (out / "log.jsonl").read_text() == lines


def test_a_run_that_is_out_of_time_says_so(tmp_path: Path) -> None:
    """Exit status 3: there is a state to go on from, and a checkpoint of what there is."""
    recipe, out = write_recipe(tiny_recipe(steps=500), tmp_path / "r.toml"), tmp_path / "run"
    command = ["train", "--config", str(recipe), "--out", str(out), "--tokenizer", str(default_checkpoint())]
    assert main([*command, "--device", "cpu", "--workers", "0", "--minutes", "0.001"]) == 3
    assert (out / "state.pt").is_file()
    assert (out / "model.safetensors.index.json").is_file() or list(out.glob("*.safetensors"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_by_the_papers_recipe_and_its_merge(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSONL to adapter to merged checkpoint; each command prints folder and digest."""
    base = save_tiny_checkpoint(tmp_path / "base", kind)
    lines = [{"image": save_picture(tmp_path), "prompt": "Is there an effusion?", "answer": "No."}] * 3
    data, out = write_jsonl(tmp_path, lines), tmp_path / "run"
    command = ["train", "--model", str(base), "--data", str(data), "--out", str(out), "--device", "cpu"]
    assert main([*command, "--workers", "0", "--set", *SMALL]) == 0
    folder, digest = capsys.readouterr().out.splitlines()[-1].split()
    assert folder == str(out / "adapter")
    assert load(base, device="cpu", kind=kind, adapter=folder).adapter_digest == digest
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["lora_alpha"] == 128
    merged = tmp_path / "merged"
    assert main(["merge", "--model", str(base), "--adapter", folder, "--out", str(merged)]) == 0
    assert capsys.readouterr().out.split() == [str(merged), digest_of_folder(merged)]
    load(merged, device="cpu", kind=kind)


def test_data_is_checked_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check reads every line and image, prints what is wrong, and leaves nothing behind."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = {"image": save_picture(tmp_path), "prompt": "Where?", "answer": "Left."}
    data = write_jsonl(tmp_path, [good, {**good, "image": "broken.png"}, "{"])
    command = ["train", "--model", str(default_checkpoint()), "--check", "--data"]
    assert main([*command, str(data)]) == 2
    told = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in told[:2]] == [f"{data}:2", f"{data}:3"]
    assert told[2] == "3 lines, 2 of them cannot be used."
    assert main([*command, str(write_jsonl(tmp_path, [good], "good.jsonl"))]) == 0


# Recipes are checked before data are read: this file is not there.
_ADAPTER = ["--data", "nowhere.jsonl", "--out", "x", "--model", str(default_checkpoint())]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--out", "x"], "--config"),
        (["--data", "x.jsonl", "--out", "x"], "--model"),
        (["--data", "nowhere.jsonl", "--out", "x", "--model", str(default_checkpoint())], "cannot be read"),
        (["--config", "nowhere.toml", "--out", "x"], "nowhere.toml"),
        ([*_ADAPTER, "--set", "lora.rank=x"], "rank is a whole number and not 'x'"),
        ([*_ADAPTER, "--set", "lora.rank=0"], "rank and alpha are at least 1"),
        ([*_ADAPTER, "--set", "training.epochs=x"], "epochs is a number"),
        ([*_ADAPTER, "--set", "training.activation_checkpointing=1"], "true or false"),
    ],
)
def test_what_is_missing_is_named(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 2 and one line that says what to give."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", *given]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.toml")), ids=lambda file: file.stem)
def test_shipped_recipes_can_be_followed(file: Path) -> None:
    """Every recipe in the repository is read without an unknown key."""
    from inlay_model.training.finetune import EXTRA_KEYS as ADAPTER_KEYS
    from inlay_model.training.finetune import with_steps
    from inlay_model.training.recipe import Recipe, lora_recipe
    from inlay_model.training.scratch import EXTRA_KEYS as SCRATCH_KEYS

    recipe = Recipe.read(file)
    assert recipe.corruption.least_noise == 0.1
    if "text" in recipe.settings:
        recipe.need_scratch_tables()
        assert recipe.phase("training", SCRATCH_KEYS).steps > 0
        assert recipe.phase("sight", SCRATCH_KEYS).steps > 0
    else:
        full = with_steps(lora_recipe(recipe.kind, recipe), 1000)
        assert full.phase("training", ADAPTER_KEYS).steps > 0
        assert full.lora.rank > 0
