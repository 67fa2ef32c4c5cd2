"""What the host looks at of a step: copies on their way from the device, which nothing queued behind them delays."""

from dataclasses import dataclass
from typing import Any, Self

import torch


@dataclass(frozen=True, slots=True)
class Glance:
    """Copies of tensors with a row per canvas; on a GPU they come while it goes on."""

    _copies: tuple[torch.Tensor, ...]
    # A CUDA event, once all copies are there.
    _arrived: Any = None

    @classmethod
    def at(cls, *tensors: torch.Tensor) -> Self:
        """Have these copied; returns at once on a GPU, whatever it is still at."""
        if not tensors[0].is_cuda:
            return cls(tuple(tensor.clone() for tensor in tensors))
        copies = tuple(tensor.to("cpu", non_blocking=True) for tensor in tensors)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(tensors[0].device))
        return cls(copies, arrived)

    def rows(self, own: slice) -> "Glance":
        """The same of some of the canvases."""
        return Glance(tuple(copy[own] for copy in self._copies), self._arrived)

    def read(self) -> tuple[torch.Tensor, ...]:
        """The copies, on the host; waits for them, from whichever thread."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copies
