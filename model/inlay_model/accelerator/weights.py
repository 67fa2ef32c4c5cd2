"""The weights of a loaded model as the lean passes read them: projections joined, one record per layer, no copies.

Joined projections replace the model's own tensors by views of themselves, so the eager path computes with the same
memory. A model that is not made of plain modules (adapters not merged, layers spread over devices) is refused by name.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inlay_model.accelerator.packing import Experts, pack
from inlay_model.accelerator.reference import Heads


class Unfit(Exception):
    """The model or the request cannot be run by the accelerated path; the eager path can. The message says why."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, shared by encoder and decoder but for the scalars at its end."""

    sliding: bool
    projection: Tensor
    heads: Heads
    out: Tensor
    input_norm: Tensor
    # After attention, before the shared MLP, before the experts.
    middle_norms: tuple[Tensor, Tensor, Tensor]
    router: Tensor
    router_scale: Tensor
    expert_scale: Tensor
    experts: Experts
    mlp_up: Tensor
    mlp_down: Tensor
    # Of the shared MLP's output, of the experts' output, of their sum.
    end_norms: tuple[Tensor, Tensor, Tensor]
    encoder_scalar: Tensor
    decoder_scalar: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole text model: layers, embedding (which is the head too), self-conditioning."""

    layers: tuple[Layer, ...]
    embedding: Tensor
    embed_scale: float
    final_norm: Tensor
    told_norm: Tensor
    told_up: Tensor
    told_down: Tensor
    eps: float
    cap: float
    top_k: int
    window: int

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and of all weights that are not packed."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where all of it is."""
        return self.embedding.device

    @property
    def hidden(self) -> int:
        """Width of a row."""
        return int(self.embedding.shape[1])

    @property
    def vocabulary(self) -> int:
        """Tokens of the head."""
        return int(self.embedding.shape[0])


def weights_of(model: Any) -> Weights:
    """The weights of a DiffusionGemmaForBlockDiffusion; raises `Unfit` where they are not plain and in one place."""
    text = model.config.get_text_config()
    decoder, encoder = model.model.decoder, model.model.encoder.language_model
    devices = {weight.device for weight in decoder.parameters()}
    if len(devices) != 1 or hasattr(model, "hf_device_map"):
        raise Unfit("its layers are spread over devices")
    if model.lm_head.weight is not decoder.embed_tokens.weight:
        raise Unfit("its head is not its embedding")
    if text.hidden_activation != "gelu_pytorch_tanh" or text.attention_bias:
        raise Unfit("its activation or its attention is of another kind")
    layers = tuple(
        _layer(of_decoder, of_encoder, text)
        for of_decoder, of_encoder in zip(decoder.layers, encoder.layers, strict=True)
    )
    told = decoder.self_conditioning
    return Weights(
        layers=layers,
        embedding=_plain(decoder.embed_tokens).detach(),
        embed_scale=float(decoder.embed_tokens.embed_scale.to(decoder.embed_tokens.weight.dtype)),
        final_norm=decoder.norm.weight.detach(),
        told_norm=told.pre_norm.weight.detach(),
        told_up=_joined(told.gate_proj, told.up_proj),
        told_down=_plain(told.down_proj).detach(),
        eps=float(text.rms_norm_eps),
        cap=float(model.final_logit_softcapping),
        top_k=int(text.top_k_experts),
        window=int(text.sliding_window),
    )


def _layer(of_decoder: Any, of_encoder: Any, text: Any) -> Layer:
    attention = of_decoder.self_attn
    # An adapter may have untied any of them, and the passes of both sides read the decoder's.
    linear = ((name, module) for name, module in of_decoder.named_modules() if type(module) is nn.Linear)
    if any(module.weight is not of_encoder.get_submodule(name).weight for name, module in linear):
        raise Unfit("its encoder and decoder do not share weights")
    own = attention.v_proj is not None
    parts = (attention.q_proj, attention.k_proj, *((attention.v_proj,) if own else ()))
    width = attention.head_dim
    kv_heads = attention.k_proj.weight.shape[0] // width
    router = of_decoder.router
    return Layer(
        sliding=bool(attention.is_sliding),
        projection=_joined(*parts),
        heads=Heads(
            attention.q_norm.weight.detach(),
            attention.k_norm.weight.detach(),
            int(text.num_attention_heads),
            int(kv_heads),
            int(width),
            own,
        ),
        out=_plain(attention.o_proj).detach(),
        input_norm=of_decoder.input_layernorm.weight.detach(),
        middle_norms=(
            of_decoder.post_attention_layernorm.weight.detach(),
            of_decoder.pre_feedforward_layernorm.weight.detach(),
            of_decoder.pre_feedforward_layernorm_2.weight.detach(),
        ),
        router=_plain(router.proj).detach(),
        router_scale=router.scale.detach(),
        expert_scale=router.per_expert_scale.detach(),
        experts=_experts(of_decoder.experts),
        mlp_up=_joined(of_decoder.mlp.gate_proj, of_decoder.mlp.up_proj),
        mlp_down=_plain(of_decoder.mlp.down_proj).detach(),
        end_norms=(
            of_decoder.post_feedforward_layernorm_1.weight.detach(),
            of_decoder.post_feedforward_layernorm_2.weight.detach(),
            of_decoder.post_feedforward_layernorm.weight.detach(),
        ),
        encoder_scalar=of_encoder.layer_scalar,
        decoder_scalar=of_decoder.layer_scalar,
    )


def _experts(experts: Any) -> Experts:
    packed = getattr(experts, "packed", None)
    if isinstance(packed, Experts):
        return packed
    return pack(experts.gate_up_proj.detach(), experts.down_proj.detach(), 16)


def _plain(module: Any) -> Tensor:
    if type(module) is not nn.Linear and not isinstance(module, nn.Embedding):
        raise Unfit(
            f"a {type(module).__name__} stands where a plain layer is expected (an adapter that is not merged?)"
        )
    if getattr(module, "bias", None) is not None:
        raise Unfit("a layer has a bias")
    weight: Tensor = module.weight
    return weight


def _joined(*modules: Any) -> Tensor:
    """The weights of these layers below each other; each layer keeps its rows as a view of them."""
    weights = [_plain(module).detach() for module in modules]
    first, *others = weights
    base = first._base if first._base is not None else first  # noqa: SLF001 - a view tells what it is a view of
    rows = sum(len(weight) for weight in weights)
    if len(base) == rows and all(weight._base is base for weight in others):  # noqa: SLF001
        return base
    joined = torch.cat(weights)
    at = 0
    for module, weight in zip(modules, weights, strict=True):
        module.weight.data = joined[at : at + len(weight)]
        at += len(weight)
    return joined
