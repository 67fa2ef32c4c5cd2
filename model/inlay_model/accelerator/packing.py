"""Packed experts in bfloat16, float8 or four bits: 88 % of the 26B model's parameters, which general quantisers skip.

Float8 is e4m3 with one scale per output channel; its rows are float8 too (`through_float8`). Four bits are whole
numbers from -8 to 7, two to a byte, with one scale per 32 inputs, chosen to lose least. Byte j of a group of 64 inputs
holds input j below and input 32 + j above.
"""

from dataclasses import dataclass

import torch

GROUP = 32
# The largest number of e4m3.
E4M3_MOST = 448.0
# Channels between an expert's projections that share a scale when they are float8: what one program of the first makes.
INNER_GROUP = 64


@dataclass(frozen=True, slots=True)
class Experts:
    """The weights of one layer's experts: gate and up E x 2I x H, down E x H x I, and their scales.

    `bits` is 16 (any floating dtype, scales unused), 8 or 4. Four bits are stored with half the last dimension.
    """

    gate_up: torch.Tensor
    down: torch.Tensor
    gate_up_scale: torch.Tensor
    down_scale: torch.Tensor
    bits: int

    @property
    def count(self) -> int:
        """Number of experts."""
        return int(self.gate_up.shape[0])

    @property
    def hidden(self) -> int:
        """Width of the rows that go in and come out."""
        return int(self.down.shape[1])

    @property
    def inner(self) -> int:
        """Width between the two projections."""
        return int(self.gate_up.shape[1]) // 2

    @property
    def nbytes(self) -> int:
        """Memory of weights and scales."""
        scales = 0 if self.bits == 16 else self.gate_up_scale.nbytes + self.down_scale.nbytes
        return int(self.gate_up.nbytes + self.down.nbytes + scales)

    def widened(self, dtype: torch.dtype, expert: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Gate-up and down weights in this dtype, of one expert or (E first) of all."""
        chosen = slice(None) if expert is None else expert
        pairs = ((self.gate_up, self.gate_up_scale), (self.down, self.down_scale))
        first, second = (_unpack(weight[chosen], scale, self.bits, dtype, chosen) for weight, scale in pairs)
        return first, second


def pack(gate_up: torch.Tensor, down: torch.Tensor, bits: int) -> Experts:
    """Experts of E x 2I x H and E x H x I in 16, 8 or 4 bits; for four, H and I must be multiples of 64."""
    if bits == 16:
        none = torch.ones(1, device=gate_up.device)
        return Experts(gate_up, down, none, none, 16)
    to = _to_float8 if bits == 8 else _to_four_bits
    (first, first_scale), (second, second_scale) = to(gate_up), to(down)
    return Experts(first, second, first_scale, second_scale, bits)


def through_float8(x: torch.Tensor, group: int | None = None) -> torch.Tensor:
    """Float32 rows as float8 holds them, with a scale for each row or for every `group` numbers of it."""
    width = x.shape[-1]
    group = group or width
    parts = torch.nn.functional.pad(x, (0, -width % group)).unflatten(-1, (-1, group))
    scale = (parts.abs().amax(-1, keepdim=True) / E4M3_MOST).clamp(min=1e-12)
    held: torch.Tensor = (parts / scale).to(torch.float8_e4m3fn).float() * scale
    return held.flatten(-2)[..., :width]


def _to_float8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # One expert at a time: the widened copy of all would need twice the memory of the model.
    packed = torch.empty(weight.shape, dtype=torch.float8_e4m3fn, device=weight.device)
    scale = torch.empty(weight.shape[:-1], dtype=torch.float32, device=weight.device)
    for expert, rows in enumerate(weight):
        wide = rows.float()
        scale[expert] = (wide.abs().amax(-1) / E4M3_MOST).clamp(min=1e-12)
        packed[expert] = (wide / scale[expert].unsqueeze(-1)).to(torch.float8_e4m3fn)
    return packed, scale


def _to_four_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    *front, depth = weight.shape
    if depth % (2 * GROUP):
        raise ValueError(f"Four bits need rows of a multiple of {2 * GROUP} inputs, not {depth}.")
    packed = torch.empty((*front, depth // 2), dtype=torch.uint8, device=weight.device)
    scale = torch.empty((*front, depth // GROUP), dtype=torch.bfloat16, device=weight.device)
    for expert, rows in enumerate(weight):
        groups = rows.float().view(-1, depth // GROUP, GROUP)
        best = _least_loss_scale(groups).to(torch.bfloat16)
        scale[expert] = best
        codes = _codes(groups, best.float()).view(-1, depth // (2 * GROUP), 2, GROUP)
        packed[expert] = (codes[:, :, 0] | (codes[:, :, 1] << 4)).reshape(-1, depth // 2)
    return packed, scale


def _codes(groups: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return ((groups / scale.unsqueeze(-1)).round().clamp(-8, 7) + 8).to(torch.uint8)


def _least_loss_scale(groups: torch.Tensor) -> torch.Tensor:
    """Per group the scale of the smallest squared error: clipping a few outliers often costs less than coarse steps.

    The largest magnitude may get the code -8, so it is tried with both signs.
    """
    furthest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)).squeeze(-1)
    furthest = torch.where(furthest == 0, 1e-8, furthest)
    best = furthest.abs() / 7
    least = torch.full_like(best, float("inf"))
    candidates = [furthest / -8 * share for share in (1.0, 0.95, 0.9, 0.85, 0.8)]
    candidates += [furthest.abs() / 7 * share for share in (1.0, 0.95, 0.9, 0.85, 0.8)]
    for tried in candidates:
        scale = tried.to(torch.bfloat16).float()
        loss = ((groups / scale.unsqueeze(-1)).round().clamp(-8, 7) * scale.unsqueeze(-1) - groups).square().sum(-1)
        better = loss < least
        best, least = torch.where(better, scale, best), torch.where(better, loss, least)
    return best


def _unpack(
    weight: torch.Tensor, scale: torch.Tensor, bits: int, dtype: torch.dtype, chosen: int | slice
) -> torch.Tensor:
    if bits == 16:
        return weight.to(dtype)
    if bits == 8:
        return (weight.float() * scale[chosen].unsqueeze(-1)).to(dtype)
    *front, half = weight.shape
    groups = weight.view(*front, half // GROUP, GROUP)
    codes = torch.stack((groups & 15, groups >> 4), dim=-2).view(*front, half * 2 // GROUP, GROUP)
    wide = (codes.float() - 8) * scale[chosen].float().unsqueeze(-1)
    return wide.view(*front, half * 2).to(dtype)
