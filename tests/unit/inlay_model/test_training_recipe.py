"""Recipes: the paper's values where nothing else is said, and what is refused."""

from pathlib import Path

import pytest

from inlay_model.errors import BadRecipe
from inlay_model.training.finetune import check_recipe
from inlay_model.training.recipe import TARGETS, Recipe, lora_recipe
from inlay_testkit.tiny_training import tiny_recipe

CONFIGS = Path(__file__).parents[3] / "model" / "configs"


def test_an_adapter_is_trained_by_the_papers_recipe() -> None:
    """arXiv 2607.01436: rank 64, alpha 128, attention and shared MLP; the two kinds differ in betas, rate and batch."""
    diffusion, sibling = (lora_recipe(kind) for kind in ("diffusion", "autoregressive"))
    assert (diffusion.lora.rank, diffusion.lora.alpha, diffusion.lora.targets) == (64, 128, TARGETS)
    one = diffusion.changed(["training.steps=10"]).phase("training")
    other = sibling.changed(["training.steps=10"]).phase("training")
    assert (one.betas, one.learning_rate, one.schedule, one.warm_up, one.batch) == (
        (0.9, 0.95),
        1e-4,
        "cosine",
        100,
        16,
    )
    assert (other.betas, other.learning_rate, other.schedule, other.batch) == ((0.9, 0.999), 1e-4, "constant", 24)
    assert one.precision == other.precision == "bf16"
    assert (diffusion.corruption.infill, diffusion.corruption.shift) == (0.0, 0.0)
    assert (diffusion.corruption.least_noise, diffusion.corruption.towards_full) == (0.1, False)


def test_a_change_replaces_one_value() -> None:
    """--set reaches into tables and to the top, as JSON or as text."""
    changed = tiny_recipe().changed(["training.batch=8", "seed=9", "training.precision=bf16", "corruption.infill=0.5"])
    phase = changed.phase("training", ("auxiliary_weight", "average_decay"))
    assert (phase.batch, phase.precision, changed.seed, changed.corruption.infill) == (8, "bf16", 9, 0.5)
    assert tiny_recipe().seed == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.learning_rat=1", "learning_rat"),
        ("training.schedule=steep", "schedule"),
        ("training.micro_batch=3", "micro_batch"),
        ("training.precision=fp8", "precision"),
        ("training.steps=-1", "steps"),
        ("nothing", "TABLE.KEY=VALUE"),
        ("training.steps=x", "steps is a whole number and not 'x'"),
        ("training.batch=1.5", "batch is a whole number and not 1.5"),
        ("training.batch=true", "batch is a whole number and not True"),
        ("training.micro_batch=two", "micro_batch is a whole number or nothing"),
        ("training.learning_rate=fast", "learning_rate is a number"),
        ("training.betas=[0.9]", "betas is a list"),
        ("training.schedule=3", "schedule is text"),
        ("training=3", "training is a table"),
        ("seed.first=3", "seed is no table"),
        ("seed=x", "seed is a whole number"),
    ],
)
def test_what_cannot_be_followed_is_named(change: str, said: str) -> None:
    """A misspelt key, an unknown value or a batch that cannot be divided is an error before any work."""
    with pytest.raises(BadRecipe, match=said):
        tiny_recipe().changed([change]).phase("training", ("auxiliary_weight", "average_decay"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("lora.rank=0", "at least 1"),
        ("lora.dropout=1", "below 1"),
        ("lora.targets=[]", "targets named"),
        ("lora.targets=q_proj", "targets is a list"),
        ("corruption.towards_full=1", "towards_full is true or false"),
    ],
)
def test_an_adapter_that_cannot_be_made_is_named(change: str, said: str) -> None:
    """Sizes and shares of another type or without a meaning, before a checkpoint is loaded."""
    with pytest.raises(BadRecipe, match=said):
        check_recipe(lora_recipe("diffusion").changed([change]))


def test_whole_numbers_are_numbers_and_lists_tuples() -> None:
    """As TOML and JSON write them."""
    recipe = lora_recipe("diffusion").changed(["training.learning_rate=1", 'lora.targets=["q_proj"]', "lora.dropout=0"])
    check_recipe(recipe)
    assert recipe.lora.targets == ("q_proj",)


def test_a_recipe_for_another_kind_is_refused() -> None:
    """The sibling is not trained by a recipe that says diffusion, nor is an unknown kind trained at all."""
    with pytest.raises(BadRecipe, match="autoregressive"):
        lora_recipe("autoregressive", tiny_recipe("diffusion"))


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    """A missing file, broken TOML, an unknown kind and missing tables or keys each say what is wrong."""
    file = tmp_path / "r.toml"
    with pytest.raises(BadRecipe, match="cannot be read"):
        Recipe.read(file)
    file.write_text("kind = ")
    with pytest.raises(BadRecipe, match="cannot be read"):
        Recipe.read(file)
    file.write_text("kind = 'masked'")
    with pytest.raises(BadRecipe, match="masked"):
        Recipe.read(file)
    file.write_text("[training]\nsteps = 1")
    with pytest.raises(BadRecipe, match="vision"):
        Recipe.read(file).need_scratch_tables()
    shipped = (CONFIGS / "phantom-diffusion.toml").read_text()
    file.write_text(shipped.replace("pooling_kernel_size = 3\n", "").replace("average_decay = 0.999\n", ""))
    with pytest.raises(BadRecipe, match=r"lacks pooling_kernel_size in \[vision\], average_decay in \[training\]"):
        Recipe.read(file).need_scratch_tables()


def test_the_sibling_is_trained_under_the_matched_recipe() -> None:
    """The shipped recipes of the pair differ in name and kind and in nothing else."""
    pair = [Recipe.read(CONFIGS / f"phantom-{name}.toml").settings for name in ("diffusion", "sibling")]
    assert {key for key in pair[0] if pair[0][key] != pair[1][key]} == {"name", "kind"}
    assert pair[0].keys() == pair[1].keys()
