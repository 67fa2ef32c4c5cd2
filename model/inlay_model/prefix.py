"""The encoded prompt: one causal pass writes the key-value cache, every denoising step only reads it.

Encoded studies are kept under a byte budget, so that an infill on a study already seen encodes nothing again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers.cache_utils import DynamicCache

from inlay_model.accelerator.ask import Ask
from inlay_model.accelerator.attached import attached
from inlay_model.errors import PromptTooLong
from inlay_model.glance import Glance
from inlay_model.recent import Recent
from inlay_model.rows import below_each_other, joined, mask, own_copy, same
from inlay_model.step import Fixed, Step
from inlay_model.stride import Stride
from inlay_model.vision import as_encoder_outputs

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prefix:
    """An encoded prompt of `length` tokens; the cache is shared between requests and never written again."""

    cache: Any
    length: int

    @property
    def nbytes(self) -> int:
        """Memory of its keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)


# Encoded studies by digest.
Prefixes = Recent[Prefix]
# Room for a few hundred studies of the demonstration model, or about six of the 26B model at 280 image tokens.
KEPT_BYTES = 512 * 2**20


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
    features_NH: torch.Tensor | None,
    after: Prefix | None = None,
) -> Prefix:
    """Encode these tokens, with the soft tokens of the images among them (N, H); None: there is no image.

    They go on from `after` where that is given, which stays as it is.
    """
    device = model.device
    begin = 0 if after is None else after.length
    end = begin + len(ids)
    most = model.config.text_config.max_position_embeddings - model.config.canvas_length
    if end > most:
        raise PromptTooLong(
            f"The prompt has {end} tokens, and with the canvas of {model.config.canvas_length} the model has positions "
            f"for {most}. Send fewer images, or shorter locked texts and hints."
        )
    fast = attached(model)
    found: Prefix | None = None if fast is None else fast.encode(ids, mm_token_type_ids, features_NH, after)
    if found is not None:
        return found
    cache = DynamicCache(config=model.config.get_text_config()) if after is None else own_copy(after.cache)
    ids_BT = torch.tensor([ids], device=device)
    types_BT = torch.tensor([mm_token_type_ids], device=device)
    model.model.encoder(
        input_ids=ids_BT,
        attention_mask=encoder_masks(model, ids_BT, types_BT, cache=cache),
        past_key_values=cache,
        position_ids=torch.arange(begin, end, device=device).unsqueeze(0),
        mm_encoder_outputs=as_encoder_outputs(features_NH),
    )
    return Prefix(cache, end)


class Decoder:
    """The model reading encoded prompts: logits of a batch of canvases at the positions that are asked for.

    `prefix` is one prompt for all of `batch` canvases, or one for each canvas.
    """

    def __init__(self, model: Any, prefix: Prefix | Sequence[Prefix], batch: int = 1) -> None:
        prefixes = [prefix] * batch if isinstance(prefix, Prefix) else list(prefix)
        self._model = model
        self._prefixes = tuple(prefixes)
        self._fast = attached(model)
        self._plain: tuple[Any, list[list[int]], torch.Tensor] | None = None
        self._locks: tuple[tuple[Fixed, ...], torch.Tensor, torch.Tensor] | None = None
        self._prepared: tuple[tuple[Stride, ...], Ask] | None = None
        self.passes = 0

    def __call__(
        self,
        canvas_BL: torch.Tensor,
        wanted_BL: torch.Tensor,
        conditioning_BLV: torch.Tensor | None = None,
        conditioned_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (float32, N x V) at the N wanted positions of the canvases, in reading order.

        The head is computed there only. `conditioning_BLV` are the logits of the step before; rows for which
        `conditioned_B` is false are in their first step, and theirs are not looked at.
        """
        self.passes += 1
        # The accelerated path knows no rows in their first step beside rows that are not.
        if self._fast is not None and conditioned_B is None:
            found: torch.Tensor | None = self._fast.read(self._prefixes, canvas_BL, wanted_BL, conditioning_BLV)
            if found is not None:
                return found
        if self._plain is None:
            starts_B1 = torch.tensor([[row.length] for row in self._prefixes], device=self._model.device)
            self._plain = *joined([row.cache for row in self._prefixes]), starts_B1
        cache, widths, starts_B1 = self._plain
        length = canvas_BL.shape[1]
        out = self._model.model(
            past_key_values=cache,
            decoder_input_ids=canvas_BL,
            self_conditioning_logits=conditioning_BLV,
            self_conditioning_mask=conditioned_B,
            decoder_attention_mask=self._masks(widths, length),
            decoder_position_ids=starts_B1 + torch.arange(length, device=canvas_BL.device),
        )
        logits_NV: torch.Tensor = self._model.lm_head(out.last_hidden_state[wanted_BL]).float()
        cap = self._model.final_logit_softcapping
        capped_NV: torch.Tensor = torch.tanh(logits_NV / cap) * cap
        return capped_NV

    def steps_itself(self, free: int) -> bool:
        """Whether `step` may be used with so many free positions: where the model has an accelerated path."""
        return self._fast is not None and self._fast.takes(self._prefixes, free)

    def prepare(self, strides: Sequence[Stride]) -> None:
        """Put in place what these steps need, while the device is at the steps before them.

        Between a look at one step and the next the device stands still; so little is left to do there.
        """
        assert self._fast is not None
        ask = self._ask(strides)
        self._prepared = tuple(strides), ask
        self._fast.prepare(ask)

    def step(self, strides: Sequence[Stride]) -> torch.Tensor:
        """Take these steps together, all of it on the device.

        What `step.denoise` makes of this reader's logits is left in each stride. The logits stay where they are: none
        are returned.
        """
        assert self._fast is not None
        self.passes += 1
        prepared, self._prepared = self._prepared, None
        ask = prepared[1] if prepared is not None and same(prepared[0], strides) else self._ask(strides)
        taken = self._fast.step(ask)
        glance = Glance.at(taken.argmax_BL, taken.accepted_BL, taken.outlook_B3)
        none_NV = torch.empty(0, self._model.config.text_config.vocab_size, device=taken.canvas_BL.device)
        begin = 0
        for stride in strides:
            stride.numbers.use_up()
            own = slice(begin, begin + stride.rows)
            stride.taken = Step(
                taken.canvas_BL[own],
                taken.argmax_BL[own],
                taken.accepted_BL[own],
                taken.entropy_BL[own],
                none_NV,
                glance=glance.rows(own),
            )
            stride.told_BLH = taken.told_BLH[own]
            begin += stride.rows
        return none_NV

    def _ask(self, strides: Sequence[Stride]) -> Ask:
        ids_BL, locked_BL = self._joined_locks(tuple(stride.fixed for stride in strides))
        drawn = [stride.numbers.ahead() for stride in strides]

        def each(values: Iterable[T]) -> tuple[T, ...]:
            return tuple(value for value, stride in zip(values, strides, strict=True) for _ in range(stride.rows))

        return Ask(
            prefixes=self._prefixes,
            canvas_BL=below_each_other([stride.canvas_BL for stride in strides]),
            ids_BL=ids_BL,
            locked_BL=locked_BL,
            before_BL=below_each_other([stride.argmax_BL for stride in strides]),
            told_BLH=_joined_told(strides),
            temperature=each(stride.temperature for stride in strides),
            bound=each(stride.entropy_bound for stride in strides),
            uniform_N=below_each_other([uniform_N for uniform_N, _ in drawn]),
            renoise_BL=below_each_other([renoise_BL for _, renoise_BL in drawn]),
            banned_V=next((stride.banned_V for stride in strides if stride.banned_V is not None), None),
            uses_ban=each(stride.banned_V is not None for stride in strides),
        )

    def _joined_locks(self, locks: tuple[Fixed, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        # The same tensors step after step, so that the accelerated path looks for the free positions once.
        kept = self._locks
        if kept is None or not same(kept[0], locks):
            kept = (
                locks,
                below_each_other([fixed.ids_BL for fixed in locks]),
                below_each_other([fixed.locked_BL for fixed in locks]),
            )
            self._locks = kept
        return kept[1], kept[2]

    def _masks(self, widths: list[list[int]], length: int) -> dict[str, torch.Tensor | None]:
        """Masks by kind of layer: sliding layers keep less of a long prompt than the others."""
        text = self._model.config.text_config
        added = self._model.dtype if self._model.config._attn_implementation == "eager" else None  # noqa: SLF001
        return {
            kind: mask(widths[text.layer_types.index(kind)], length, self._model.device, added)
            for kind in set(text.layer_types)
        }


def _joined_told(strides: Sequence[Stride]) -> torch.Tensor | None:
    """What each piece of work was told, as one; zeros for those that were told nothing, as the model reads that."""
    given = next((stride.told_BLH for stride in strides if stride.told_BLH is not None), None)
    if given is None or len(strides) == 1:
        return given
    return torch.cat(
        [
            given.new_zeros(stride.rows, *given.shape[1:]) if stride.told_BLH is None else stride.told_BLH
            for stride in strides
        ]
    )
