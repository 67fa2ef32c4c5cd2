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
        # Temperatures and bounds in one tensor, so that one copy brings both.
        self._numbers_2B = torch.ones(2, rows, device=device)
        self.rule = Rule(
            temperature_B=self._numbers_2B[0],
            bound_B=self._numbers_2B[1],
            uses_ban_B=torch.zeros(rows, dtype=torch.uint8, device=device),
            banned_V=torch.zeros(weights.vocabulary, dtype=torch.uint8, device=device),
            uniform_N=torch.zeros(tokens, device=device),
            renoise_BL=whole.clone(),
            ids_BL=whole.clone(),
            locked_BL=torch.ones(rows, canvas, dtype=torch.bool, device=device),
            before_BL=whole.clone(),
        )
        # What is in place already, and the same from step to step.
        self._banned: Tensor | None = None
        self._uses_ban: tuple[bool, ...] = (False,) * rows
        self._wanted: Tensor | None = None
        self._locks: tuple[Tensor, Tensor] | None = None

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
        """Put the rule of a step in place: what changes from step to step, and what is not there yet.

        The device stands still meanwhile, so each launch counts.
        """
        rule, rows = self.rule, len(ask.canvas_BL)
        numbers_2B = torch.tensor((ask.temperature, ask.bound), dtype=torch.float32)
        if self._numbers_2B.is_cuda:
            numbers_2B = numbers_2B.pin_memory()
        self._numbers_2B[:, :rows].copy_(numbers_2B, non_blocking=True)
        self._ban(ask)
        rule.uniform_N[: len(ask.uniform_N)].copy_(ask.uniform_N)
        rule.renoise_BL[:rows].copy_(ask.renoise_BL)
        rule.before_BL[:rows].copy_(ask.before_BL)
        kept = self._locks
        if kept is None or kept[0] is not ask.ids_BL or kept[1] is not ask.locked_BL:
            self._locks = ask.ids_BL, ask.locked_BL
            rule.ids_BL[:rows].copy_(ask.ids_BL)
            rule.locked_BL[:rows].copy_(ask.locked_BL)

    def _ban(self, ask: Ask) -> None:
        rule, rows = self.rule, len(ask.canvas_BL)
        if ask.banned_V is not None and self._banned is not ask.banned_V:
            self._banned = ask.banned_V
            rule.banned_V.copy_(ask.banned_V)
        using = (False,) * rows if ask.banned_V is None else ask.uses_ban or (True,) * rows
        uses_ban = (*using, *(False,) * (self.rows - rows))
        if uses_ban != self._uses_ban:
            self._uses_ban = uses_ban
            rule.uses_ban_B.copy_(torch.tensor(uses_ban, dtype=torch.uint8))

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
            before_BL=rule.before_BL,
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
