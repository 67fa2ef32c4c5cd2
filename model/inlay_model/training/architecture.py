"""New models of a recipe's size, their vocabulary, and checkpoints in the ordinary format of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inlay_model.loading import make_image_processor
from inlay_model.phantom.findings import Findings, draw_findings
from inlay_model.phantom.grammar import STYLES, corpus, write_report
from inlay_model.phantom.remarks import REMARKS
from inlay_model.prompt import instruction
from inlay_model.provenance import ABOUT
from inlay_model.training.recipe import Recipe
from inlay_model.vocabulary import as_pretrained, build_vocabulary

SECTIONS = ("findings", "impression")
# Parts small enough for a repository.
_PART = "12MB"


def new_tokenizer(recipe: Recipe) -> Any:
    """The vocabulary of a recipe, learnt from sampled phantom reports, remarks and instructions."""
    rng = np.random.default_rng(recipe.seed)
    reports = recipe["vocabulary"]["reports"]
    drawn = draw_findings(reports, rng)
    texts = [
        f"{name.capitalize()}: {' '.join(sentences)}\n"
        for row, style in zip(drawn, STYLES * (reports // len(STYLES) + 1), strict=False)
        for name, sentences in write_report(Findings.from_indices(row), style, rng).sections
    ]
    # Rare sentences are repeated so that their words become single tokens too.
    texts += [f" {sentence}" for sentence in [*corpus(), *REMARKS]] * 20
    texts += [f"user\n{instruction(SECTIONS, style)}\nmodel\n" for style in STYLES] * 200
    return as_pretrained(build_vocabulary(texts, recipe["vocabulary"]["size"]))


def tokenizer_of(checkpoint: Path) -> Any:
    """The vocabulary of a checkpoint."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


def new_model(recipe: Recipe, tokenizer: Any) -> Any:
    """An untrained model of the recipe's kind and size."""
    config = _sibling_config(recipe, tokenizer) if recipe.kind == "autoregressive" else _config(recipe, tokenizer)
    torch.manual_seed(recipe.seed)
    model = _model_class(recipe.kind)(config)
    vision = model.model.encoder.vision_tower if recipe.kind == "diffusion" else model.model.vision_tower
    # The library fills this table with ones, which tells no position from another.
    torch.nn.init.normal_(vision.patch_embedder.position_embedding_table, std=0.02)
    return model


def trained_model(kind: str, checkpoint: Path) -> Any:
    """The model of a checkpoint in float32, to go on training it."""
    return _model_class(kind).from_pretrained(checkpoint, dtype=torch.float32)


def save_checkpoint(recipe: Recipe, weights: dict[str, Tensor], tokenizer: Any, out: Path) -> None:
    """Write a checkpoint that the code for the 26B models loads too, in parts of under 16 MB."""
    model = new_model(recipe, tokenizer)
    model.load_state_dict(weights)
    model.generation_config = _generation(recipe, tokenizer)
    model.to(torch.bfloat16).save_pretrained(out, max_shard_size=_PART)
    tokenizer.save_pretrained(out)
    make_image_processor(
        max_soft_tokens=recipe["image"]["max_soft_tokens"],
        patch_size=recipe["vision"]["patch_size"],
        pooling_kernel_size=recipe["vision"]["pooling_kernel_size"],
    ).save_pretrained(out)
    (out / ABOUT).write_text(json.dumps(_card(recipe), indent=2) + "\n", encoding="utf-8")


def _card(recipe: Recipe) -> dict[str, Any]:
    """What the checkpoint says of itself."""
    about = {"demonstration": True, "name": recipe.name, "kind": recipe.kind, "locked_in_prompt": False}
    corruption, denoises = recipe.corruption, recipe.kind == "diffusion"
    learnt = {
        "foretells_length": denoises and corruption.shift > 0,
        "takes_hints": denoises and corruption.hints > 0,
        "rewrites": denoises and corruption.rewriting > 0,
        "fills_without_image": denoises and corruption.text_alone > 0,
        # Phantoms have no earlier examinations.
        "takes_comparison": False,
    }
    return about | {"styles": list(STYLES)} | learnt


def _model_class(kind: str) -> Any:
    from transformers import DiffusionGemmaForBlockDiffusion, Gemma4ForConditionalGeneration

    return Gemma4ForConditionalGeneration if kind == "autoregressive" else DiffusionGemmaForBlockDiffusion


def _special(tokenizer: Any) -> dict[str, Any]:
    return {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}


def _image_tokens(tokenizer: Any) -> dict[str, Any]:
    names = {"boi_token_id": "<|image>", "eoi_token_id": "<image|>", "image_token_id": "<|image|>"}
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _config(recipe: Recipe, tokenizer: Any) -> Any:
    from transformers import DiffusionGemmaConfig, DiffusionGemmaTextConfig
    from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

    return DiffusionGemmaConfig(
        text_config=DiffusionGemmaTextConfig(vocab_size=len(tokenizer), **_special(tokenizer), **recipe["text"]),
        vision_config=Gemma4VisionConfig(**recipe["vision"]),
        canvas_length=recipe["canvas"]["length"],
        **_image_tokens(tokenizer),
    )


def _sibling_config(recipe: Recipe, tokenizer: Any) -> Any:
    """The same text block as DiffusionGemma's: no per-layer inputs, keys as values in global layers, experts."""
    from transformers.models.gemma4.configuration_gemma4 import Gemma4Config, Gemma4TextConfig, Gemma4VisionConfig

    return Gemma4Config(
        text_config=Gemma4TextConfig(
            vocab_size=len(tokenizer),
            vocab_size_per_layer_input=len(tokenizer),
            attention_k_eq_v=True,
            enable_moe_block=True,
            hidden_size_per_layer_input=0,
            final_logit_softcapping=30.0,
            **_special(tokenizer),
            **recipe["text"],
        ),
        vision_config=Gemma4VisionConfig(**recipe["vision"]),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"),
        **_image_tokens(tokenizer),
    )


def _generation(recipe: Recipe, tokenizer: Any) -> Any:
    from transformers import GenerationConfig
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
        DiffusionGemmaGenerationConfig,
        EntropyBoundSamplerConfig,
    )

    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<turn|>")]
    common = _special(tokenizer) | {"eos_token_id": ends, "max_new_tokens": recipe["canvas"]["length"]}
    if recipe.kind == "autoregressive":
        return GenerationConfig(**common)
    return DiffusionGemmaGenerationConfig(
        max_denoising_steps=16,
        # Chosen on phantoms of seed 1: the library's defaults (0.1, 0.4, 0.8) leave one report in seven unsettled
        # after 16 steps and 3 % of them wrong for it.
        sampler_config=EntropyBoundSamplerConfig(entropy_bound=0.3),
        t_min=0.3,
        t_max=0.6,
        stability_threshold=1,
        confidence_threshold=0.005,
        **common,
    )
