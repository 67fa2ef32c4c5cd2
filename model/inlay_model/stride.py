"""A denoising step as its work would have it taken, for readers that take whole steps themselves, on the device."""

from dataclasses import dataclass

import torch

from inlay_model.step import Fixed, Step


@dataclass(slots=True)
class Stride:
    """How the step is to be taken: `free` counts the free positions, `told_BLH` is what the step before told (or none).

    A reader that takes the step leaves it in `taken` and what the next one is told in `told_BLH`, and answers without
    logits. The random numbers are drawn from the generator as `step.denoise` draws them.
    """

    fixed: Fixed
    free: int
    temperature: float
    entropy_bound: float
    generator: torch.Generator
    banned_V: torch.Tensor | None = None
    told_BLH: torch.Tensor | None = None
    taken: Step | None = None

    def drawn(self, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Uniform numbers of the free positions, and a random token for every position."""
        ids_BL = self.fixed.ids_BL
        device = ids_BL.device
        uniform_N = torch.rand((self.free, 1), generator=self.generator, device=device).squeeze(-1)
        renoise_BL = torch.randint(
            vocabulary, ids_BL.shape, generator=self.generator, device=device, dtype=ids_BL.dtype
        )
        return uniform_N, renoise_BL
