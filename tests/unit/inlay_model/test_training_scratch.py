"""Training from scratch: the same seed, the same weights; going on; and what is written, for both kinds of model."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from inlay_model.errors import BadRecipe
from inlay_model.loading import default_checkpoint, kind_of, load
from inlay_model.training.architecture import new_model
from inlay_model.training.encoding import text_layers
from inlay_model.training.log import RunLog
from inlay_model.training.phantoms import Batch, Drawing
from inlay_model.training.recipe import Recipe
from inlay_model.training.scratch import Options, PhantomTrainer
from inlay_model.vision import vision_of
from inlay_testkit.tiny_training import tiny_recipe, tokenizer

KINDS = ("diffusion", "autoregressive")


def trainer(out: Path, kind: str = "diffusion", workers: int = 0, **training: Any) -> PhantomTrainer:
    """A trainer of the tiny recipe on the shipped vocabulary."""
    options = Options(out=out, tokenizer=default_checkpoint(), workers=workers)
    return PhantomTrainer(tiny_recipe(kind, **training), options, RunLog(out))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_weights(tmp_path: Path, kind: str) -> None:
    """Two runs of a few steps end with equal weights, to the last bit, and not with those they began with."""
    runs = [trainer(tmp_path / name, kind) for name in "ab"]
    before = {name: value.clone() for name, value in runs[0].model.state_dict().items()}
    for run in runs:
        run.run()
    first, second = (run.model.state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], before[name]) for name in first)


def test_a_run_that_goes_on_is_one_that_never_stopped(tmp_path: Path) -> None:
    """Stopped in the last phase and begun again from its state, a run ends with the same weights and average."""
    straight = trainer(tmp_path / "a")
    straight.run()
    stopped = trainer(tmp_path / "b")
    stopped.loops["training"].steps = 1
    stopped.run()
    stopped.save()
    going_on = trainer(tmp_path / "b")
    assert going_on.resume()
    assert not going_on.finished
    going_on.run()
    assert going_on.finished
    for one, other in (
        (straight.model.state_dict(), going_on.model.state_dict()),
        (straight.average, going_on.average),
    ):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_goes_on_from_no_other_recipes_state(tmp_path: Path) -> None:
    """What differs is named; steps, the size of portions, learning rate and precision may change."""
    trainer(tmp_path).save()
    assert trainer(tmp_path, steps=9, micro_batch=1, learning_rate=1e-4, precision="bf16").resume()
    with pytest.raises(BadRecipe, match=r"training\.average_decay was 0\.9 and is 0\.5\. Name another --out"):
        trainer(tmp_path, average_decay=0.5).resume()
    options = Options(out=tmp_path, tokenizer=default_checkpoint())
    wider = PhantomTrainer(tiny_recipe().changed(["text.intermediate_size=80"]), options, RunLog(tmp_path))
    with pytest.raises(BadRecipe, match="of another run: text is another"):
        wider.resume()


@pytest.mark.parametrize("kind", KINDS)
def test_eyes_of_either_kind_are_taken_and_nothing_else(tmp_path: Path, kind: str) -> None:
    """A new model sees as the checkpoint does from its first step on; its text stack is new."""
    first = trainer(tmp_path / "first")
    first.run()
    first.save()
    options = Options(out=tmp_path / "second", tokenizer=tmp_path / "first", eyes=tmp_path / "first")
    second = PhantomTrainer(tiny_recipe(kind), options, RunLog(tmp_path / "second"))
    theirs, ours = load(tmp_path / "first", device="cpu").model, second.model
    for name, value in vision_of(theirs).vision_tower.state_dict().items():
        assert torch.equal(vision_of(ours).vision_tower.state_dict()[name], value.float()), name
    assert torch.equal(
        vision_of(ours).embed_vision.embedding_projection.weight,
        vision_of(theirs).embed_vision.embedding_projection.weight.float(),
    )
    assert not torch.equal(
        text_layers(ours)[0].self_attn.q_proj.weight, text_layers(theirs)[0].self_attn.q_proj.weight.float()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_is_loaded_by_the_ordinary_code(tmp_path: Path, kind: str) -> None:
    """What a run saves says its kind and loads with the averaged weights, in bfloat16, in small parts."""
    run = trainer(tmp_path, kind)
    run.run()
    run.save()
    checkpoint = load(tmp_path, device="cpu", kind=kind)
    said = json.loads((tmp_path / "inlay.json").read_text())
    assert (said["kind"], kind_of(tmp_path), checkpoint.about.kind) == (kind, kind, kind)
    assert said["demonstration"]
    loaded = checkpoint.model.state_dict()
    for name, value in run.average.items():
        assert torch.equal(loaded[name], value.to(torch.bfloat16).float()), name
    ends = checkpoint.model.generation_config.eos_token_id
    assert checkpoint.control.end_of_turn in ends


def test_a_run_with_wishes_learns_from_them_and_says_so(tmp_path: Path) -> None:
    """Batches of hints and of rewriting alone train a tiny model behind padded prompts; the checkpoint names both."""
    changed = tiny_recipe().changed(["corruption.hints=0.5", "corruption.rewriting=0.5"])
    run = PhantomTrainer(changed, Options(out=tmp_path, tokenizer=default_checkpoint()), RunLog(tmp_path))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.run()
    assert any(not torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert all(bool(value.isfinite().all()) for value in run.average.values())
    run.save()
    said = json.loads((tmp_path / "inlay.json").read_text())
    assert (said["takes_hints"], said["rewrites"]) == (True, True)


def test_the_sibling_has_the_text_block_of_the_diffusion_model() -> None:
    """Same layers, same vision tower; what the diffusion model has more is its self-conditioning."""
    diffusion, sibling = (new_model(tiny_recipe(kind), tokenizer()) for kind in KINDS)
    ours = {name: p.shape for name, p in text_layers(diffusion)[-2].named_parameters()}
    theirs = {name: p.shape for name, p in text_layers(sibling)[0].named_parameters()}
    assert ours == theirs
    eyes = [{n: p.shape for n, p in vision_of(m).vision_tower.named_parameters()} for m in (diffusion, sibling)]
    assert eyes[0] == eyes[1]
    more = sum(p.numel() for p in diffusion.parameters()) - sum(p.numel() for p in sibling.parameters())
    assert more == sum(p.numel() for p in diffusion.model.decoder.self_conditioning.parameters())


@pytest.mark.parametrize("workers", [0, 2])
def test_fixed_eyes_train_the_text_stack_alone(tmp_path: Path, workers: int) -> None:
    """With --studies the vision tower stays as it was and the text stack learns; processes may draw the reports."""
    run = trainer(tmp_path, steps=1, workers=workers)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.run_on_fixed(studies=3)
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any("vision_tower" in name or "embed_vision" in name for name in changed)


def test_a_run_that_goes_on_keeps_its_vocabulary(tmp_path: Path) -> None:
    """It is read from the run's own folder, and not learnt again from a grammar that may have changed since."""
    first = PhantomTrainer(tiny_recipe(), Options(out=tmp_path), RunLog(tmp_path))
    first.save()
    changed = tiny_recipe().changed(["vocabulary.reports=3"])
    again = PhantomTrainer(changed, Options(out=tmp_path), RunLog(tmp_path))
    assert again.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    assert again.resume()


def test_a_run_begins_from_a_checkpoint(tmp_path: Path) -> None:
    """With --init the first weights are those of the checkpoint, and so is the vocabulary."""
    first = trainer(tmp_path / "a")
    first.save()
    options = Options(out=tmp_path / "b", init=tmp_path / "a")
    begun = PhantomTrainer(tiny_recipe(), options, RunLog(tmp_path / "b"))
    assert len(begun.tokenizer) == len(tokenizer())
    saved = load(tmp_path / "a", device="cpu").model.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in begun.model.state_dict().items())


def compiling(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PhantomTrainer, list[int]]:
    """A run with compiled layers, and how many graphs there are after each step once it is under way."""
    monkeypatch.setattr("inlay_model.training.compiled._COMPILER", "eager")
    torch._dynamo.reset()
    options = Options(out=folder, tokenizer=default_checkpoint(), compile=True)
    run = PhantomTrainer(recipe, options, RunLog(folder))
    graphs: list[int] = []
    run.loops["training"].after_step = lambda _: graphs.append(counters["stats"]["unique_graphs"])
    counters.clear()
    return run, graphs


@pytest.mark.slow
# The compiler asks tensors for gradients that they do not have, and warns itself of it.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_compiled_for_one_shape(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever style or gap a batch asks for: after the first steps nothing is compiled any more."""
    run, graphs = compiling(tiny_recipe(kind, steps=7), tmp_path, monkeypatch)
    run.run()
    assert graphs[0] > 0
    assert graphs[2:] == graphs[1:2] * 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_is_compiled_for_wishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their prompts are of many lengths, so their batches run as they stand; what was compiled stays for the others."""
    recipe = tiny_recipe(steps=12).changed(["corruption.hints=0.3", "corruption.rewriting=0.3"])
    run, graphs = compiling(recipe, tmp_path, monkeypatch)
    usual: list[bool] = []
    monkeypatch.setattr(Drawing, "is_usual", _told(Drawing.is_usual, usual))
    run.run()
    assert usual.count(True) > 2
    assert usual.count(False) > 2
    gained = [after > before for before, after in pairwise(graphs)]
    assert not any(more and not plain for more, plain in zip(gained, usual[1:], strict=True))
    assert not any(gained[usual.index(True) + 1 :])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_is_compiled_for_prompts_without_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are padded to the length of the others, and run through what was compiled for these."""
    run, graphs = compiling(tiny_recipe(steps=10).changed(["corruption.text_alone=0.5"]), tmp_path, monkeypatch)
    usual: list[bool] = []
    alone: list[bool] = []
    monkeypatch.setattr(Drawing, "is_usual", _told(Drawing.is_usual, usual))
    loss = run.objective.loss

    def heard(_: Any, model: Any, prompts: Any, features: Any, *rest: Any) -> Any:
        alone.append(features is None)
        return loss(model, prompts, features, *rest)

    monkeypatch.setattr(type(run.objective), "loss", heard)
    run.run()
    assert all(usual)
    # Both kinds come, and the second of them after everything has been compiled.
    assert alone[0] == alone[1]
    assert set(alone) == {True, False}
    assert graphs[0] > 0
    assert graphs[2:] == graphs[1:2] * 8


def _told(inner: Callable[[Drawing, Batch], bool], found: list[bool]) -> Callable[[Drawing, Batch], bool]:
    def told(drawing: Drawing, drawn: Batch) -> bool:
        found.append(inner(drawing, drawn))
        return found[-1]

    return told
