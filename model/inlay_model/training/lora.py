"""Adapters while they are trained: PEFT's layers in the text stack, one and the same where weights are shared.

DiffusionGemma's encoder and decoder share their weights, so a plain adapter is attached twice and learns two changes of
one weight, which cannot be added to it. Here the encoder's A and B are the decoder's.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from inlay_model.adapters import WEIGHTS, digest_of_adapter
from inlay_model.loading import Checkpoint
from inlay_model.provenance import ABOUT
from inlay_model.training.recipe import Lora

_NAME = "default"
# The linear layers of the text stack's attention and shared MLP. A list of names alone would also match the vision
# tower, where PEFT crashes, and the self-conditioning; "all-linear" would match the router.
_PLACES = r"model\.(?:encoder\.language_model|decoder|language_model)\.layers\.\d+\.(?:self_attn|mlp)\.(?:{names})"


def attach(model: Any, lora: Lora, seed: int, base: str) -> list[torch.nn.Parameter]:
    """Put adapters that change nothing yet into the model; returns the parameters to train, in float32."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_PLACES.format(names="|".join(lora.targets)),
        base_model_name_or_path=base,
    )
    model.requires_grad_(False)
    torch.manual_seed(seed)
    inject_adapter_in_model(config, model, _NAME)
    _share(model)
    parameters = {id(p): p for layer in dict(_layers(model)).values() for p in _own(layer)}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return list(parameters.values())


def adapter_state(model: Any) -> dict[str, torch.Tensor]:
    """A and B of every layer as PEFT names them; layers that share an adapter both have it."""
    return {
        f"base_model.model.{name}.lora_{part}.weight": getattr(layer, f"lora_{part}")[_NAME].weight.detach()
        for name, layer in _layers(model)
        for part in ("A", "B")
    }


def load_adapter_state(model: Any, state: dict[str, torch.Tensor]) -> None:
    """Put A and B back that `adapter_state` gave."""
    with torch.no_grad():
        for name, tensor in adapter_state(model).items():
            tensor.copy_(state[name])


def save_adapter(model: Any, base: Checkpoint, about: dict[str, Any], folder: Path) -> str:
    """Write the adapter in PEFT's format, with what it was made for and how; returns its digest."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = copy.copy(model.peft_config[_NAME])
    config.inference_mode = True
    config.save_pretrained(str(folder))
    # Layers that share an adapter are written twice, so that PEFT itself reads it as it is meant.
    tensors = {name: tensor.cpu().to(base.model.dtype).clone() for name, tensor in adapter_state(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    digest = digest_of_adapter(folder)
    card = {
        "kind": "adapter",
        "base": base.about.name,
        "base_weights_digest": base.weights_digest,
        "digest": digest,
        **about,
    }
    (folder / ABOUT).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return digest


def _share(model: Any) -> None:
    """Give layers that share a weight one adapter."""
    first: dict[int, Any] = {}
    for _, layer in _layers(model):
        kept = first.setdefault(id(layer.base_layer.weight), layer)
        for part in ("lora_A", "lora_B"):
            getattr(layer, part)[_NAME] = getattr(kept, part)[_NAME]


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _own(layer: Any) -> list[torch.nn.Parameter]:
    return [layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight]
