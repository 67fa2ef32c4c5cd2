"""Models of the exact 26B shape with random weights, made on the device itself: for measuring time and memory only.

No public weights are needed and main memory is never touched: modules are built without storage and filled in place.
"""

import math
from typing import Any

import torch
from torch import nn

# Sizes of google/diffusiongemma-26B-A4B-it's text model; with VISION they give 25.25 + 0.573 thousand million
# parameters.
TEXT: dict[str, Any] = {
    "vocab_size": 262_144,
    "hidden_size": 2816,
    "intermediate_size": 2112,
    "num_hidden_layers": 30,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_global_key_value_heads": 2,
    "head_dim": 256,
    "global_head_dim": 512,
    "sliding_window": 1024,
    "num_experts": 128,
    "top_k_experts": 8,
    "moe_intermediate_size": 704,
    "final_logit_softcapping": 30.0,
    "use_bidirectional_attention": "vision",
}
VISION: dict[str, Any] = {
    "model_type": "gemma4_vision",
    "num_hidden_layers": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 72,
    "patch_size": 16,
    "pooling_kernel_size": 3,
}
# The text model's changes for rehearsals on any machine: one layer of each kind, everything small.
TOY: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 64,
    "layer_types": ["sliding_attention", "full_attention"],
}


def diffusion_config(**changes: Any) -> Any:
    """Configuration of the 26B diffusion model; `changes` go to its text part (fewer layers, for tests)."""
    from transformers.models.diffusion_gemma.configuration_diffusion_gemma import DiffusionGemmaConfig

    return DiffusionGemmaConfig(text_config={**TEXT, **changes}, vision_config=VISION, canvas_length=256)


def sibling_config(**changes: Any) -> Any:
    """Configuration of the text part of the autoregressive sibling, google/gemma-4-26B-A4B-it."""
    from transformers.models.gemma4.configuration_gemma4 import Gemma4TextConfig

    own = {"attention_k_eq_v": True, "enable_moe_block": True, "hidden_size_per_layer_input": 0}
    return Gemma4TextConfig(**{**TEXT, **own, **changes})


def without_storage(config: Any) -> Any:
    """The model of this configuration on the meta device: shapes and ties, no memory."""
    from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaForBlockDiffusion
    from transformers.models.gemma4.modeling_gemma4 import Gemma4ForCausalLM

    kind: Any = DiffusionGemmaForBlockDiffusion if config.model_type == "diffusion_gemma" else Gemma4ForCausalLM
    with torch.device("meta"):
        return kind(config)


def random_model(config: Any, device: torch.device | str, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Any:
    """A model with random weights, filled on the device by the library's own initialisation."""
    model = without_storage(config)
    _give_storage(model, torch.device(device), dtype)
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            # Forget that it was initialised without storage.
            module._is_hf_initialized = False  # noqa: SLF001
        model.initialize_weights()
        for module in model.modules():
            # The library's initialisation leaves out this one buffer.
            if hasattr(module, "compute_axial_rope_parameters"):
                module.inv_freq.copy_(module.compute_axial_rope_parameters(module.config)[0])
    return model.eval().requires_grad_(requires_grad=False)


# Of a settled model: the logit of other tokens before the cap; by how much that of the settled one is greater, in
# shares of the logarithm of how many others there are; what all else that the head sees counts, so that it stays so.
_COMMON, _AHEAD, _REST = 10.0, 0.6, 0.2


def settle(model: Any, token: int) -> None:
    """Have a diffusion model of random weights write this token everywhere, never quite sure, and never doubt it.

    Text of random weights is another at each look: it is doubted and written again, which a trained model's seldom is.
    Here the first channel is one that every embedding has and no layer reads or changes; the head reads little else,
    and this token has more of it. So steps are taken to the last (acceptance by entropy ends nothing at the default
    temperatures), and all other arithmetic is that of random weights.
    """
    decoder, text = model.model.decoder, model.config.get_text_config()
    embedding_VH = decoder.embed_tokens.weight.data
    spread = text.hidden_size * float(text.initializer_range) ** 2
    cap = float(text.final_logit_softcapping)
    ahead = cap * math.tanh(_COMMON / cap) + _AHEAD * math.log(len(embedding_VH))
    embedding_VH[:, 0] = 1.0
    embedding_VH[token, 0] = cap * math.atanh(ahead / cap) / _COMMON
    told = decoder.self_conditioning
    told.pre_norm.weight.data[0] = 0.0
    told.down_proj.weight.data[0] = 0.0
    for layer in decoder.layers:
        for name in _NORMS:
            getattr(layer, name).weight.data[0] = 0.0
        layer.router.scale.data[0] = 0.0
    # Beside the channel (one of the width), what embeddings have else, and two normed parts that each layer adds.
    channel = text.hidden_size / (1.0 + spread)
    rest = spread / (1.0 + spread) + 2.0 * len(decoder.layers)
    seen = (channel / (channel / text.hidden_size + rest)) ** 0.5
    decoder.norm.weight.data.fill_(_REST)
    decoder.norm.weight.data[0] = _COMMON / seen


_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "pre_feedforward_layernorm_2",
    "post_feedforward_layernorm",
)


def _give_storage(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Storage for every parameter and buffer; what was shared stays shared, which `to_empty` would undo."""
    given: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():  # noqa: SLF001
            if weight is None:
                continue
            if id(weight) not in given:
                empty = torch.empty(weight.shape, dtype=dtype, device=device)
                given[id(weight)] = nn.Parameter(empty, requires_grad=False)
            module._parameters[name] = given[id(weight)]  # noqa: SLF001
        for name, buffer in module._buffers.items():  # noqa: SLF001
            if buffer is not None:
                # Frequencies of the rotary embedding stay in float32, as after loading a checkpoint.
                kind = dtype if buffer.is_floating_point() and "inv_freq" not in name else buffer.dtype
                module._buffers[name] = torch.ones(buffer.shape, dtype=kind, device=device)  # noqa: SLF001
