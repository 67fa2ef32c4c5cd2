"""Small enough for unit tests: recipes of both kinds, a sibling checkpoint, and reports as JSONL with pictures."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from inlay_model.loading import default_checkpoint, load
from inlay_model.phantom.render import phantom
from inlay_model.training import lora
from inlay_model.training.architecture import new_model, save_checkpoint, tokenizer_of
from inlay_model.training.phantoms import Drawing
from inlay_model.training.recipe import Lora, Recipe
from inlay_testkit.tiny_diffusion import TINY_TEXT, TINY_VISION

CANVAS = 128
SOFT_TOKENS = 64


@cache
def tokenizer() -> Any:
    """The vocabulary of the shipped checkpoint."""
    return tokenizer_of(default_checkpoint())


def tiny_recipe(kind: str = "diffusion", **training: Any) -> Recipe:
    """A run from scratch of a few steps; `training` changes its second phase."""
    phase = {"batch": 2, "learning_rate": 1e-3, "precision": "fp32"}
    return Recipe(
        {
            "name": f"tiny-{kind}",
            "kind": kind,
            "seed": 5,
            "vocabulary": {"size": 600, "reports": 50},
            "canvas": {"length": CANVAS},
            "text": dict(TINY_TEXT),
            "vision": dict(TINY_VISION),
            "image": {"max_soft_tokens": 70},
            "sight": {**phase, "steps": 1},
            "training": {**phase, "steps": 2, "auxiliary_weight": 0.2, "average_decay": 0.9, **training},
        }
    )


def write_recipe(recipe: Recipe, file: Path) -> Path:
    """A recipe as TOML."""
    flat = [f"{key} = {json.dumps(value)}" for key, value in recipe.settings.items() if not isinstance(value, dict)]
    for table, values in recipe.settings.items():
        if isinstance(values, dict):
            flat += ["", f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    file.write_text("\n".join(flat) + "\n", encoding="utf-8")
    return file


def tiny_drawing(kind: str = "diffusion", size: int = 2) -> Drawing:
    """Phantoms for the tiny recipe's model."""
    return Drawing(tokenizer(), kind, size, CANVAS, SOFT_TOKENS, tiny_recipe(kind).corruption)


def random_model(kind: str = "diffusion", seed: int = 5) -> Any:
    """An untrained model of the tiny recipe, sharp enough that its logits differ between tokens."""
    model = new_model(tiny_recipe(kind), tokenizer())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def save_tiny_checkpoint(folder: Path, kind: str = "diffusion") -> Path:
    """A checkpoint of random weights as the trainer writes it, but in float32."""
    model = random_model(kind)
    save_checkpoint(tiny_recipe(kind), model.state_dict(), tokenizer(), folder)
    generation = (folder / "generation_config.json").read_bytes()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_bytes(generation)
    for part in folder.glob("model-*"):
        part.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    return folder


def save_tiny_adapter(base: Path, folder: Path, seed: int = 1, kind: str = "diffusion") -> Path:
    """An adapter for this checkpoint that changes its text noticeably (random numbers)."""
    checkpoint = load(base, device="cpu", kind=kind)
    parameters = lora.attach(checkpoint.model, Lora(rank=4, alpha=8), seed, checkpoint.about.name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    lora.save_adapter(checkpoint.model, checkpoint, {}, folder)
    return folder


def write_jsonl(folder: Path, lines: Sequence[Any], name: str = "data.jsonl") -> Path:
    """Lines as JSON; a string stands as it is."""
    file = folder / name
    file.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return file


def save_picture(folder: Path, name: str = "phantom.png", seed: int = 1, size: int = 96) -> str:
    """A small picture of a phantom; returns its name."""
    Image.fromarray(phantom(seed).image).resize((size, size)).save(folder / name)
    return name
