"""The training objective: what a batch's canvases look like and what the model is asked to predict.

The objective of arXiv 2607.01436: uniform noise, two passes with self-conditioning in half of the examples, flat
cross-entropy over all positions of the canvas, its EOS fill included.

Shape suffixes: B batch, L canvas length, P patches, D values of a patch, T prompt tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inlay_model.phantom.findings import SLOTS
from inlay_model.prefix import encoder_masks


def with_noise(canvas_BL: Tensor, noise_BL: Tensor, vocabulary: int, generator: torch.Generator) -> Tensor:
    """Replace the tokens under `noise_BL` by uniform random ones."""
    random_BL = torch.randint(vocabulary, canvas_BL.shape, generator=generator, device=canvas_BL.device)
    return torch.where(noise_BL, random_BL, canvas_BL)


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


def encode_image(model: Any, values_BPD: Tensor, positions_BP2: Tensor) -> Tensor:
    """Soft tokens of images, shape (B, soft tokens, hidden)."""
    features: Tensor = model.model.encoder.get_image_features(values_BPD, positions_BP2, return_dict=True).pooler_output
    return features.view(len(values_BPD), -1, features.shape[-1])


def encode_prompt(model: Any, prompt_T: Tensor, types_T: Tensor, image_tokens: Tensor) -> Any:
    """Key-value cache of one prompt on every image of a batch; gradients flow through it."""
    from transformers import DynamicCache
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    batch = len(image_tokens)
    ids_BT, types_BT = (row.unsqueeze(0).expand(batch, -1) for row in (prompt_T, types_T))
    features = BaseModelOutputWithPooling(pooler_output=image_tokens.flatten(0, 1))
    encoded = model.model.encoder(
        input_ids=ids_BT,
        attention_mask=encoder_masks(model, ids_BT, types_BT),
        past_key_values=DynamicCache(config=model.config.get_text_config()),
        mm_encoder_outputs={"image": features},
    )
    return encoded.past_key_values


def denoising_loss(
    model: Any, cache: Any, canvas_BL: Tensor, target_BL: Tensor, generator: torch.Generator, conditioned: float = 0.5
) -> Tensor:
    """Mean cross-entropy over all canvas positions, with self-conditioning for a share of the examples."""
    with torch.no_grad():
        first = model(past_key_values=cache, decoder_input_ids=canvas_BL).logits
    keep_B = torch.rand(len(canvas_BL), generator=generator, device=canvas_BL.device) < conditioned
    logits_BLV = model(
        past_key_values=cache,
        decoder_input_ids=canvas_BL,
        self_conditioning_logits=first,
        self_conditioning_mask=keep_B,
    ).logits
    return functional.cross_entropy(logits_BLV.flatten(0, 1), target_BL.flatten())


class FindingHeads(torch.nn.Module):
    """Auxiliary classifiers, one per finding slot, that read image tokens through attention of their own.

    They exist while training only: without them the model writes plausible reports for a long time before it
    begins to look at the image.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = torch.nn.Parameter(torch.randn(len(SLOTS), width) * width**-0.5)
        self.norm = torch.nn.LayerNorm(width)
        self.keys = torch.nn.Linear(width, width)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, len(values)) for values in SLOTS.values())

    def forward(self, image_tokens: Tensor) -> list[Tensor]:
        """Logits of every slot from image tokens (B, soft tokens, hidden): one tensor (B, values) per slot."""
        tokens = self.norm(image_tokens)
        scores = torch.einsum("sw,btw->bst", self.queries, self.keys(tokens)) * tokens.shape[-1] ** -0.5
        seen = torch.einsum("bst,btw->bsw", scores.softmax(-1), tokens)
        return [head(seen[:, slot]) for slot, head in enumerate(self.heads)]

    def loss(self, image_tokens: Tensor, findings: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy over slots, and the share of images with every slot right."""
        logits = self(image_tokens)
        losses = [functional.cross_entropy(each, findings[:, slot]) for slot, each in enumerate(logits)]
        right = torch.stack([each.argmax(-1) == findings[:, slot] for slot, each in enumerate(logits)])
        return torch.stack(losses).mean(), right.all(dim=0).float().mean()
