"""A denoising step as its work would have it taken, for readers that take whole steps themselves, on the device."""

from dataclasses import dataclass

import torch

from inlay_model.step import Fixed, Step


class Numbers:
    """The random numbers of a run's steps, drawn from its generator as `step.denoise` draws them.

    Those of the next step may be drawn before it is known whether there is one: while the device takes this one.
    """

    def __init__(self, fixed: Fixed, free: int, vocabulary: int, generator: torch.Generator) -> None:
        self.generator = generator
        self.free = free
        self._ids_BL = fixed.ids_BL
        self._vocabulary = vocabulary
        self._ahead: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def ahead(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the next step: uniform ones of its free positions, and a random token for every position."""
        if self._ahead is None:
            self._ahead = self.generator.get_state(), *self._drawn()
        _, uniform_N, renoise_BL = self._ahead
        return uniform_N, renoise_BL

    def use_up(self) -> None:
        """The step has been taken with them."""
        self._ahead = None

    def take_back(self) -> None:
        """Leave the generator as if nothing had been drawn ahead."""
        if self._ahead is not None:
            self.generator.set_state(self._ahead[0])
            self._ahead = None

    def _drawn(self) -> tuple[torch.Tensor, torch.Tensor]:
        ids_BL, generator = self._ids_BL, self.generator
        uniform_N = torch.rand((self.free, 1), generator=generator, device=ids_BL.device).squeeze(-1)
        renoise_BL = torch.randint(
            self._vocabulary, ids_BL.shape, generator=generator, device=ids_BL.device, dtype=ids_BL.dtype
        )
        return uniform_N, renoise_BL


@dataclass(slots=True)
class Stride:
    """How the step is to be taken from `canvas_BL`, with `numbers` of the run.

    `argmax_BL` is what the step before emitted, `told_BLH` what it told (or none). A reader that takes the step leaves
    it in `taken` and what the next one is told in `told_BLH`; it answers without logits, and need not wait for what it
    has left.
    """

    canvas_BL: torch.Tensor
    fixed: Fixed
    numbers: Numbers
    temperature: float
    entropy_bound: float
    argmax_BL: torch.Tensor
    banned_V: torch.Tensor | None = None
    told_BLH: torch.Tensor | None = None
    taken: Step | None = None

    @property
    def rows(self) -> int:
        """How many canvases take it."""
        return int(self.canvas_BL.shape[0])
