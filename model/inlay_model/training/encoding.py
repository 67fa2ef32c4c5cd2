"""Images and prompts of a training batch as the model takes them in, for both kinds of model.

Shape suffixes: B batch, D values of a patch, H hidden width, N image tokens of a batch, P patches, T prompt tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inlay_model.prefix import encoder_masks
from inlay_model.prompt import Prompt
from inlay_model.vision import as_encoder_outputs


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a batch: token ids and types (1 on image tokens), both (B, T), shorter prompts padded at the left.

    `real_BT` is false on padding; None where there is none.
    """

    ids_BT: Tensor
    types_BT: Tensor
    real_BT: Tensor | None = None

    def to(self, device: torch.device) -> Prompts:
        """The same on another device."""
        real = None if self.real_BT is None else self.real_BT.to(device, non_blocking=True)
        return Prompts(self.ids_BT.to(device, non_blocking=True), self.types_BT.to(device, non_blocking=True), real)

    @property
    def position_ids(self) -> Tensor | None:
        """Positions (B, T) that count real tokens only; None where they are those of the library."""
        return None if self.real_BT is None else (self.real_BT.cumsum(1) - 1).clamp(min=0)


def stack_prompts(prompts: Sequence[Prompt], pad: int, length: Callable[[int], int] = int) -> Prompts:
    """Prompts side by side, padded at the left to what `length` makes of that of the longest."""
    most = length(max(len(prompt.ids) for prompt in prompts))
    ids_BT = torch.full((len(prompts), most), pad)
    types_BT = torch.zeros(len(prompts), most, dtype=torch.long)
    real_BT = torch.zeros(len(prompts), most, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        start = most - len(prompt.ids)
        ids_BT[row, start:] = torch.tensor(prompt.ids)
        types_BT[row, start:] = torch.tensor(prompt.mm_token_type_ids)
        real_BT[row, start:] = True
    return Prompts(ids_BT, types_BT, None if bool(real_BT.all()) else real_BT)


def with_question(prompt: Prompt, question: Sequence[int]) -> Prompt:
    """The prompt with a question at the end of the user's turn, where locked fragments would stand."""
    at = prompt.shared
    return Prompt(
        ids=(*prompt.ids[:at], *question, *prompt.ids[at:]),
        mm_token_type_ids=(*prompt.mm_token_type_ids[:at], *[0] * len(question), *prompt.mm_token_type_ids[at:]),
        shared=at,
    )


def patches(image_BHW: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Patches and their positions as the image processor of Gemma 4 makes them, without padding.

    Takes uint8 images whose sides are multiples of `patch`; returns values of 0..1, shape (B, P, D) with
    D = 3·patch² (channels innermost), and (x, y) positions, shape (B, P, 2).
    """
    batch, height, width = image_BHW.shape
    rows, columns = height // patch, width // patch
    grid = image_BHW.view(batch, rows, patch, columns, patch).permute(0, 1, 3, 2, 4)
    grey = grid.reshape(batch, rows * columns, patch * patch).to(torch.float32) / 255
    y, x = torch.meshgrid(
        torch.arange(rows, device=grey.device), torch.arange(columns, device=grey.device), indexing="ij"
    )
    positions = torch.stack([x, y], dim=-1).reshape(1, rows * columns, 2).expand(batch, -1, -1)
    return grey.repeat_interleave(3, dim=-1), positions


def text_layers(model: Any) -> list[Any]:
    """All layers of the text stack; those of DiffusionGemma's encoder and decoder share their weights."""
    if hasattr(model.model, "encoder"):
        return [*model.model.encoder.language_model.layers, *model.model.decoder.layers]
    return list(model.model.language_model.layers)


def encode_prompt(model: Any, prompts: Prompts, features_NH: Tensor | None) -> Any:
    """Key-value cache of a DiffusionGemma's prompts with their images; gradients flow through it."""
    from transformers import DynamicCache

    encoded = model.model.encoder(
        input_ids=prompts.ids_BT,
        attention_mask=encoder_masks(model, prompts.ids_BT, prompts.types_BT, prompts.real_BT),
        past_key_values=DynamicCache(config=model.config.get_text_config()),
        position_ids=prompts.position_ids,
        mm_encoder_outputs=as_encoder_outputs(features_NH),
    )
    return encoded.past_key_values
