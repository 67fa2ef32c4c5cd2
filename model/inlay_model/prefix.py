"""The encoded prompt: one causal pass writes the key-value cache, every denoising step only reads it.

Encoded studies are kept under a byte budget, so that an infill on a study already seen encodes nothing again.
"""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from inlay_model.accelerator.ask import Ask
from inlay_model.accelerator.attached import attached
from inlay_model.errors import PromptTooLong
from inlay_model.step import Fixed, Step, impose


@dataclass(frozen=True, slots=True)
class Prefix:
    """An encoded prompt of `length` tokens; the cache is shared between requests and never written again."""

    cache: Any
    length: int

    @property
    def nbytes(self) -> int:
        """Memory of its keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)


class Prefixes:
    """Least-recently-used store of prefixes under a byte budget, by digest."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._kept: OrderedDict[str, Prefix] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def get(self, key: str) -> Prefix | None:
        """The prefix under this key, which thereby becomes the most recent."""
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return found

    def put(self, key: str, prefix: Prefix) -> None:
        """Keep the prefix, dropping the oldest ones beyond the budget; one larger than the budget is not kept."""
        self._kept[key] = prefix
        while self._kept and self.nbytes > self._budget:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(prefix.nbytes for prefix in self._kept.values())


def encoder_masks(
    model: Any,
    input_ids_BT: torch.Tensor,
    mm_token_type_ids_BT: torch.Tensor,
    attention_mask_BT: torch.Tensor | None = None,
    cache: Any = None,
) -> dict[str, torch.Tensor | None]:
    """Attention masks of the encoder, to be passed to the model as `attention_mask`.

    transformers 5.23 computes the image-bidirectional masks in `DiffusionGemmaEncoderModel.forward` and drops them;
    only `generate`, which makes them itself, sees images bidirectionally. Training without these masks and
    generating with them are two different models. `model` is a DiffusionGemmaForBlockDiffusion; without an attention
    mask every token is real (no padding).
    """
    if attention_mask_BT is None:
        past = cache.get_seq_length() if cache is not None else 0
        rows, columns = input_ids_BT.shape
        attention_mask_BT = torch.ones(rows, past + columns, dtype=torch.bool, device=input_ids_BT.device)
    encoder = model.model.encoder
    # The library reads only shape, type and device of this tensor.
    shape_only_BT0 = torch.empty(*input_ids_BT.shape, 0, dtype=encoder.dtype, device=input_ids_BT.device)
    masks: dict[str, torch.Tensor | None] = encoder.create_masks_for_generate(
        config=model.config,
        inputs_embeds=shape_only_BT0,
        attention_mask=attention_mask_BT.bool(),
        past_key_values=cache,
        position_ids=None,
        mm_token_type_ids=mm_token_type_ids_BT,
    )
    return masks


def encode(
    model: Any,
    ids: tuple[int, ...],
    mm_token_type_ids: tuple[int, ...],
    pixels: dict[str, torch.Tensor] | None,
    after: Prefix | None = None,
) -> Prefix:
    """Encode these tokens (with the images among them), continuing `after` where given, which stays as it is."""
    device = model.device
    begin = 0 if after is None else after.length
    end = begin + len(ids)
    if end + model.config.canvas_length > model.config.text_config.max_position_embeddings:
        raise PromptTooLong(f"The prompt has {end} tokens; with a canvas that is more than the model has positions.")
    fast = attached(model)
    found: Prefix | None = None if fast is None else fast.encode(ids, mm_token_type_ids, pixels, after)
    if found is not None:
        return found
    cache = DynamicCache(config=model.config.get_text_config()) if after is None else _own_copy(after.cache)
    ids_BT = torch.tensor([ids], device=device)
    types_BT = torch.tensor([mm_token_type_ids], device=device)
    model.model.encoder(
        input_ids=ids_BT,
        attention_mask=encoder_masks(model, ids_BT, types_BT, cache=cache),
        past_key_values=cache,
        position_ids=torch.arange(begin, end, device=device).unsqueeze(0),
        **(pixels or {}),
    )
    return Prefix(cache, end)


class Decoder:
    """The model reading one prefix: logits of a batch of canvases at the positions that are asked for."""

    def __init__(self, model: Any, prefix: Prefix, batch: int = 1) -> None:
        self._model = model
        self._cache = prefix.cache
        if batch > 1:
            self._cache = _own_copy(prefix.cache)
            self._cache.batch_repeat_interleave(batch)
        self._from = prefix.length
        self._prefixes = (prefix,) * batch
        self._fast = attached(model)
        self._free: tuple[Fixed, int] | None = None
        self.passes = 0

    def __call__(
        self, canvas_BL: torch.Tensor, wanted_BL: torch.Tensor, conditioning_BLV: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (float32, N x V) at the N wanted positions of the canvases, in reading order.

        The head is computed there only. `conditioning_BLV` are the logits of the step before.
        """
        self.passes += 1
        if self._fast is not None:
            found: torch.Tensor | None = self._fast.read(self._prefixes, canvas_BL, wanted_BL, conditioning_BLV)
            if found is not None:
                return found
        length = canvas_BL.shape[1]
        positions_1L = torch.arange(self._from, self._from + length, device=canvas_BL.device).unsqueeze(0)
        out = self._model.model(
            past_key_values=self._cache,
            decoder_input_ids=canvas_BL,
            self_conditioning_logits=conditioning_BLV,
            decoder_position_ids=positions_1L,
        )
        logits_NV: torch.Tensor = self._model.lm_head(out.last_hidden_state[wanted_BL]).float()
        cap = self._model.final_logit_softcapping
        capped_NV: torch.Tensor = torch.tanh(logits_NV / cap) * cap
        return capped_NV

    def steps_itself(self, free: int) -> bool:
        """Whether `step` may be used with so many free positions: where the model has an accelerated path."""
        return self._fast is not None and self._fast.takes(self._prefixes, free)

    def step(
        self,
        canvas_BL: torch.Tensor,
        fixed: Fixed,
        told_BLH: torch.Tensor | None,
        *,
        temperature: float,
        entropy_bound: float,
        generator: torch.Generator,
        banned_V: torch.Tensor | None = None,
    ) -> tuple[Step, torch.Tensor]:
        """What `step.denoise` makes of this reader's logits, all of it on the device, and what the next step is told.

        The same random numbers in the same order. The logits stay where they are: the step has none.
        """
        assert self._fast is not None
        self.passes += 1
        rows = len(canvas_BL)
        free = int(fixed.free_BL.sum()) if self._free is None or self._free[0] is not fixed else self._free[1]
        self._free = (fixed, free)
        device = canvas_BL.device
        uniform_N = torch.rand((free, 1), generator=generator, device=device).squeeze(-1)
        vocabulary = self._model.config.text_config.vocab_size
        renoise_BL = torch.randint(
            vocabulary, canvas_BL.shape, generator=generator, device=device, dtype=canvas_BL.dtype
        )
        taken = self._fast.step(
            Ask(
                prefixes=self._prefixes,
                canvas_BL=impose(canvas_BL, fixed),
                ids_BL=fixed.ids_BL,
                locked_BL=fixed.locked_BL,
                told_BLH=told_BLH,
                temperature=(temperature,) * rows,
                bound=(entropy_bound,) * rows,
                uniform_N=uniform_N,
                renoise_BL=renoise_BL,
                banned_V=banned_V,
            )
        )
        none_NV = torch.empty(0, vocabulary, device=device)
        return Step(taken.canvas_BL, taken.argmax_BL, taken.accepted_BL, taken.entropy_BL, none_NV), taken.told_BLH


def _own_copy(cache: Any) -> Any:
    # Layers replace their tensors when they grow or repeat, so copying the objects around the tensors is enough.
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    return own
