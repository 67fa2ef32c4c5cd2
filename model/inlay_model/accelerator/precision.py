"""A model in bf16, fp8 or 4 bits: experts are packed layer by layer on the device, all else stays as it is.

The library's own modules go on working: their experts are computed from the packed weights. On a CPU they are widened
expert by expert, which is slow and exact: so a precision's quality can be measured without a GPU.
"""

from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from inlay_model.accelerator.packing import GROUP, Experts, pack
from inlay_model.accelerator.reference import Reference
from inlay_model.errors import BadRequest

Precision = Literal["bf16", "fp8", "4bit"]
BITS: Final = {"fp8": 8, "4bit": 4}
NAME: Final = "inlay-packed"


def check_precision(name: str, config: Any) -> None:
    """Raise `BadRequest` for a precision that is unknown or that this configuration's sizes rule out."""
    if name not in get_args(Precision):
        raise BadRequest(f"There is no precision {name}; there are {', '.join(get_args(Precision))}.")
    text = config.get_text_config()
    if name == "4bit" and (text.hidden_size % (2 * GROUP) or text.moe_intermediate_size % (2 * GROUP)):
        raise BadRequest(f"4bit needs experts whose sizes are multiples of {2 * GROUP}.")


def apply_precision(model: Any, precision: str, device: torch.device) -> None:
    """Pack the experts of a loaded model onto the device; `bf16` leaves it as it is.

    At no time are the wide experts of more than one layer on the device beside the packed ones.
    """
    check_precision(precision, model.config)
    if precision == "bf16":
        return
    _register()
    text = model.config.get_text_config()
    encoder, decoder = model.model.encoder.language_model, model.model.decoder
    for of_decoder, of_encoder in zip(decoder.layers, encoder.layers, strict=True):
        wide = of_decoder.experts
        packed = pack(wide.gate_up_proj.detach().to(device), wide.down_proj.detach().to(device), BITS[precision])
        for experts in (of_decoder.experts, of_encoder.experts):
            experts.packed = packed
            for name in ("gate_up_proj", "down_proj"):
                # Nothing of the wide weights may stay reachable; the names stay for whoever lists parameters, on the
                # device of the others: a model with parameters on two devices is taken for one that is spread.
                nothing = torch.empty(0, dtype=wide_dtype(model), device=device)
                setattr(experts, name, nn.Parameter(nothing, requires_grad=False))
    # The public setter asks a list that knows no registered implementation.
    text._experts_implementation_internal = NAME  # noqa: SLF001


def wide_dtype(model: Any) -> torch.dtype:
    """Dtype of what is not packed."""
    dtype: torch.dtype = model.model.decoder.embed_tokens.weight.dtype
    return dtype


def packed_bytes(model: Any) -> int:
    """Memory of all packed experts; zero for a model that has none."""
    layers = model.model.decoder.layers
    return sum(layer.experts.packed.nbytes for layer in layers if hasattr(layer.experts, "packed"))


def packed_experts(experts: Any, hidden_NH: Tensor, chosen_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """Experts' weighted output N x H from packed weights, in the library's interface."""
    packed: Experts = experts.packed
    pairs_SH = _kernels(hidden_NH.device).experts(hidden_NH, chosen_NK.int(), packed)
    weighted_NKH = pairs_SH.view(*chosen_NK.shape, -1).float() * weights_NK.unsqueeze(-1)
    summed_NH: Tensor = weighted_NKH.sum(1).to(hidden_NH.dtype)
    return summed_NH


def _kernels(device: torch.device) -> Reference:
    if device.type == "cuda":
        from inlay_model.accelerator.accelerated import best_kernels

        return best_kernels(device)
    return Reference()


def _register() -> None:
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, packed_experts)
