"""Objectives: the numbers they give, against the library's own and against a plain reckoning."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import DynamicCache

from inlay_model.experts import use_dense_experts
from inlay_model.phantom.render import ingredients, paint
from inlay_model.prefix import encoder_masks
from inlay_model.prompt import Prompt
from inlay_model.tokens import control_tokens
from inlay_model.training.architecture import new_model
from inlay_model.training.encoding import Prompts, patches, stack_prompts
from inlay_model.training.objectives import Answers, BlockDiffusion, NextToken, denoising_loss, with_noise
from inlay_model.training.phantoms import Batch, batch_at
from inlay_model.vision import encode_images
from inlay_model.vocabulary import SPECIAL_TOKENS
from inlay_testkit.tiny_training import random_model, tiny_drawing, tiny_recipe, tokenizer


def taken_in(model: Any, drawn: Batch, generator: torch.Generator) -> tuple[Prompts, torch.Tensor, Answers]:
    """Prompts, image tokens and texts of a batch of phantoms."""
    features = encode_images(model, *patches(paint(*ingredients(drawn.anatomy, generator)), 16))
    real = None if drawn.real_BT is None else torch.from_numpy(drawn.real_BT)
    prompts = Prompts(torch.from_numpy(drawn.prompt_BT), torch.from_numpy(drawn.types_BT), real)
    answers = Answers(*(torch.from_numpy(each) for each in (drawn.target_BL, drawn.canvas_BL, drawn.noise_BL)))
    return prompts, features, answers


class _Words:
    """As much of a tokenizer as a new model needs; it depends on no checkpoint and no grammar."""

    pad_token_id, eos_token_id, bos_token_id = 0, 1, 2

    def __len__(self) -> int:
        return 600

    def convert_tokens_to_ids(self, token: str) -> int:
        return SPECIAL_TOKENS.index(token)


def test_the_denoising_loss_is_that_of_the_first_trainer() -> None:
    """Loss and gradient of a fixed seed are those that the code gave before it was taken apart into modules."""
    model = new_model(tiny_recipe(), _Words())
    generator = torch.Generator().manual_seed(11)
    image = torch.randint(256, (3, 384, 384), generator=generator).to(torch.uint8)
    target, canvas = torch.randint(20, 600, (2, 3, 40), generator=generator)
    noise = torch.rand(3, 40, generator=generator) < 0.6
    words = torch.tensor([2, 4, 50, 6, *[8] * 64, 7, 60, 61, 5])
    prompts = Prompts(words.expand(3, -1), (words == 8).long().expand(3, -1))
    features = encode_images(model, *patches(image, 16))
    loss = BlockDiffusion(600).loss(model, prompts, features, Answers(target, canvas, noise), generator)
    loss.backward()
    gradient = sum(float(p.grad.double().abs().sum()) for p in model.parameters() if p.grad is not None)
    assert loss.item() == pytest.approx(6.408126354217529, abs=2e-5)
    assert gradient == pytest.approx(1051.5986348737201, rel=1e-3)


def test_the_denoising_loss_is_flat_cross_entropy_after_a_pass_of_self_conditioning() -> None:
    """A plain reckoning, example by example, gives the same loss: all positions count, EOS fill included."""
    model = random_model()
    prompt_BT = torch.randint(20, 500, (2, 9), generator=torch.Generator().manual_seed(1))
    canvas_BL, target_BL = torch.randint(20, 500, (2, 2, 12), generator=torch.Generator().manual_seed(2))
    losses = []
    for row in range(2):
        ids, canvas = prompt_BT[row : row + 1], canvas_BL[row : row + 1]
        cache = DynamicCache(config=model.config.get_text_config())
        masks = encoder_masks(model, ids, torch.zeros_like(ids))
        kept = model.model.encoder(input_ids=ids, attention_mask=masks, past_key_values=cache).past_key_values
        logits = model(past_key_values=kept, decoder_input_ids=canvas).logits
        logits = model(past_key_values=kept, decoder_input_ids=canvas, self_conditioning_logits=logits).logits
        losses.append(functional.cross_entropy(logits[0], target_BL[row]))
    objective = BlockDiffusion(len(tokenizer()), conditioned=1.0)
    answers = Answers(target_BL, canvas_BL, torch.zeros_like(canvas_BL, dtype=torch.bool))
    prompts = Prompts(prompt_BT, torch.zeros_like(prompt_BT))
    found = objective.loss(model, prompts, None, answers, torch.Generator().manual_seed(0))
    assert found.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)


def test_noise_stands_where_the_mask_says() -> None:
    """What the model is shown differs from the canvas under the mask only; the generator decides what it is."""
    shown: list[torch.Tensor] = []

    def model(**given: Any) -> Any:
        shown.append(given["decoder_input_ids"])
        return SimpleNamespace(logits=torch.zeros(1, 6, 50, requires_grad=True))

    canvas = torch.arange(6)[None]
    noise = torch.tensor([[True, False, False, True, True, False]])
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        loss = denoising_loss(model, None, with_noise(canvas, noise, 50, generator), canvas, generator)
        assert loss.item() == pytest.approx(math.log(50))
    assert all(torch.equal(each[~noise], canvas[~noise]) for each in shown)
    assert torch.equal(shown[0], shown[2])
    assert not torch.equal(shown[0], shown[4])


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_padded_prompts_give_the_loss_of_single_examples(kind: str) -> None:
    """Prompts of different lengths in one batch: the mean of what each example gives alone."""
    model = random_model(kind)
    drawn = torch.Generator().manual_seed(4)
    prompts = [Prompt(tuple(torch.randint(20, 500, (n,), generator=drawn).tolist()), (0,) * n, n) for n in (14, 9, 11)]
    target_BL = torch.randint(20, 500, (3, 10), generator=drawn)
    answers = Answers(target_BL, target_BL.flip(1), torch.zeros_like(target_BL, dtype=torch.bool))
    eos = control_tokens(tokenizer()).eos
    objective = NextToken(eos) if kind == "autoregressive" else BlockDiffusion(len(tokenizer()), conditioned=1.0)
    together = objective.loss(model, stack_prompts(prompts, pad=0), None, answers, torch.Generator())
    alone = []
    for row, prompt in enumerate(prompts):
        one = Answers(*(each[row : row + 1] for each in (answers.target_BL, answers.canvas_BL, answers.noise_BL)))
        alone.append(objective.loss(model, stack_prompts([prompt], pad=0), None, one, torch.Generator()))
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), abs=2e-5)


def test_the_next_token_loss_is_transformers_own() -> None:
    """On the same labels, with images, the library computes the same loss."""
    model = random_model("autoregressive")
    use_dense_experts(model)
    drawn = batch_at(tiny_drawing("autoregressive", size=3), (7,))
    generator = torch.Generator().manual_seed(3)
    values, positions = patches(paint(*ingredients(drawn.anatomy, generator)), 16)
    prompts, features, answers = taken_in(model, drawn, torch.Generator().manual_seed(3))
    eos = control_tokens(tokenizer()).eos
    ours = NextToken(eos).loss(model, prompts, features, answers, generator)
    labels = torch.cat(
        [torch.full_like(prompts.ids_BT, -100), answers.target_BL.masked_fill(answers.target_BL == eos, -100)], 1
    )
    padding = {}
    if prompts.real_BT is not None:
        real = torch.cat([prompts.real_BT, torch.ones_like(answers.target_BL, dtype=torch.bool)], 1)
        padding = {"attention_mask": real, "position_ids": (real.cumsum(1) - 1).clamp(min=0)}
    theirs = model(
        input_ids=torch.cat([prompts.ids_BT, answers.target_BL], 1),
        mm_token_type_ids=torch.cat([prompts.types_BT, torch.zeros_like(answers.target_BL)], 1),
        pixel_values=values,
        image_position_ids=positions,
        labels=labels,
        **padding,
    ).loss
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)


def test_the_fill_is_not_supervised_by_the_next_token() -> None:
    """More EOS after the end of turn changes neither loss nor weight; for denoising every position counts."""
    model, eos = random_model("autoregressive"), control_tokens(tokenizer()).eos
    prompts = Prompts(torch.arange(20, 30)[None], torch.zeros(1, 10, dtype=torch.long))
    text = torch.tensor([[40, 41, 42, control_tokens(tokenizer()).end_of_turn]])
    longer = functional.pad(text, (0, 5), value=eos)
    short, long = (Answers(t, t, torch.zeros_like(t, dtype=torch.bool)) for t in (text, longer))
    objective = NextToken(eos)
    losses = [objective.loss(model, prompts, None, each, torch.Generator()).item() for each in (short, long)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert objective.supervised(short) == objective.supervised(long) == 4
    assert BlockDiffusion(9).supervised(long) == 9
