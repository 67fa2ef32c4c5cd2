"""An autoregressive Gemma 4 small enough for unit tests: the real transformers classes, random weights, a few words."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers.models.gemma4.configuration_gemma4 import Gemma4Config
from transformers.models.gemma4.modeling_gemma4 import Gemma4ForConditionalGeneration

from inlay_model.loading import make_image_processor
from inlay_testkit.tiny_diffusion import TINY_TEXT, TINY_VISION, tiny_tokenizer


def tiny_sibling_config(tokenizer: Any) -> Gemma4Config:
    """The text and vision blocks of the tiny diffusion model as a `gemma4`, without audio and per-layer inputs."""
    return Gemma4Config(
        text_config={
            **TINY_TEXT,
            "vocab_size": len(tokenizer),
            "num_global_key_value_heads": 1,
            "enable_moe_block": True,
            "attention_k_eq_v": True,
            "hidden_size_per_layer_input": 0,
            "num_kv_shared_layers": 0,
        },
        vision_config={**TINY_VISION, "model_type": "gemma4_vision", "global_head_dim": 16},
        audio_config=None,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        boi_token_id=tokenizer.convert_tokens_to_ids("<|image>"),
        eoi_token_id=tokenizer.convert_tokens_to_ids("<image|>"),
    )


def save_tiny_sibling(folder: Path, seed: int = 0, **note: Any) -> Path:
    """A sibling's checkpoint folder in the ordinary format; `note` goes to inlay.json."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    model: Any = Gemma4ForConditionalGeneration(tiny_sibling_config(tokenizer))
    with torch.no_grad():
        # Small, so that the layers have more to say than the token before: else it repeats one token for ever.
        model.model.language_model.embed_tokens.weight.normal_(0, 0.1)
    model.generation_config.update(
        eos_token_id=[1, tokenizer.convert_tokens_to_ids("<turn|>")],
        pad_token_id=0,
        bos_token_id=2,
        # Random weights hardly ever end their turn.
        max_new_tokens=24,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_image_processor(max_soft_tokens=70).save_pretrained(folder)
    settings = {"demonstration": False, "name": "tiny-sibling", "kind": "autoregressive", "styles": [], **note}
    (folder / "inlay.json").write_text(json.dumps(settings))
    return folder
