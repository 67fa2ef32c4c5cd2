"""Encoding prompts by captured graphs: one row, padded a little, keys and values handed out as a prefix.

A prompt may continue an encoded one. Images are embedded by the model's own vision tower before; inside an image
attention goes both ways. Prompts as long as the sliding window are left to the eager path, which truncates as the
library does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from inlay_model.accelerator.buckets import PROMPT_STEP, SLOTS, padded_prompt
from inlay_model.accelerator.graphs import Capturer
from inlay_model.accelerator.passes import Machine, Places, encode_pass
from inlay_model.accelerator.slate import make_room, turn
from inlay_model.accelerator.weights import Unfit
from inlay_model.prefix import Prefix


class Press:
    """Encodes prompts of one model. Holds one room per layer, into which every prompt is written in turn."""

    def __init__(self, machine: Machine, model: Any, capture: Capturer) -> None:
        weights = machine.weights
        self._machine, self._model, self._capture = machine, model, capture
        self._slots = max(size for size in SLOTS if size <= max(weights.window, SLOTS[0]))
        self._rooms = tuple(
            make_room(layer.heads.kv_heads, layer.heads.width, 1, self._slots, PROMPT_STEP, weights)
            for layer in weights.layers
        )
        self._passes: dict[int, tuple[_Sheet, Callable[[], None]]] = {}
        self.kept: Prefix | None = None

    def encode(
        self,
        ids: tuple[int, ...],
        mm_token_type_ids: tuple[int, ...],
        features_NH: Tensor | None,
        after: Prefix | None = None,
    ) -> Prefix:
        """The prefix of these tokens, continuing `after`; raises `Unfit` for prompts that reach the sliding window."""
        weights = self._machine.weights
        begin = 0 if after is None else after.length
        end = begin + len(ids)
        if end >= min(weights.window, self._slots):
            raise Unfit(f"a prompt of {end} tokens reaches the sliding window")
        sheet, run = self._pass_for(padded_prompt(len(ids)))
        if after is not None and after is not self.kept:
            for room, layer in zip(self._rooms, after.cache.layers, strict=True):
                room.keys[:, :, :begin].copy_(layer.keys)
                room.values[:, :, :begin].copy_(layer.values)
        sheet.write(self._embedded(ids, features_NH), sees_until(mm_token_type_ids, begin), begin)
        run()
        self.kept = Prefix(self._cache(end), end)
        return self.kept

    def _embedded(self, ids: tuple[int, ...], features_NH: Tensor | None) -> Tensor:
        encoder = self._model.model.encoder
        ids_1T = torch.tensor([ids], device=self._machine.weights.device)
        embedded_1TH: Tensor = encoder.get_input_embeddings()(ids_1T)
        if features_NH is not None:
            features_NH = features_NH.to(embedded_1TH.dtype)
            at = encoder.get_placeholder_mask(ids_1T, inputs_embeds=embedded_1TH, image_features=features_NH)
            embedded_1TH = embedded_1TH.masked_scatter(at, features_NH)
        return embedded_1TH[0]

    def _pass_for(self, length: int) -> tuple["_Sheet", Callable[[], None]]:
        found = self._passes.get(length)
        if found is None:
            sheet = _Sheet(self._machine, self._model.model.encoder.language_model.rotary_emb, length, self._slots)
            work = self._capture(lambda: encode_pass(self._machine, sheet.embedded_TH, self._rooms, sheet.places))
            self.kept = None
            found = self._passes[length] = (sheet, work)
        return found

    def _cache(self, length: int) -> Any:
        cache = DynamicCache(config=self._model.config.get_text_config())
        for number, room in enumerate(self._rooms):
            cache.update(room.keys[:, :, :length].clone(), room.values[:, :, :length].clone(), number)
        return cache


class _Sheet:
    """The fixed tensors of prompts padded to one length."""

    def __init__(self, machine: Machine, rotary: Any, length: int, slots: int) -> None:
        weights = machine.weights
        device = weights.device
        self.length, self._slots, self._rotary, self._dtype = length, slots, rotary, weights.dtype
        self.embedded_TH = torch.zeros(length, weights.hidden, dtype=weights.dtype, device=device)
        widths = {layer.sliding: layer.heads.width for layer in weights.layers}
        self.places = Places(
            slots_T=torch.full((length,), slots, dtype=torch.int32, device=device),
            turns={
                kind: (
                    torch.ones(length, width, dtype=weights.dtype, device=device),
                    torch.zeros(length, width, dtype=weights.dtype, device=device),
                )
                for kind, width in widths.items()
            },
            lengths_B=torch.ones(1, dtype=torch.int32, device=device),
            # Until something is written all tokens are padding, which may look at the first slot.
            until_L=torch.ones(length, dtype=torch.int32, device=device),
        )

    def write(self, embedded_TH: Tensor, until_T: list[int], begin: int) -> None:
        """Put a prompt in place; its last tokens are padding that goes to slots which nobody reads."""
        count, end = len(embedded_TH), begin + len(embedded_TH)
        places, device = self.places, self.embedded_TH.device
        self.embedded_TH.zero_()
        self.embedded_TH[:count].copy_(embedded_TH)
        places.slots_T.fill_(self._slots)
        positions_T = torch.arange(begin, end, device=device)
        places.slots_T[:count] = positions_T.int()
        for kind, (cosines, sines) in places.turns.items():
            cosine, sine = turn(self._rotary, positions_T, kind, self._dtype)
            cosines[:count].copy_(cosine)
            sines[:count].copy_(sine)
        places.lengths_B.fill_(end)
        assert places.until_L is not None
        places.until_L.copy_(torch.tensor(until_T + [1] * (self.length - count), dtype=torch.int32))


def sees_until(mm_token_type_ids: Sequence[int], begin: int) -> list[int]:
    """How many of all tokens up to it each of these sees: those before it and itself, and its own image to its end.

    Valid for prompts shorter than the sliding window. An image is a run of tokens of type 1 (or 2, video). One number
    per token is all there is to say: a mask of tokens by slots took longer to make than the pass that reads it.
    """
    found: list[int] = []
    end = 0
    for at in reversed(range(len(mm_token_type_ids))):
        in_image = mm_token_type_ids[at] in (1, 2)
        end = max(end, begin + at + 1) if in_image else 0
        found.append(max(end, begin + at + 1))
    return found[::-1]
