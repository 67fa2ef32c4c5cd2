import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
    LinearTemperatureScheduleLogitsProcessor,
    StableAndConfidentStoppingCriteria,
)

from inlay_model.schedule import BEGIN_AGAIN, Sampler, begins_again, is_done, temperature
from inlay_model.step import (
    IMPOSSIBLE,
    Fixed,
    accept,
    certain_logits,
    denoise,
    draw_by_inverse,
    draw_by_race,
    impose,
    mean_free_entropy,
    noise,
    self_conditioning,
    unsettled_tail,
)

V = 11


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def fixed_of(mask: list[bool], token: int = 3) -> Fixed:
    """One canvas, locked to this token where the mask is true."""
    locked_BL = torch.tensor([mask])
    return Fixed(torch.full(locked_BL.shape, token), locked_BL)


masks = st.lists(st.booleans(), min_size=1, max_size=12).filter(lambda mask: not all(mask))


@settings(deadline=None)
@given(mask=masks, seed=st.integers(0, 99), temperature_=st.sampled_from([0.05, 0.4, 0.8]), bound=st.floats(0.01, 50))
def test_a_step_never_touches_a_lock(mask: list[bool], seed: int, temperature_: float, bound: float) -> None:
    """After a step, canvas and argmax hold every locked token, and no locked position counts as accepted."""
    fixed = fixed_of(mask)
    logits_NV = torch.randn(mask.count(False), V, generator=generator(seed)) * 9
    canvas_BL = noise(fixed, V, generator(seed))
    step = denoise(
        logits_NV, canvas_BL, fixed, temperature=temperature_, entropy_bound=bound, generator=generator(seed)
    )
    for tokens_BL in (step.canvas_BL, step.argmax_BL, canvas_BL):
        assert bool((tokens_BL[fixed.locked_BL] == 3).all())
    assert not bool((step.accepted_BL & fixed.locked_BL).any())
    assert not bool(step.entropy_BL.isnan().any())
    assert bool(step.accepted_BL.any())


@settings(deadline=None)
@given(seed=st.integers(0, 99), bound=st.sampled_from([0.01, 0.1, 1.0, 5.0]), scale=st.sampled_from([0.5, 3.0, 20.0]))
def test_acceptance_is_that_of_transformers_where_nothing_is_locked(seed: int, bound: float, scale: float) -> None:
    """With every position free, the accepted positions are EntropyBoundSampler's."""
    logits_BLV = torch.randn(2, 9, V, generator=generator(seed)) * scale
    theirs: Any = EntropyBoundSampler(EntropyBoundSamplerConfig(bound), 9, V, 16)
    canvas_BL = torch.zeros(2, 9, dtype=torch.long)
    theirs.accept_canvas(canvas_BL, canvas_BL, logits_BLV, 1)
    log_p_BLV = logits_BLV.log_softmax(-1)
    entropy_BL = -(log_p_BLV.exp() * log_p_BLV).sum(-1)
    ours_BL = accept(entropy_BL, torch.ones(2, 9, dtype=torch.bool), bound)
    assert torch.equal(ours_BL, theirs.accepted_token_mask)


def test_the_entropy_budget_is_spent_on_free_positions_only() -> None:
    """Locked positions of entropy zero neither use the budget nor make room in it."""
    entropy_BL = torch.tensor([[0.0, 0.0, 0.0, 0.06, 0.05, 0.2]])
    free_BL = torch.tensor([[False, False, False, True, True, True]])
    assert accept(entropy_BL, free_BL, 0.1).tolist() == [[False, False, False, True, True, False]]


def test_drawing_by_race_is_torch_multinomial() -> None:
    """The racing draw gives the tokens of torch.multinomial with the same generator."""
    p_NV = (torch.randn(20, V, generator=generator()) * 2).softmax(-1)
    theirs_N = torch.multinomial(p_NV, 1, generator=generator(8)).squeeze(-1)
    assert torch.equal(draw_by_race(p_NV, generator(8)), theirs_N)


def test_drawing_by_inverse_follows_the_probabilities() -> None:
    """Frequencies match probabilities, and a token of probability zero is never drawn, at the ends neither."""
    p_V = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    drawn_N = draw_by_inverse(p_V.expand(40000, -1), generator())
    counts_V = torch.bincount(drawn_N, minlength=6) / 40000
    assert torch.allclose(counts_V, p_V, atol=0.01)
    assert counts_V[[0, 2, 5]].tolist() == [0.0, 0.0, 0.0]


def test_banned_tokens_are_never_written() -> None:
    """A banned token is neither sampled, nor emitted, however likely the model finds it."""
    fixed = fixed_of([False] * 50)
    logits_NV = torch.zeros(50, V)
    logits_NV[:, 4] = 30.0
    banned_V = torch.zeros(V, dtype=torch.bool)
    banned_V[4] = True
    step = denoise(
        logits_NV,
        noise(fixed, V, generator()),
        fixed,
        temperature=0.5,
        entropy_bound=1e6,
        generator=generator(),
        banned_V=banned_V,
    )
    assert bool(step.accepted_BL.all())
    assert not bool((step.canvas_BL == 4).any())
    assert not bool((step.argmax_BL == 4).any())


def test_self_conditioning_is_certain_at_locks_and_the_logits_elsewhere() -> None:
    """Locked positions become one-hot under softmax without NaN in any precision; free ones keep their logits."""
    fixed = fixed_of([True, False])
    logits_NV = torch.randn(1, V)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        told_BLV = self_conditioning(certain_logits(fixed, V, dtype), fixed, logits_NV)
        p_BLV = told_BLV.float().softmax(-1)
        assert p_BLV[0, 0].tolist() == [float(token == 3) for token in range(V)]
        assert torch.equal(told_BLV[0, 1], logits_NV[0].to(dtype))
        assert not bool(torch.isnan(p_BLV.log().clamp(min=IMPOSSIBLE)).any())


def test_temperature_follows_the_schedule_of_transformers() -> None:
    """Every step's temperature equals LinearTemperatureScheduleLogitsProcessor's."""
    sampler = Sampler(16, 0.4, 0.8, 0.1, 1, 0.005, early_stop=True)
    theirs: Any = LinearTemperatureScheduleLogitsProcessor(0.4, 0.8, 16)
    for left in range(16, 0, -1):
        assert (
            abs(
                float(theirs(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), left)) - 1 / temperature(left, sampler)
            )
            < 1e-6
        )


def test_stopping_is_that_of_transformers_where_nothing_is_locked() -> None:
    """Stable for long enough and confident on average, in the same step as StableAndConfidentStoppingCriteria."""
    sure_BLV, unsure_BLV = torch.zeros(1, 2, V), torch.zeros(1, 2, V)
    sure_BLV[..., 1] = 50.0
    for threshold in (0, 1, 2):
        theirs: Any = StableAndConfidentStoppingCriteria(threshold, 0.005)
        sampler = Sampler(16, 0.4, 0.8, 0.1, threshold, 0.005, early_stop=True)
        same, last = 0, None
        for tokens, logits_BLV in [([1, 1], sure_BLV), ([1, 2], sure_BLV), ([1, 2], unsure_BLV), ([1, 2], sure_BLV)]:
            same = same + 1 if tokens == last else 0
            last = tokens
            log_p_BLV = logits_BLV.log_softmax(-1)
            entropy = float(-(log_p_BLV.exp() * log_p_BLV).sum(-1).mean())
            assert bool(theirs(torch.tensor([tokens]), logits_BLV)) == is_done(same, entropy, sampler)


def test_confidence_is_measured_on_free_positions_only() -> None:
    """The mean entropy of a row ignores its locked positions, which would dilute it."""
    fixed = fixed_of([True] * 9 + [False])
    step = denoise(
        torch.zeros(1, V),
        noise(fixed, V, generator()),
        fixed,
        temperature=1.0,
        entropy_bound=0.1,
        generator=generator(),
    )
    assert float(mean_free_entropy(step.entropy_BL, fixed.free_BL)) == pytest.approx(math.log(V), abs=1e-5)


def test_imposing_is_idempotent() -> None:
    """Locks imposed twice are locks imposed once, and free positions stay."""
    fixed = fixed_of([True, False, True])
    once_BL = impose(torch.tensor([[7, 8, 9]]), fixed)
    assert once_BL.tolist() == [[3, 8, 3]]
    assert torch.equal(impose(once_BL, fixed), once_BL)


def test_an_unsettled_canvas_begins_again_from_its_first_doubt() -> None:
    """The tail is every free position from the first uncertain one on; locked and settled ones stay."""
    entropy = torch.tensor([[0.0, 0.1, 0.9, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    free = torch.tensor([[True, True, True, False, True], [True, True, True, True, True]])
    tail = unsettled_tail(entropy, free, 0.3)
    assert tail.tolist() == [[False, False, True, False, True], [False] * 5]


def test_beginning_again_is_for_shares_of_the_budget_and_never_for_the_last_step() -> None:
    """Sixteen steps begin again after 7 and 12; without shares none does, and one step leaves no time to."""
    sampler = Sampler(16, 0.4, 0.8, 0.1, 1, 0.005, early_stop=True, begin_again=BEGIN_AGAIN)
    assert [taken for taken in range(1, 17) if begins_again(taken, sampler)] == [7, 12]
    assert not any(begins_again(taken, replace(sampler, begin_again=())) for taken in range(17))
    assert not begins_again(1, replace(sampler, steps=1))
