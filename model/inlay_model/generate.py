"""The denoising loop: encode once, denoise many times, locks re-imposed before and after every step.

The loop of transformers' `generate` keeps nothing of a given canvas. This one is the same where nothing is locked (with
`draw_by_race` number for number), and counts free positions only where something is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from inlay_model.errors import Cancelled
from inlay_model.passes import Passes, Reader, Underway, View, as_numbers, driven
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
    noise,
    self_conditioning,
    unsettled_tail,
)
from inlay_model.stride import Numbers, Stride


@dataclass(frozen=True, slots=True)
class Denoised:
    """A denoised batch: the emitted tokens B x L, what was accepted in the last step, and the steps taken.

    `doubts` are the mean entropies (nats) of each row's free positions in the last step; zero where nothing was free.
    """

    ids_BL: torch.Tensor
    accepted_BL: torch.Tensor
    doubts: tuple[float, ...]
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
    rows = _Rows(len(canvas_BL), sampler)
    free = int(free_BL.sum())
    if not free:
        return Denoised(argmax_BL, accepted_BL, rows.doubts, 0)
    numbers = Numbers(fixed, free, vocabulary, generator)
    steps = _Steps(fixed, sampler.entropy_bound, numbers, vocabulary, dtype, banned_V, draw, _Telling(on_step))
    for left in range(sampler.steps - skipped, 0, -1):
        if cancelled is not None and cancelled():
            raise Cancelled("The request was cancelled.")
        renews = begins_again(sampler.steps - left + 1, sampler)
        # Nothing is known of a step that begins anew, and there is none after the last.
        following = None if renews or left == 1 else temperature(left - 1, sampler)
        step, seen = yield from steps.take(canvas_BL, argmax_BL, temperature(left, sampler), following)
        argmax_BL, canvas_BL = rows.kept(argmax_BL, step.argmax_BL), rows.kept(canvas_BL, step.canvas_BL)
        accepted_BL = step.accepted_BL
        rows.see(seen, first=steps.taken == 1)
        if rows.all_done:
            break
        if renews:
            tail_BL = rows.going_on(unsettled_tail(step.entropy_BL, free_BL, sampler.entropy_bound))
            canvas_BL = torch.where(tail_BL, noise(fixed, vocabulary, generator), argmax_BL)
            # As in the first step: what was foretold of the tail is what is to be forgotten.
            steps.forget()
    steps.end()
    return Denoised(argmax_BL, accepted_BL, rows.doubts, steps.taken)


class _Seen(NamedTuple):
    """What the host looks at after a step, of one row."""

    same: bool
    doubt: float
    settled: bool


_Looked = tuple[Step, list[_Seen]]


class _Asked(NamedTuple):
    """A step to be asked for: the canvas that it begins from, how it is taken, and what the model is shown."""

    canvas_BL: torch.Tensor
    stride: Stride
    view: View


class _Steps:
    """Takes the steps of a run, from logits or on the device as the reader has it; holds what one tells the next."""

    def __init__(
        self,
        fixed: Fixed,
        entropy_bound: float,
        numbers: Numbers,
        vocabulary: int,
        dtype: torch.dtype,
        banned_V: torch.Tensor | None,
        draw: Draw,
        telling: "_Telling",
    ) -> None:
        self._fixed, self._free_BL = fixed, fixed.free_BL
        self._bound, self._numbers, self._banned_V, self._draw = entropy_bound, numbers, banned_V, draw
        self._vocabulary, self._dtype, self._telling = vocabulary, dtype, telling
        self._certain_BLV: torch.Tensor | None = None
        # What the next step is told: logits, or what a reader that takes the steps itself makes of them.
        self._conditioning_BLV: torch.Tensor | None = None
        self._told_BLH: torch.Tensor | None = None
        self._foreseen: _Asked | None = None
        self.taken = 0

    def take(
        self, canvas_BL: torch.Tensor, argmax_BL: torch.Tensor, heat: float, following: float | None
    ) -> Passes[_Looked]:
        """Take one. `argmax_BL` is what the step before emitted; `following` the next one's temperature, if known."""
        asked, self._foreseen = self._foreseen, None
        # Where a row has ended meanwhile the canvas is another one.
        if asked is None or asked.canvas_BL is not canvas_BL:
            asked = self._asked(canvas_BL, argmax_BL, heat)
        stride = asked.stride
        logits_NV = yield asked.view
        self.taken += 1
        if stride.taken is None:
            step = self._from(logits_NV, canvas_BL, stride)
            seen = _looked_at(step)
            self._telling.of(self.taken, step)
            self._telling.rest()
            return step, seen
        self._told_BLH = stride.told_BLH
        # The device is at it: now is the time for what does not need its answer.
        self._telling.rest()
        self._telling.of(self.taken, stride.taken)
        if following is not None:
            self._foreseen = self._asked(stride.taken.canvas_BL, stride.taken.argmax_BL, following)
        yield Underway(None if self._foreseen is None else self._foreseen.view)
        return stride.taken, _looked_at(stride.taken)

    def forget(self) -> None:
        """Tell the next step nothing, as the first is told nothing."""
        self._conditioning_BLV, self._told_BLH = None, None

    def end(self) -> None:
        """No further step is taken."""
        self._numbers.take_back()
        self._telling.rest()

    def _asked(self, canvas_BL: torch.Tensor, argmax_BL: torch.Tensor, heat: float) -> _Asked:
        imposed_BL = impose(canvas_BL, self._fixed)
        stride = Stride(
            imposed_BL, self._fixed, self._numbers, heat, self._bound, argmax_BL, self._banned_V, self._told_BLH
        )
        # A reader that takes the step itself takes it as `denoise` does, and draws as it does.
        whole = stride if self._draw is draw_by_inverse else None
        return _Asked(canvas_BL, stride, View(imposed_BL, self._free_BL, self._conditioning_BLV, stride=whole))

    def _from(self, logits_NV: torch.Tensor, canvas_BL: torch.Tensor, stride: Stride) -> Step:
        step = denoise(
            logits_NV,
            canvas_BL,
            self._fixed,
            temperature=stride.temperature,
            entropy_bound=self._bound,
            generator=self._numbers.generator,
            before_BL=stride.argmax_BL,
            banned_V=self._banned_V,
            draw=self._draw,
        )
        if self._certain_BLV is None:
            self._certain_BLV = certain_logits(self._fixed, self._vocabulary, self._dtype)
        self._conditioning_BLV = self_conditioning(self._certain_BLV, self._fixed, step.logits_NV)
        return step


class _Telling:
    """Tells of each step once: when there is time for it, which on a GPU is while it takes the next one."""

    def __init__(self, on_step: Callable[[int, Step], None] | None) -> None:
        self._on_step = on_step
        self._untold: tuple[int, Step] | None = None

    def of(self, number: int, step: Step) -> None:
        """Note a step that is to be told."""
        self._untold = number, step

    def rest(self) -> None:
        """Tell of it now."""
        if self._on_step is not None and self._untold is not None:
            self._on_step(*self._untold)
        self._untold = None


class _Rows:
    """The rows of a run, some of which are done: known on the host, on the device only once there are any."""

    def __init__(self, count: int, sampler: Sampler) -> None:
        self._sampler = sampler
        self._same = [0] * count
        self._done = [False] * count
        self._stays_B1: torch.Tensor | None = None
        self.doubts = (0.0,) * count

    @property
    def all_done(self) -> bool:
        """Whether none goes on."""
        return all(self._done)

    def kept(self, before_BL: torch.Tensor, after_BL: torch.Tensor) -> torch.Tensor:
        """What a step has made of the rows that go on, and what the others had before it."""
        if any(self._done) and self._stays_B1 is None:
            self._stays_B1 = torch.tensor(self._done, device=after_BL.device).unsqueeze(-1)
        return after_BL if self._stays_B1 is None else torch.where(self._stays_B1, before_BL, after_BL)

    def going_on(self, mask_BL: torch.Tensor) -> torch.Tensor:
        """The mask without the rows that are done."""
        return self.kept(torch.zeros_like(mask_BL), mask_BL)

    def see(self, seen: Sequence[_Seen], *, first: bool) -> None:
        """Take note of what was seen after a step; before the first there is no prediction to agree with."""
        self.doubts = tuple(row.doubt for row in seen)
        self._same = [before + 1 if row.same and not first else 0 for before, row in zip(self._same, seen, strict=True)]
        done = [
            before or self._is_done(row, same) for before, row, same in zip(self._done, seen, self._same, strict=True)
        ]
        if done != self._done:
            self._done, self._stays_B1 = done, None

    def _is_done(self, row: _Seen, same: int) -> bool:
        sampler = self._sampler
        if sampler.early_stop and sampler.stop_when_accepted and row.settled:
            return True
        return is_done(same, row.doubt, sampler)


def _looked_at(step: Step) -> list[_Seen]:
    """All of it at once: each look waits for the device. Raises `NotANumber`."""
    *_, outlook_B3 = step.glance.read()
    looked = outlook_B3.tolist()
    as_numbers([doubt for _, doubt, _ in looked])
    return [_Seen(bool(same), doubt, bool(settled)) for same, doubt, settled in looked]
