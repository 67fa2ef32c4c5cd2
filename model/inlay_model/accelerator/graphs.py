"""Capturing a piece of work in a CUDA graph, so that some 500 launches become one; elsewhere the work just runs.

All graphs of a runtime share one memory pool: they run one after the other, and what a replay leaves is read before the
next one. Inputs must lie in tensors that were made before. Other threads may wait for the device meanwhile, as one that
tells of steps does: a capture in CUDA's global mode would end with an error in both threads.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")

# Kernels are compiled and libraries choose their algorithms in the first run; the second shows that they are done.
_WARM_UPS = 2


class Capturer:
    """Captures work on one device into one pool; counts what it captured."""

    def __init__(self, device: torch.device, *, enabled: bool = True) -> None:
        self.enabled = enabled and device.type == "cuda"
        self.captured = 0
        self._device = device
        self._pool: Any = None

    def __call__(self, work: Callable[[], T]) -> Callable[[], T]:
        """A function that does this work, by replaying its graph where there are graphs.

        Its result is the same tensors each time, overwritten by each replay.
        """
        if not self.enabled:
            return work
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        torch.cuda.synchronize(self._device)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = work()
        self.captured += 1

        def replay() -> T:
            graph.replay()
            return result

        return replay

    def forget(self) -> None:
        """Begin a new pool; the old one is freed with its last graph."""
        self._pool = None
