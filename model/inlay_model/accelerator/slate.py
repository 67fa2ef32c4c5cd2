"""The fixed tensors of a bucket: what a captured pass reads and where requests are written before it is replayed.

A slate holds the canvases of a batch, their locks and random numbers, and the rooms with the keys and values of their
prefixes. A prefix already in its row is not copied again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inlay_model.accelerator.ask import Ask
from inlay_model.accelerator.passes import Free, Places, Rule
from inlay_model.accelerator.reference import Room
from inlay_model.accelerator.weights import Weights
from inlay_model.prefix import Prefix


class Slate:
    """Fixed tensors for `rows` canvases with `slots` of prefix each."""

    def __init__(self, weights: Weights, rotary: Any, rows: int, slots: int, canvas: int) -> None:
        device, dtype = weights.device, weights.dtype
        tokens = rows * canvas
        self.rows, self.slots, self.canvas = rows, slots, canvas
        self._rotary, self._dtype = rotary, dtype
        self._prefixes: list[Prefix | None] = [None] * rows
        self.rooms = tuple(
            make_room(layer.heads.kv_heads, layer.heads.width, rows, slots, canvas, weights) for layer in weights.layers
        )
        widths = {layer.sliding: layer.heads.width for layer in weights.layers}
        empty = {
            kind: (
                torch.ones(tokens, width, dtype=dtype, device=device),
                torch.zeros(tokens, width, dtype=dtype, device=device),
            )
            for kind, width in widths.items()
        }
        self.lengths_B = torch.zeros(rows, dtype=torch.int32, device=device)
        self.places = Places(
            slots_T=(slots + torch.arange(canvas, dtype=torch.int32, device=device)).repeat(rows),
            turns=empty,
            lengths_B=self.lengths_B,
        )
        whole = torch.zeros(rows, canvas, dtype=torch.int64, device=device)
        self.canvas_BL = whole.clone()
        self.told_BLH = torch.zeros(rows, canvas, weights.hidden, dtype=dtype, device=device)
        self.free = Free(
            torch.zeros(tokens, dtype=torch.int64, device=device),
            torch.full((tokens,), tokens, dtype=torch.int64, device=device),
        )
        self.rule = Rule(
            temperature_B=torch.ones(rows, device=device),
            bound_B=torch.zeros(rows, device=device),
            uses_ban_B=torch.zeros(rows, dtype=torch.uint8, device=device),
            banned_V=torch.zeros(weights.vocabulary, dtype=torch.uint8, device=device),
            uniform_N=torch.zeros(tokens, device=device),
            renoise_BL=whole.clone(),
            ids_BL=whole.clone(),
            locked_BL=torch.ones(rows, canvas, dtype=torch.bool, device=device),
        )
        self._banned: Tensor | None = None
        self._wanted: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the rooms, which is nearly all of it."""
        return sum(room.keys.nbytes + room.values.nbytes for room in self.rooms)

    def place(self, prefixes: Sequence[Prefix]) -> None:
        """Have these prefixes in the rows, one each."""
        for row, prefix in enumerate(prefixes):
            if self._prefixes[row] is prefix:
                continue
            self._prefixes[row] = prefix
            for room, layer in zip(self.rooms, prefix.cache.layers, strict=True):
                length = layer.keys.shape[2]
                room.keys[row, :, :length].copy_(layer.keys[0])
                room.values[row, :, :length].copy_(layer.values[0])
            self.lengths_B[row] = prefix.length
            positions = torch.arange(prefix.length, prefix.length + self.canvas, device=self.lengths_B.device)
            tokens = slice(row * self.canvas, (row + 1) * self.canvas)
            for kind, (cosines, sines) in self.places.turns.items():
                cosine, sine = turn(self._rotary, positions, kind, self._dtype)
                cosines[tokens].copy_(cosine)
                sines[tokens].copy_(sine)

    def show(self, canvas_BL: Tensor, told_BLH: Tensor | None) -> None:
        """Put canvases in place, and what they were told."""
        rows = len(canvas_BL)
        self.canvas_BL[:rows].copy_(canvas_BL)
        if told_BLH is None:
            self.told_BLH.zero_()
        else:
            self.told_BLH[:rows].copy_(told_BLH)

    def want(self, mask_BL: Tensor, *, value: bool = True) -> None:
        """Put the positions in place at which the mask has this value."""
        # The same mask step after step is looked at once: finding its positions waits for the device.
        if self._wanted is not mask_BL:
            self._wanted = mask_BL
            at_N = (mask_BL == value).flatten().nonzero().squeeze(-1)
            self.free.read_N.zero_()
            self.free.write_N.fill_(self.rows * self.canvas)
            self.free.read_N[: len(at_N)] = at_N
            self.free.write_N[: len(at_N)] = at_N

    def order(self, ask: Ask) -> None:
        """Put the rule of a step in place."""
        rule, rows = self.rule, len(ask.canvas_BL)
        device = rule.temperature_B.device
        numbers = torch.tensor((ask.temperature, ask.bound), dtype=torch.float32)
        if device.type == "cuda":
            numbers = numbers.pin_memory().to(device, non_blocking=True)
        rule.temperature_B[:rows].copy_(numbers[0])
        rule.bound_B[:rows].copy_(numbers[1])
        rule.uses_ban_B.zero_()
        if ask.banned_V is not None:
            if self._banned is not ask.banned_V:
                self._banned = ask.banned_V
                rule.banned_V.copy_(ask.banned_V)
            rule.uses_ban_B[:rows].copy_(torch.tensor(ask.uses_ban or (True,) * rows, dtype=torch.uint8))
        rule.uniform_N[: len(ask.uniform_N)].copy_(ask.uniform_N)
        rule.renoise_BL[:rows].copy_(ask.renoise_BL)
        rule.ids_BL[:rows].copy_(ask.ids_BL)
        rule.locked_BL[:rows].copy_(ask.locked_BL)

    def narrowed(self, free: int) -> tuple[Free, Rule]:
        """Free positions and rule with so many positions, as views of the whole."""
        rule = self.rule
        return Free(self.free.read_N[:free], self.free.write_N[:free]), Rule(
            temperature_B=rule.temperature_B,
            bound_B=rule.bound_B,
            uses_ban_B=rule.uses_ban_B,
            banned_V=rule.banned_V,
            uniform_N=rule.uniform_N[:free],
            renoise_BL=rule.renoise_BL,
            ids_BL=rule.ids_BL,
            locked_BL=rule.locked_BL,
        )


def make_room(kv_heads: int, width: int, rows: int, slots: int, canvas: int, weights: Weights) -> Room:
    """An empty room for `slots` of prefix and a canvas behind them."""
    shape = (rows, kv_heads, slots + canvas, width)
    keys, values = (torch.zeros(shape, dtype=weights.dtype, device=weights.device) for _ in range(2))
    return Room(keys, values, slots)


def turn(rotary: Any, positions_T: Tensor, sliding: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:  # noqa: FBT001
    """Cosines and sines of these positions for one kind of layer, T x width, as the model's own module gives them."""
    kind = "sliding_attention" if sliding else "full_attention"
    like = torch.empty(0, dtype=dtype, device=positions_T.device)
    cosine_1TW, sine_1TW = rotary(like, positions_T.unsqueeze(0), kind)
    return cosine_1TW[0], sine_1TW[0]
