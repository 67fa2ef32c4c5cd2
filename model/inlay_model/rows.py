"""Rows of several requests as one. Of their caches shorter prompts are padded on the left and masked there.

So a row's logits are those of a pass of its own, but for the order in which numbers are summed.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch


def own_copy(cache: Any) -> Any:
    """A cache that may grow or be repeated without touching the one given; the tensors are shared."""
    # Layers replace their tensors when they grow or repeat, so copying the objects around the tensors is enough.
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    return own


def below_each_other(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows of these parts in their order; of a single part they are that part, without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def same(some: Sequence[object], others: Sequence[object]) -> bool:
    """Whether these are the same objects, one by one."""
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def joined(caches: Sequence[Any]) -> tuple[Any, list[list[int]]]:
    """One cache with a row for each of these, and per layer how many positions of each row are real."""
    if len(caches) == 1:
        return caches[0], [[layer.keys.shape[-2]] for layer in caches[0].layers]
    one = own_copy(caches[0])
    widths: list[list[int]] = []
    for number, layer in enumerate(one.layers):
        parts = [cache.layers[number] for cache in caches]
        widths.append([part.keys.shape[-2] for part in parts])
        layer.keys = torch.cat([_padded(part.keys, max(widths[-1])) for part in parts])
        layer.values = torch.cat([_padded(part.values, max(widths[-1])) for part in parts])
    return one, widths


def mask(widths: Sequence[int], length: int, device: torch.device, dtype: torch.dtype | None) -> torch.Tensor | None:
    """Where each row of a canvas of this length may look, B x 1 x L x (prompt + L); None where no row is padded.

    True where it may, or with a `dtype` zero there and the least number elsewhere, as eager attention adds it.
    """
    widest = max(widths)
    if min(widths) == widest:
        return None
    first_B1 = torch.tensor([[widest - width] for width in widths], device=device)
    seen_BK = torch.arange(widest + length, device=device) >= first_B1
    seen_B1LK = seen_BK[:, None, None, :].expand(-1, 1, length, -1)
    if dtype is None:
        return seen_B1LK
    return torch.zeros(seen_B1LK.shape, dtype=dtype, device=device).masked_fill(~seen_B1LK, torch.finfo(dtype).min)


def _padded(states_BHTD: torch.Tensor, width: int) -> torch.Tensor:
    return torch.nn.functional.pad(states_BHTD, (0, 0, width - states_BHTD.shape[-2], 0))
