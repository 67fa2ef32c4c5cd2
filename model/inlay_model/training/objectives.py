"""Training objectives: what a model is asked to predict, and the loss, behind one small interface.

`BlockDiffusion` is the objective of arXiv 2607.01436: uniform noise, two passes with self-conditioning in half of the
examples, flat cross-entropy over all positions of the canvas, its EOS fill included. `NextToken` is that of the
autoregressive sibling on the same targets: cross-entropy of every token given those before it, the fill left out.

Shape suffixes: B batch, H hidden width, L canvas length, N image tokens, T prompt tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from inlay_model.training.encoding import Prompts, encode_prompt
from inlay_model.vision import as_encoder_outputs


@dataclass(frozen=True, slots=True)
class Answers:
    """What stands behind the prompts of a batch, each (B, L).

    `target_BL` is the text, EOS-filled; `canvas_BL` what the model sees once `noise_BL` is replaced by random tokens.
    """

    target_BL: Tensor
    canvas_BL: Tensor
    noise_BL: Tensor

    def to(self, device: torch.device) -> Answers:
        """The same on another device."""
        target, canvas, noise = (
            each.to(device, non_blocking=True) for each in (self.target_BL, self.canvas_BL, self.noise_BL)
        )
        return Answers(target, canvas, noise)


class Objective(Protocol):
    """What a model learns by."""

    def loss(
        self, model: Any, prompts: Prompts, features_NH: Tensor | None, answers: Answers, generator: torch.Generator
    ) -> Tensor:
        """Mean loss of a batch over its supervised tokens; gradients flow into model and image tokens."""

    def supervised(self, answers: Answers) -> float:
        """How many tokens of a batch are supervised: its weight among the batches of one step."""


@dataclass(frozen=True, slots=True)
class BlockDiffusion:
    """Denoise a canvas behind the prompt. `vocabulary` is the number of tokens that noise is drawn from."""

    vocabulary: int
    conditioned: float = 0.5

    def loss(
        self, model: Any, prompts: Prompts, features_NH: Tensor | None, answers: Answers, generator: torch.Generator
    ) -> Tensor:
        """Mean cross-entropy over all canvas positions."""
        cache = encode_prompt(model, prompts, features_NH)
        canvas_BL = with_noise(answers.canvas_BL, answers.noise_BL, self.vocabulary, generator)
        around = canvas_inputs(prompts, canvas_BL)
        return denoising_loss(model, cache, canvas_BL, answers.target_BL, generator, self.conditioned, **around)

    def supervised(self, answers: Answers) -> float:
        """All positions are."""
        return float(answers.target_BL.numel())


@dataclass(frozen=True, slots=True)
class NextToken:
    """Foretell the next token of prompt and text; noise and corrupted canvas are not looked at."""

    eos: int

    def loss(
        self, model: Any, prompts: Prompts, features_NH: Tensor | None, answers: Answers, generator: torch.Generator
    ) -> Tensor:
        """Mean cross-entropy over the tokens of the text, end of turn included."""
        del generator  # Nothing is random here.
        ids_BS = torch.cat([prompts.ids_BT, answers.target_BL], dim=1)
        types_BS = torch.cat([prompts.types_BT, torch.zeros_like(answers.target_BL)], dim=1)
        out = model(
            input_ids=ids_BS,
            mm_token_type_ids=types_BS,
            mm_encoder_outputs=as_encoder_outputs(features_NH, split=True),
            logits_to_keep=answers.target_BL.shape[1] + 1,
            use_cache=False,
            **_padding(prompts, answers.target_BL),
        )
        labels_BL = answers.target_BL.masked_fill(answers.target_BL == self.eos, -100)
        logits_BLV = out.logits[:, :-1].float()
        return functional.cross_entropy(logits_BLV.flatten(0, 1), labels_BL.flatten(), ignore_index=-100)

    def supervised(self, answers: Answers) -> float:
        """All tokens but the fill."""
        return float((answers.target_BL != self.eos).sum())


def with_noise(canvas_BL: Tensor, noise_BL: Tensor, vocabulary: int, generator: torch.Generator) -> Tensor:
    """Replace the tokens under `noise_BL` by uniform random ones."""
    random_BL = torch.randint(vocabulary, canvas_BL.shape, generator=generator, device=canvas_BL.device)
    return torch.where(noise_BL, random_BL, canvas_BL)


def canvas_inputs(prompts: Prompts, canvas_BL: Tensor) -> dict[str, Tensor]:
    """Mask and positions of canvases behind padded prompts; nothing where there is no padding."""
    if prompts.real_BT is None:
        return {}
    everywhere_BL = torch.ones_like(canvas_BL, dtype=torch.bool)
    length_B1 = prompts.real_BT.sum(1, keepdim=True)
    return {
        "decoder_attention_mask": torch.cat([prompts.real_BT, everywhere_BL], dim=1),
        "decoder_position_ids": length_B1 + torch.arange(canvas_BL.shape[1], device=canvas_BL.device),
    }


def denoising_loss(
    model: Any,
    cache: Any,
    canvas_BL: Tensor,
    target_BL: Tensor,
    generator: torch.Generator,
    conditioned: float = 0.5,
    **around: Tensor,
) -> Tensor:
    """Mean cross-entropy over all canvas positions, with self-conditioning for a share of the examples."""
    with torch.no_grad():
        first = model(past_key_values=cache, decoder_input_ids=canvas_BL, **around).logits
    keep_B = torch.rand(len(canvas_BL), generator=generator, device=canvas_BL.device) < conditioned
    logits_BLV = model(
        past_key_values=cache,
        decoder_input_ids=canvas_BL,
        self_conditioning_logits=first,
        self_conditioning_mask=keep_B,
        **around,
    ).logits
    return functional.cross_entropy(logits_BLV.flatten(0, 1), target_BL.flatten())


def _padding(prompts: Prompts, target_BL: Tensor) -> dict[str, Tensor]:
    if prompts.real_BT is None:
        return {}
    real_BS = torch.cat([prompts.real_BT, torch.ones_like(target_BL, dtype=torch.bool)], dim=1)
    return {"attention_mask": real_BS, "position_ids": (real_BS.cumsum(1) - 1).clamp(min=0)}
