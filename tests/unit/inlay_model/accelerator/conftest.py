"""A small model of the 26B model's kind. On a CPU the kernels run in Triton's interpreter (tests/conftest.py)."""

from typing import Any

import pytest
import torch

from inlay_model.accelerator.random_weights import diffusion_config, random_model
from inlay_model.prefix import Decoder, encode

SMALL = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_experts": 6,
    "top_k_experts": 2,
    "moe_intermediate_size": 64,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "max_position_embeddings": 4096,
}


def small_config(**changes: Any) -> Any:
    """Three layers with everything the 26B model has: shared key heads, global layers without own values, experts."""
    config = diffusion_config(**{**SMALL, **changes})
    config.vision_config.num_hidden_layers = 1
    config.canvas_length = 32
    config.image_token_id = 7
    return config


def small_model(seed: int = 0, **changes: Any) -> Any:
    """A random model of `small_config` in float32 whose norms and scalars are not all one."""
    model = random_model(small_config(**changes), "cpu", torch.float32, seed)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data += torch.randn(weight.shape, generator=generator) * (0.05 if weight.dim() > 1 else 0.1)
    for layer in model.model.decoder.layers:
        layer.layer_scalar.fill_(0.9)
    return model


def logits(model: Any) -> torch.Tensor:
    """What the model says about a fixed canvas behind a fixed prompt, wherever it is."""
    ids = tuple(range(10, 40))
    canvas_BL = torch.arange(32, device=model.device).unsqueeze(0) * 7 % 600
    with torch.inference_mode():
        prefix = encode(model, ids, (0,) * len(ids), None)
        return Decoder(model, prefix)(canvas_BL, canvas_BL >= 0)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, of the whole tensor."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.fixture(scope="module")
def model() -> Any:
    """A small model of the 26B model's kind."""
    return small_model()
