"""The sibling: an autoregressive Gemma 4 behind the same port as the diffusion engine, for comparison.

It writes from left to right, so a draft goes on from its beginning, and a gap is filled by prompting with the text on
both sides (arXiv 2607.01436). Encoded studies are kept as the engine keeps them; a token costs one pass.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from inlay_model.accelerator.memory import named
from inlay_model.answer import breaks_off, draft_request, noted, open_ended, spliced
from inlay_model.autoregression import Limits, Written, write
from inlay_model.backend import Asked, Tell
from inlay_model.call import Begun, Ears, begin_request
from inlay_model.canvas import encode_fragment, encode_header, header
from inlay_model.encoding import Encoder, Study
from inlay_model.errors import BadRequest, PromptTooLong
from inlay_model.gap_prompt import gap_question
from inlay_model.loading import Checkpoint, default_checkpoint, load
from inlay_model.pixels import RadiographLike
from inlay_model.prefix import KEPT_BYTES, Prefix, Prefixes
from inlay_model.prompt import instruction
from inlay_model.provenance import RunRecord
from inlay_model.request import (
    Filled,
    FilledSection,
    Gap,
    GenerationSettings,
    PromptContext,
    Section,
    StepEvent,
)
from inlay_model.rows import own_copy
from inlay_model.tokens import encode_plain
from inlay_model.transcript import decode, ends_sentence, fill_text, is_short, parse_draft, whole_sentences
from inlay_model.vision import as_encoder_outputs
from inlay_model.wishes import hints_of

# Where neither caller nor checkpoint says how much may be written: what one canvas of the 26B diffusion model holds.
MOST_TOKENS = 256


class Sibling:
    """Drafts and infills with one autoregressive checkpoint. Not for use by several threads at once.

    It takes the most likely token, unless the settings give a temperature (`t_max`), at which tokens are then drawn
    with the request's own generator. The other numbers of the settings are the diffusion sampler's and do nothing here.
    """

    def __init__(self, checkpoint: Checkpoint, most_tokens: int | None = None) -> None:
        self._checkpoint = checkpoint
        self._most = most_tokens or checkpoint.model.generation_config.max_new_tokens or MOST_TOKENS
        self._encoder = Encoder(checkpoint, KEPT_BYTES, _encoded)
        self._ends = _ends_of_turn(checkpoint)
        self._banned_V = _outside_text(checkpoint, self._ends, lines=False)
        self._banned_in_gap_V = _outside_text(checkpoint, self._ends, lines=True)

    @classmethod
    def load(
        cls,
        path_or_hub_id: str | Path,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        *,
        adapter: str | Path | None = None,
    ) -> "Sibling":
        """Sibling with the checkpoint of this folder or hub id (the latter with its commit hash as `revision`)."""
        return cls(load(path_or_hub_id, revision, device, dtype, adapter=adapter, kind="autoregressive"))

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self._checkpoint.about.name

    @property
    def digest(self) -> str:
        """SHA-256 over the checkpoint's files."""
        return self._checkpoint.digest

    @property
    def is_demonstration(self) -> bool:
        """Whether this checkpoint knows synthetic phantoms only."""
        return self._checkpoint.about.demonstration

    @property
    def styles(self) -> tuple[str, ...]:
        """Site styles that the checkpoint was trained to write in."""
        return self._checkpoint.about.styles

    @property
    def checkpoint(self) -> Checkpoint:
        """Model, tokenizer and image processor."""
        return self._checkpoint

    @property
    def prefixes(self) -> Prefixes:
        """The encoded studies that are kept."""
        return self._encoder.kept

    def forget(self) -> None:
        """Forget the studies that are kept, as the engine does."""
        self._encoder.forget()

    def draft(
        self,
        images: Sequence[RadiographLike],
        *,
        sections: Sequence[str] = ("findings", "impression"),
        begin: str = "",
        settings: GenerationSettings | None = None,
        context: PromptContext | None = None,
        on_step: Tell | None = None,
        cancelled: Asked | None = None,
    ) -> Filled:
        """Write a report about these images, from the first section's header on, or from `begin` after it.

        Raises `Cancelled` between two tokens once `cancelled()` is true, and `BadRequest` for a rewriting. Notes:
        `headers-missing` and `unfinished-sentence` as in the engine, its canvas being the tokens that it has.
        """
        if not images:
            raise BadRequest("A draft needs an image.")
        asked = draft_request(sections, begin)
        call = begin_request(self._checkpoint, "draft", asked, settings, context, Ears(on_step, cancelled))
        tokenizer = self._checkpoint.tokenizer
        head = encode_header(tokenizer, 0, sections[0]) if begin or call.settings.lock_first_header else []
        with self._named(), torch.inference_mode():
            study = self._encoder.shared(images, instruction(sections, call.context.style), comparison=call.comparison)
            forced = [*study.rest, *head, *encode_fragment(tokenizer, begin)]
            written = self._write(study.prefix, forced, call, banned_V=self._banned_V)
        text = (header(0, sections[0]) if head else "") + decode(tokenizer, written.ids)
        texts, complete = parse_draft(text, sections)
        filled = spliced(asked, texts)
        record = self._record(call, study, filled, [written])
        found = {"headers-missing": not complete, "unfinished-sentence": breaks_off(texts, ended=written.ended)}
        return Filled(filled, record, noted(found))

    def infill(
        self,
        images: Sequence[RadiographLike] | None,
        sections: Sequence[Section],
        *,
        settings: GenerationSettings | None = None,
        context: PromptContext | None = None,
        on_step: Tell | None = None,
        cancelled: Asked | None = None,
    ) -> Filled:
        """Fill the gaps in reading order, each by prompting with what stands before and after it.

        Locks come back byte for byte because the answer is spliced from them, not because the model keeps them. The
        note `unfinished-sentence` says that a gap does not end with a sentence, `hints-left-aside` that gaps had hints:
        its prompt has no words for them, nor for a rewriting, for which it raises `BadRequest`.
        `shorter-than-asked` and `not-trained-without-image` are those of the engine.
        """
        call = begin_request(self._checkpoint, "infill", tuple(sections), settings, context, Ears(on_step, cancelled))
        done: list[Written] = []
        texts: list[str] = []
        whole, short = True, False
        with self._named(), torch.inference_mode():
            names = [section.name for section in call.sections]
            asked = instruction(names, call.context.style)
            study = self._encoder.shared(images or (), asked, comparison=call.comparison)
            for (hole, gap), runs_on in zip(_gaps(call.sections), open_ended(call.sections), strict=True):
                question = gap_question(call.sections, hole, texts)
                forced = [*encode_plain(self._checkpoint.tokenizer, question), *study.rest]
                done.append(self._write(study.prefix, forced, call, banned_V=self._banned_in_gap_V, gap=gap))
                raw = fill_text(self._checkpoint.tokenizer, done[-1].ids)
                texts.append(raw if runs_on else (whole_sentences(raw) or raw))
                whole = whole and (runs_on or ends_sentence(texts[-1]))
                short = short or is_short(self._checkpoint.tokenizer, texts[-1], gap)
        filled = spliced(call.sections, texts)
        record = self._record(call, study, filled, done)
        found = {
            "unfinished-sentence": not whole,
            "shorter-than-asked": short,
            "hints-left-aside": bool(hints_of(call.sections)),
            "not-trained-without-image": not images and not self._checkpoint.about.fills_without_image,
        }
        return Filled(filled, record, noted(found))

    def answer(
        self, images: Sequence[RadiographLike], question: str, *, settings: GenerationSettings | None = None
    ) -> str:
        """The answer to a question about these images."""
        call = begin_request(self._checkpoint, "answer", draft_request(["answer"], ""), settings, None, Ears())
        with self._named(), torch.inference_mode():
            study = self._encoder.shared(images, question)
            written = self._write(study.prefix, study.rest, call, banned_V=self._banned_V)
        return fill_text(self._checkpoint.tokenizer, written.ids)

    def _named(self) -> named:
        """Memory that does not suffice is a named error, and the kept studies go."""
        return named(self._checkpoint.model.device, self.forget)

    # ── one request ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _write(
        self,
        prefix: Prefix,
        forced: Sequence[int],
        call: Begun,
        *,
        banned_V: torch.Tensor,
        gap: Gap | None = None,
    ) -> Written:
        least = gap.min_tokens if gap else 0
        most = self._most if gap is None or gap.max_tokens is None else min(self._most, gap.max_tokens)
        self._check_room(prefix.length + len(forced) + most)
        cache = own_copy(prefix.cache)

        def read(ids: Sequence[int]) -> torch.Tensor:
            return self._read(ids, cache)

        return write(
            read,
            forced,
            Limits(least, most, self._ends, banned_V),
            temperature=call.settings.t_max or 0.0,
            generator=call.generator,
            on_token=self._teller(call, most),
            cancelled=call.ears.cancelled,
        )

    def _teller(self, call: Begun, most: int) -> Callable[[Sequence[int]], None] | None:
        tell = call.ears.on_step
        if tell is None:
            return None

        def told(ids: Sequence[int]) -> None:
            text = decode(self._checkpoint.tokenizer, ids)
            tell(StepEvent(len(ids), most, text, ((0, len(text)),), most - len(ids)))

        return told

    def _check_room(self, tokens: int) -> None:
        positions = self._checkpoint.model.config.get_text_config().max_position_embeddings
        if tokens > positions:
            raise PromptTooLong(
                f"Prompt and answer need {tokens} tokens; the model has {positions} positions. Send fewer images, "
                "shorter locked texts and hints, or gaps with a smaller max_tokens."
            )

    def _read(self, ids: Sequence[int], cache: Any) -> torch.Tensor:
        """Logits (float32, V) after these tokens, whose keys and values join the cache."""
        model = self._checkpoint.model
        out = model(
            input_ids=torch.tensor([list(ids)], device=model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_V: torch.Tensor = out.logits[0, -1].float()
        return logits_V

    def _record(self, call: Begun, study: Study, filled: Sequence[FilledSection], done: Sequence[Written]) -> RunRecord:
        lengths = tuple(len(written.ids) for written in done)
        return call.record(
            study,
            filled,
            steps=sum(lengths),
            passes=sum(written.passes for written in done),
            gap_lengths=lengths if call.kind == "infill" else (),
            canvas_length=self._most,
        )


def default_sibling() -> Path | None:
    """Folder of the demonstration's sibling, beside the demonstration checkpoint; None where it is not there."""
    folder = default_checkpoint().parent / "phantom-sibling"
    return folder if folder.is_dir() else None


def _encoded(
    model: Any, ids: tuple[int, ...], mm_token_type_ids: tuple[int, ...], features_NH: torch.Tensor | None
) -> Prefix:
    cache = DynamicCache(config=model.config.get_text_config())
    model.model(
        input_ids=torch.tensor([ids], device=model.device),
        mm_token_type_ids=torch.tensor([mm_token_type_ids], device=model.device),
        past_key_values=cache,
        use_cache=True,
        mm_encoder_outputs=as_encoder_outputs(features_NH, split=True),
    )
    return Prefix(cache, len(ids))


def _gaps(sections: Sequence[Section]) -> list[tuple[tuple[int, int], Gap]]:
    return [
        ((number, at), item)
        for number, section in enumerate(sections)
        for at, item in enumerate(section.items)
        if isinstance(item, Gap)
    ]


def _ends_of_turn(checkpoint: Checkpoint) -> frozenset[int]:
    control = checkpoint.control
    said = checkpoint.model.generation_config.eos_token_id
    named = said if isinstance(said, list) else [] if said is None else [said]
    return frozenset({control.end_of_turn, control.eos, control.pad, *named})


def _outside_text(checkpoint: Checkpoint, ends: frozenset[int], *, lines: bool) -> torch.Tensor:
    """True for control tokens that end nothing, and with `lines` for everything that breaks the line."""
    tokenizer: Any = checkpoint.tokenizer
    size = checkpoint.vocabulary
    banned_V = torch.zeros(size, dtype=torch.bool)
    banned_V[[index for index in tokenizer.all_special_ids if index < size and index not in ends]] = True
    if lines:
        for token, index in tokenizer.get_vocab().items():
            if index < size and ("\n" in token or "\r" in token or token in {"<0x0A>", "<0x0D>"}):
                banned_V[index] = True
    return banned_V.to(checkpoint.model.device)
