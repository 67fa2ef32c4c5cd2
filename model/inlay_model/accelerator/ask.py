"""What a batch asks of the accelerated model in one denoising step. Plain values and tensors."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ask:
    """One step that a batch asks for: what stands on the canvases, what they were told, and how to take the step.

    Locks are imposed on the canvases where they are read. `prefixes` are `inlay_model.prefix.Prefix`, one per row;
    `before_BL` is the argmax of the step before. `told_BLH` is what the step before returned, or nothing
    where there was none (or it is to be forgotten). Temperature, bound and whether bans hold are per row; the random
    numbers are those of the free positions in reading order.
    """

    prefixes: tuple[Any, ...]
    canvas_BL: Tensor
    ids_BL: Tensor
    locked_BL: Tensor
    before_BL: Tensor
    told_BLH: Tensor | None
    temperature: tuple[float, ...]
    bound: tuple[float, ...]
    uniform_N: Tensor
    renoise_BL: Tensor
    banned_V: Tensor | None = None
    uses_ban: tuple[bool, ...] = ()
