"""An adapter trained on a JSONL: deterministic, going on, learning, frozen around it, and served as it was trained."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from inlay_model.errors import BadData, BadRecipe
from inlay_model.gap_prompt import GAP_MARK
from inlay_model.loading import load
from inlay_model.training import lora
from inlay_model.training.corruption import Corruption
from inlay_model.training.finetune import (
    ADAPTER,
    AdapterTrainer,
    Batch,
    ExampleStream,
    collation_of,
    dataset_of,
    with_steps,
)
from inlay_model.training.log import RunLog
from inlay_model.training.recipe import Recipe, lora_recipe
from inlay_testkit.tiny_training import save_picture, save_tiny_checkpoint, tokenizer, write_jsonl

KINDS = ("diffusion", "autoregressive")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of random weights of either kind."""
    return {kind: save_tiny_checkpoint(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five examples: reports and questions, with one image, two and none."""
    folder = tmp_path_factory.mktemp("data")
    one, two = (save_picture(folder, f"{seed}.png", seed) for seed in (1, 2))
    findings = "The lungs are clear. No pneumothorax. The heart is normal in size."
    lines = [
        {"image": one, "sections": {"findings": findings, "impression": "No acute findings."}},
        {"image": two, "sections": {"findings": "There is a small left pleural effusion."}, "style": "concise"},
        {"image": [one, two], "prompt": "Is there an effusion?", "answer": "Yes."},
        {"image": one, "prompt": "Is there an effusion?", "answer": "No."},
        {"prompt": "Which side is the heart on?", "answer": "Left."},
    ]
    return write_jsonl(folder, lines)


def recipe(kind: str, **training: Any) -> Recipe:
    """The paper's recipe, made small."""
    settings = {"name": "tiny-lora", "kind": kind, "seed": 3, "lora": {"rank": 4, "alpha": 8}}
    small = {"steps": 2, "batch": 4, "micro_batch": 2, "precision": "fp32", "warm_up": 0, "learning_rate": 0.01}
    return lora_recipe(kind, Recipe(settings | {"training": {**small, **training}}))


def trainer(bases: dict[str, Path], data: Path, out: Path, kind: str = "diffusion", **training: Any) -> AdapterTrainer:
    """A trainer of that recipe."""
    base = load(bases[kind], device="cpu", kind=kind)
    return AdapterTrainer(recipe(kind, **training), base, dataset_of(data, base, kind), out, RunLog(out))


def losses(run: AdapterTrainer) -> list[float]:
    """The losses of a run, as logged."""
    found: list[float] = []
    inner = run.loop.task.loss

    def watched(batch: Batch) -> dict[str, torch.Tensor]:
        parts = inner(batch)
        found.append(float(parts["loss"].detach()))
        return parts

    run.loop.task = type(run.loop.task)("training", watched, run.loop.task.weight)
    run.run()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_adapter(bases: dict[str, Path], data: Path, tmp_path: Path, kind: str) -> None:
    """Two runs see the same batches, have the same losses, and end with the same digest."""
    runs = [trainer(bases, data, tmp_path / name, kind) for name in "ab"]
    assert losses(runs[0]) == losses(runs[1])
    assert runs[0].save() == runs[1].save()
    other = trainer(bases, data, tmp_path / "c", kind)
    assert other.save() != runs[0].save()


def test_a_run_that_goes_on_is_one_that_never_stopped(bases: dict[str, Path], data: Path, tmp_path: Path) -> None:
    """Stopped after a step and begun again, the adapter is the same to the last bit."""
    straight = trainer(bases, data, tmp_path / "a", steps=3)
    straight.run()
    stopped = trainer(bases, data, tmp_path / "b", steps=3)
    stopped.loop.steps = 1
    stopped.run()
    stopped.save()
    going_on = trainer(bases, data, tmp_path / "b", steps=3)
    assert going_on.resume()
    going_on.run()
    one, other = (lora.adapter_state(run.model) for run in (straight, going_on))
    assert going_on.loop.step == 3
    assert all(torch.equal(one[name], other[name]) for name in one)


def other(bases: dict[str, Path], data: Path, out: Path, *changes: str) -> AdapterTrainer:
    """A trainer of the recipe with these changes."""
    base = load(bases["diffusion"], device="cpu")
    return AdapterTrainer(
        recipe("diffusion").changed(changes), base, dataset_of(data, base, "diffusion"), out, RunLog(out)
    )


def test_a_run_goes_on_from_no_other_runs_state(bases: dict[str, Path], data: Path, tmp_path: Path) -> None:
    """Another recipe, base or data are named together with what to do, and the state stays as it was."""
    out = tmp_path / "run"
    trainer(bases, data, out).save()
    left = (out / "state.pt").read_bytes()
    with pytest.raises(
        BadRecipe, match=r"seed was 3 and is 4, lora\.rank was 4 and is 8\. Name another --out"
    ) as refused:
        other(bases, data, out, "lora.rank=8", "seed=4").resume()
    assert "same arguments" in str(refused.value)
    with pytest.raises(BadRecipe, match=r"of another run: training\.batch was 4 and is 2\."):
        other(bases, data, out, "training.batch=2").resume()
    more = data.with_name("more.jsonl")
    more.write_bytes(data.read_bytes() + data.read_bytes())
    with pytest.raises(BadRecipe, match="of another run: data is another"):
        trainer(bases, more, out).resume()
    changed = {"diffusion": Path(shutil.copytree(bases["diffusion"], tmp_path / "base"))}
    with (changed["diffusion"] / "generation_config.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(BadRecipe, match="of another run: base is another"):
        trainer(changed, data, out).resume()
    assert (out / "state.pt").read_bytes() == left


@pytest.mark.parametrize(
    "change",
    [
        "training.steps=5",
        "training.epochs=2",
        "training.micro_batch=1",
        "training.activation_checkpointing=true",
        "training.learning_rate=0.001",
        "training.precision=bf16",
    ],
)
def test_a_run_goes_on_with_what_its_errors_tell_to_change(
    bases: dict[str, Path], data: Path, tmp_path: Path, change: str
) -> None:
    """How long it is, the size of its portions, and what helps against NaN do not make another run."""
    trainer(bases, data, tmp_path).save()
    assert other(bases, data, tmp_path, change).resume()


def test_a_state_that_does_not_say_whose_it_is_is_taken(bases: dict[str, Path], data: Path, tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    trainer(bases, data, tmp_path).save()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["run"]
    torch.save(state, tmp_path / "state.pt")
    assert other(bases, data, tmp_path, "seed=4").resume()


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_learns_and_leaves_the_base_alone(
    bases: dict[str, Path], data: Path, tmp_path: Path, kind: str
) -> None:
    """The loss falls on the data, every weight of the base stays, and what is saved is served as it was trained."""
    run = trainer(bases, data, tmp_path, kind, steps=12, batch=5, micro_batch=5)
    before = {name: p.clone() for name, p in run.model.named_parameters() if not p.requires_grad}
    found = losses(run)
    assert np.mean(found[-3:]) < np.mean(found[:3]) - 0.3
    assert all(torch.equal(p, before[name]) for name, p in run.model.named_parameters() if name in before)
    digest = run.save()
    served = load(bases[kind], device="cpu", kind=kind, adapter=tmp_path / ADAPTER)
    assert served.adapter_digest == digest
    batch = collation_of(run.base, run.recipe)([run.dataset[0]], np.random.default_rng(0))
    trained, loaded = run.model.eval(), served.model
    with torch.no_grad():
        one, other = (
            run.objective.loss(model, batch.prompts, _features(model, batch), batch.answers, _seeded())
            for model in (trained, loaded)
        )
    assert one.item() == pytest.approx(other.item(), abs=1e-4)


def _features(model: Any, batch: Batch) -> torch.Tensor:
    from inlay_model.vision import encode_images

    assert batch.pixels is not None
    return encode_images(model, *batch.pixels)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_checkpointed_activations_give_the_same_gradients(bases: dict[str, Path], data: Path, tmp_path: Path) -> None:
    """Saving memory changes nothing: losses and adapter are those of a run that keeps its activations."""
    kept = trainer(bases, data, tmp_path / "a")
    saved = trainer(bases, data, tmp_path / "b", activation_checkpointing=True)
    assert losses(kept) == pytest.approx(losses(saved), abs=1e-6)
    one, other = (lora.adapter_state(run.model) for run in (kept, saved))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_ends_the_run_with_its_line(bases: dict[str, Path], tmp_path: Path, workers: int) -> None:
    """Also from a worker process the message is file, line, field and remedy, and no traceback."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    data = write_jsonl(tmp_path, [{"image": "broken.png", "prompt": "Where?", "answer": "Left."}])
    run = trainer(bases, data, tmp_path / "run")
    run.workers = workers
    with pytest.raises(BadData) as raised:
        run.run()
    assert "data.jsonl:1: image" in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_mixed_precision_keeps_the_adapter_in_float32(bases: dict[str, Path], data: Path, tmp_path: Path) -> None:
    """The base computes in bfloat16, what is learnt is kept in float32 and saved as the base is."""
    base = load(bases["diffusion"], device="cpu", dtype="bfloat16")
    half = recipe("diffusion", precision="bf16", steps=1)
    run = AdapterTrainer(half, base, dataset_of(data, base, "diffusion"), tmp_path, RunLog(tmp_path))
    (loss,) = losses(run)[:1]
    assert np.isfinite(loss)
    assert {p.dtype for p in run.loop.parameters} == {torch.float32}
    run.save()
    kept = load_file(tmp_path / ADAPTER / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}


def test_every_epoch_sees_every_example_in_its_own_order(bases: dict[str, Path], data: Path) -> None:
    """Batches walk through a shuffled epoch and on into the next, whatever their size."""
    base = load(bases["diffusion"], device="cpu")
    stream = ExampleStream(dataset_of(data, base, "diffusion"), collation_of(base, recipe("diffusion")), 2, 3, 0)
    order = [stream._index(place) for place in range(15)]
    epochs = [order[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_steps_follow_from_epochs() -> None:
    """Three epochs unless the recipe says otherwise; its own number of steps comes first."""
    plain = lora_recipe("diffusion")
    assert with_steps(plain, 100)["training"]["steps"] == 19  # 300 examples in batches of 16
    assert with_steps(plain.changed(["training.epochs=1"]), 100)["training"]["steps"] == 7
    assert with_steps(plain.changed(["training.steps=5"]), 100)["training"]["steps"] == 5


def test_clean_locks_are_an_option_for_any_data(bases: dict[str, Path], data: Path) -> None:
    """With corruption.infill the diffusion model sees whole sentences as noise, and the sibling is asked for them."""
    seen = {}
    for kind in KINDS:
        base = load(bases[kind], device="cpu", kind=kind)
        asking = recipe(kind).changed(["corruption.infill=1.0"])
        made = collation_of(base, asking)([dataset_of(data, base, kind)[0]], np.random.default_rng(1))
        seen[kind] = made
    noise = seen["diffusion"].answers.noise_BL[0]
    assert 0 < int(noise.sum()) < len(noise)
    clean = ~noise
    assert torch.equal(seen["diffusion"].answers.canvas_BL[0][clean], seen["diffusion"].answers.target_BL[0][clean])
    assert GAP_MARK in tokenizer().decode(seen["autoregressive"].prompts.ids_BT[0])


def test_without_the_option_noise_is_the_papers(bases: dict[str, Path], data: Path) -> None:
    """Plain: every position with the same probability, EOS fill included, between a tenth and all of them."""
    base = load(bases["diffusion"], device="cpu")
    collation = collation_of(base, recipe("diffusion"))
    assert collation.corruption == Corruption(infill=0.0, shift=0.0, towards_full=False)
    example = dataset_of(data, base, "diffusion")[0]
    made = collation([example] * 400, np.random.default_rng(0))
    shares = made.answers.noise_BL.float().mean(1)
    assert shares.mean().item() == pytest.approx(0.55, abs=0.03)
    at = made.answers.noise_BL.float().mean(0)
    assert at[:20].mean().item() == pytest.approx(at[-20:].mean().item(), abs=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_layers_learn_the_same(
    bases: dict[str, Path], data: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of few lengths, for which layers are compiled, have the losses of batches as long as they need be."""
    monkeypatch.setattr("inlay_model.training.compiled._COMPILER", "eager")
    torch._dynamo.reset()
    plain = losses(trainer(bases, data, tmp_path / "plain", kind, steps=4))
    base = load(bases[kind], device="cpu", kind=kind)
    even = AdapterTrainer(
        recipe(kind, steps=4),
        base,
        dataset_of(data, base, kind),
        tmp_path / "even",
        RunLog(tmp_path / "even"),
        compile=True,
    )
    counters.clear()
    assert losses(even) == pytest.approx(plain, rel=1e-4)
    assert counters["stats"]["unique_graphs"] > 0
