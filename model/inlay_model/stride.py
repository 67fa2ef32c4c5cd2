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

    def draw_ahead(self) -> None:
        """Draw those of the next step, unless they are drawn."""
        if self._ahead is None:
            self._ahead = self.generator.get_state(), *self._drawn()

    def take(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Uniform numbers of the free positions, and a random token for every position."""
        if self._ahead is None:
            return self._drawn()
        _, uniform_N, renoise_BL = self._ahead
        self._ahead = None
        return uniform_N, renoise_BL

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
    """How the step is to be taken, with `numbers` of the run; `argmax_BL` is what the step before emitted.

    `told_BLH` is what the step before told (or none). A reader that takes the step leaves it in `taken` and what the
    next one is told in `told_BLH`; it answers without logits, and need not wait for what it has left.
    """

    fixed: Fixed
    numbers: Numbers
    temperature: float
    entropy_bound: float
    argmax_BL: torch.Tensor
    banned_V: torch.Tensor | None = None
    told_BLH: torch.Tensor | None = None
    taken: Step | None = None
