"""The denoising loop: encode once, denoise many times, locks re-imposed before and after every step.

The loop of transformers' `generate` keeps nothing of a given canvas. This one is the same where nothing is locked (with
`draw_by_race` number for number), and counts free positions only where something is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from inlay_model.errors import Cancelled, NotANumber
from inlay_model.passes import Passes, Reader, View, driven
from inlay_model.schedule import Sampler, begins_again, is_done, temperature
from inlay_model.step import (
    Draw,
    Earlier,
    Fixed,
    Step,
    certain_logits,
    denoise,
    draw_by_inverse,
    half_way,
    impose,
    mean_free_entropy,
    noise,
    self_conditioning,
    unsettled_tail,
)
from inlay_model.stride import Stride


@dataclass(frozen=True, slots=True)
class Denoised:
    """A denoised batch: the emitted tokens B x L, what was accepted in the last step, and the steps taken.

    `doubt_B` is the mean entropy (nats) of each row's free positions in the last step; zero where nothing was free.
    """

    ids_BL: torch.Tensor
    accepted_BL: torch.Tensor
    doubt_B: torch.Tensor
    steps: int


def run(
    read: Reader,
    fixed: Fixed,
    sampler: Sampler,
    vocabulary: int,
    generator: torch.Generator,
    *,
    banned_V: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    on_step: Callable[[int, Step], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    draw: Draw = draw_by_inverse,
    earlier: Earlier | None = None,
) -> Denoised:
    """`denoising`, every pass of it done by this reader."""
    work = denoising(
        fixed,
        sampler,
        vocabulary,
        generator,
        banned_V=banned_V,
        dtype=dtype,
        on_step=on_step,
        cancelled=cancelled,
        draw=draw,
        earlier=earlier,
    )
    return driven(work, read)


def denoising(
    fixed: Fixed,
    sampler: Sampler,
    vocabulary: int,
    generator: torch.Generator,
    *,
    banned_V: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    on_step: Callable[[int, Step], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    draw: Draw = draw_by_inverse,
    earlier: Earlier | None = None,
) -> Passes[Denoised]:
    """Denoise until done or out of steps. Rows that are done stand still while others go on.

    `dtype` is the model's, for self-conditioning. With an `earlier` text it begins from that, late in the schedule.
    Raises `Cancelled` between two steps, `NotANumber` on NaN logits.
    """
    free_BL = fixed.free_BL
    canvas_BL = noise(fixed, vocabulary, generator)
    skipped = 0
    if earlier is not None:
        canvas_BL = half_way(canvas_BL, earlier, fixed, generator)
        skipped = sampler.steps - max(1, round(earlier.share * sampler.steps))
    argmax_BL, accepted_BL = canvas_BL, torch.zeros_like(free_BL)
    doubt_B = torch.zeros(free_BL.shape[0], device=free_BL.device)
    free = int(free_BL.sum())
    if not free:
        return Denoised(argmax_BL, accepted_BL, doubt_B, 0)
    certain_BLV: torch.Tensor | None = None
    # What the next step is told: logits, or what a reader that takes the steps itself makes of them.
    conditioning_BLV: torch.Tensor | None = None
    told_BLH: torch.Tensor | None = None
    # Rows that are done, known on the host; on the device only once there are any.
    done = [False] * free_BL.shape[0]
    stays_B1: torch.Tensor | None = None
    same_B = [0] * free_BL.shape[0]
    taken = 0
    for left in range(sampler.steps - skipped, 0, -1):
        if cancelled is not None and cancelled():
            raise Cancelled("The request was cancelled.")
        heat = temperature(left, sampler)
        # A reader that takes the step itself takes it as `denoise` does, and draws as it does.
        stride = Stride(fixed, free, heat, sampler.entropy_bound, generator, banned_V, told_BLH)
        logits_NV = yield View(
            impose(canvas_BL, fixed), free_BL, conditioning_BLV, stride=stride if draw is draw_by_inverse else None
        )
        step, told_BLH, conditioning_BLV = stride.taken, stride.told_BLH, None
        if step is None:
            step = denoise(
                logits_NV,
                canvas_BL,
                fixed,
                temperature=heat,
                entropy_bound=sampler.entropy_bound,
                generator=generator,
                banned_V=banned_V,
                draw=draw,
            )
            if certain_BLV is None:
                certain_BLV = certain_logits(fixed, vocabulary, dtype)
            conditioning_BLV = self_conditioning(certain_BLV, fixed, step.logits_NV)
        taken += 1
        new_BL = step.argmax_BL if stays_B1 is None else torch.where(stays_B1, argmax_BL, step.argmax_BL)
        doubt_B = mean_free_entropy(step, fixed)
        seen = _looked_at(step, fixed, new_BL == argmax_BL, doubt_B)
        # Before the first step there is no earlier prediction to agree with.
        same_B = [count + 1 if row.same and taken > 1 else 0 for count, row in zip(same_B, seen, strict=True)]
        argmax_BL, accepted_BL = new_BL, step.accepted_BL
        canvas_BL = step.canvas_BL if stays_B1 is None else torch.where(stays_B1, canvas_BL, step.canvas_BL)
        if on_step is not None:
            on_step(taken, step)
        done = [before or _is_done(row, same, sampler) for before, row, same in zip(done, seen, same_B, strict=True)]
        if all(done):
            break
        if any(done):
            stays_B1 = torch.tensor(done, device=free_BL.device).unsqueeze(-1)
        if begins_again(skipped + taken, sampler):
            tail_BL = unsettled_tail(step.entropy_BL, free_BL, sampler.entropy_bound)
            if stays_B1 is not None:
                tail_BL &= ~stays_B1
            canvas_BL = torch.where(tail_BL, noise(fixed, vocabulary, generator), argmax_BL)
            # As in the first step: what was foretold of the tail is what is to be forgotten.
            conditioning_BLV, told_BLH = None, None
    return Denoised(argmax_BL, accepted_BL, doubt_B, taken)


class _Seen(NamedTuple):
    """What the host looks at after a step, of one row."""

    same: bool
    doubt: float
    settled: bool


def _looked_at(step: Step, fixed: Fixed, same_BL: torch.Tensor, doubt_B: torch.Tensor) -> list[_Seen]:
    """All of it at once: each look waits for the device, which stands still meanwhile. Raises `NotANumber`."""
    settled_B = (step.accepted_BL | fixed.locked_BL).all(-1)
    looked_3B = torch.stack((same_BL.all(-1).to(doubt_B.dtype), doubt_B, settled_B.to(doubt_B.dtype))).tolist()
    if any(value != value for value in looked_3B[1]):  # noqa: PLR0124 - only NaN differs from itself
        raise NotANumber("The model gave NaN logits; the checkpoint is damaged or its precision does not suffice.")
    return [_Seen(bool(same), doubt, bool(settled)) for same, doubt, settled in zip(*looked_3B, strict=True)]


def _is_done(row: _Seen, same: int, sampler: Sampler) -> bool:
    if sampler.early_stop and sampler.stop_when_accepted and row.settled:
        return True
    return is_done(same, row.doubt, sampler)
