"""The engine: a loaded checkpoint that drafts reports and fills the gaps between locked text."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from inlay_model.accelerator.attached import attached
from inlay_model.accelerator.memory import held_memory, named
from inlay_model.answer import breaks_off, draft_request, locked_texts, noted, spliced
from inlay_model.call import Call, Ears, make_call
from inlay_model.canvas import Layout, header, lay_out_draft
from inlay_model.comparison import digest_of_comparison
from inlay_model.encoding import Encoder, Study, image_digest
from inlay_model.errors import BadRequest, NotANumber, NotEnoughMemory, ReplayMismatch
from inlay_model.filling import Attempt, Filling, banned_in_gaps
from inlay_model.gaps import Policy
from inlay_model.loading import Checkpoint, load
from inlay_model.mending import mended
from inlay_model.pages import Page, paged, written_before
from inlay_model.passes import Passes, on
from inlay_model.pixels import RadiographLike, as_picture
from inlay_model.prefix import KEPT_BYTES, Prefix, Prefixes, encode
from inlay_model.prompt import instruction
from inlay_model.provenance import RunRecord, digest_of_request
from inlay_model.request import (
    Choice,
    Comparison,
    DeviceMemory,
    Dispute,
    DraftRequest,
    Filled,
    FilledSection,
    GenerationSettings,
    InfillRequest,
    Lock,
    PromptContext,
    Section,
    StepEvent,
    Word,
)
from inlay_model.rereading import Reading, disputes_of, reread, words_of
from inlay_model.together import Readers, Tally, together
from inlay_model.transcript import decode, parse_draft, until_end_of_turn
from inlay_model.wishes import as_it_was, hinted, hints_of, to_rewrite

__all__ = ["Engine", "RadiographLike", "as_picture", "image_digest"]

# Canvases in one pass. About four are nearly free on a large GPU (all experts are read anyway); beyond sixteen the time
# grows with the rows, and nothing is gained by waiting for each other.
_MOST_ROWS = 16


@dataclass(frozen=True, slots=True)
class _Written:
    """Token ids of a draft, the steps and canvases that they took, and whether the model ended its turn on the last."""

    ids: list[int]
    steps: int
    canvases: int
    ended: bool


class Engine:
    """Drafts and infills with one checkpoint on one device. Not for use by several threads at once.

    Encoded studies are kept in up to `kept_bytes` of the device's memory; 0 keeps none.
    """

    def __init__(self, checkpoint: Checkpoint, policy: Policy | None = None, kept_bytes: int = KEPT_BYTES) -> None:
        self._checkpoint = checkpoint
        # Four lengths: on 80 phantom reports the right one was always among the first three.
        self._policy = policy or Policy(shortlist=4 if checkpoint.about.foretells_length else None)
        self._encoder = Encoder(checkpoint, kept_bytes)
        self._banned_V = banned_in_gaps(checkpoint)

    @classmethod
    def load(
        cls,
        path_or_hub_id: str | Path,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        *,
        precision: str | None = None,
        accelerate: bool | None = None,
    ) -> "Engine":
        """Engine with the checkpoint of this folder or hub id (the latter with its commit hash as `revision`)."""
        return cls(load(path_or_hub_id, revision, device, dtype, precision=precision, accelerate=accelerate))

    @property
    def is_demonstration(self) -> bool:
        """Whether this checkpoint knows synthetic phantoms only and must not be used on other studies."""
        return self._checkpoint.about.demonstration

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self._checkpoint.about.name

    @property
    def digest(self) -> str:
        """SHA-256 over the checkpoint's files."""
        return self._checkpoint.digest

    @property
    def styles(self) -> tuple[str, ...]:
        """Site styles that the checkpoint was trained to write in; empty where it does not say."""
        return self._checkpoint.about.styles

    @property
    def takes_hints(self) -> bool:
        """Whether the checkpoint is told of the hints of gaps; others leave them aside."""
        return self._checkpoint.about.takes_hints

    @property
    def rewrites(self) -> bool:
        """Whether the checkpoint was trained to say a report again in another style; others refuse to."""
        return self._checkpoint.about.rewrites

    @property
    def views(self) -> int:
        """How many images of a study the checkpoint was trained to read together."""
        return self._checkpoint.about.views

    @property
    def checkpoint(self) -> Checkpoint:
        """Model, tokenizer and image processor, for training and evaluation."""
        return self._checkpoint

    def use_adapter(self, name: str | None) -> None:
        """Make one of the adapters it was loaded with the active one, None for the bare checkpoint."""
        self._checkpoint.use_adapter(name)

    @property
    def prefixes(self) -> Prefixes:
        """The encoded studies that are kept."""
        return self._encoder.kept

    def forget(self) -> None:
        """Forget the studies that are kept, encoded and seen: the next request about one looks at its images anew."""
        self._encoder.forget()

    @property
    def passes(self) -> dict[str, int]:
        """How many passes went which way on a GPU (`accelerated.Accelerated.counts`). May be asked from any thread."""
        path = attached(self._checkpoint.model)
        return {} if path is None else dict(path.counts)

    def memory(self) -> list[DeviceMemory]:
        """What the GPUs hold that this process works on; empty on the CPU. May be asked from any thread."""
        return held_memory()

    def draft(
        self,
        images: Sequence[RadiographLike],
        *,
        sections: Sequence[str] = ("findings", "impression"),
        begin: str = "",
        settings: GenerationSettings | None = None,
        context: PromptContext | None = None,
        on_step: Callable[[StepEvent], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Filled:
        """Write a report about these images; the first one is the frontal view.

        `begin` is text with which the first section begins: it is locked and the model goes on from it, as an
        autoregressive model would, seeing the left side only. The model writes the section headers itself. Where it
        leaves one out, the section is empty, its text stays with the section before, and the answer carries the note
        `headers-missing`. The note `unfinished-sentence` says that it stops within a sentence, its canvas being full.
        Raises `Cancelled` between two steps once `cancelled()` is true.
        """
        return self._alone(DraftRequest(images, tuple(sections), begin, settings, context, on_step, cancelled))

    def infill(
        self,
        images: Sequence[RadiographLike] | None,
        sections: Sequence[Section],
        *,
        settings: GenerationSettings | None = None,
        context: PromptContext | None = None,
        on_step: Callable[[StepEvent], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Filled:
        """Fill the gaps of these sections; every lock comes back byte for byte. Without images: from the text alone.

        Raises `CanvasOverflow` before any work where locks and smallest gaps need more tokens than the canvas has, and
        `Cancelled` between two steps once `cancelled()` is true. The note `unfinished-sentence` says that no text was
        found that ends with a sentence and stays in its section; `shorter-than-asked`, that one has fewer tokens than
        its gap asks for; `hints-left-aside`, that gaps had hints of which the model was not told: a checkpoint that was
        not trained for them, or a rewriting; `not-trained-without-image`, that there was no image and the checkpoint
        was not trained to do without.
        """
        return self._alone(InfillRequest(images, tuple(sections), settings, context, on_step, cancelled))

    def batch(
        self,
        requests: Sequence[DraftRequest | InfillRequest],
        finished: Callable[[int, Filled | Exception], None] | None = None,
    ) -> list[Filled | Exception]:
        """Answer several requests, drafts and infills mixed, sharing the passes of the model.

        Each answer is what `draft` or `infill` would give, but for the order in which numbers are summed; each request
        has its own generator, settings, listener and cancellation. Where one fails, its place holds the exception, and
        the others go on. `finished` hears of each, by its place, as soon as it has ended.
        """
        with torch.inference_mode():
            works = []
            for request in requests:
                tally = Tally()
                works.append((self._work(request, tally), tally))
            return together(works, Readers(self._checkpoint.model), _MOST_ROWS, finished)

    def replay(
        self,
        record: RunRecord,
        images: Sequence[RadiographLike] | None,
        sections: Sequence[Section] | None = None,
        comparison: Sequence[Comparison] = (),
    ) -> Filled:
        """Run a recorded request again; the same text on the same device, threads and library versions.

        `sections` is what an infill was asked (a draft: not needed, its section names stand in the record's request),
        `comparison` what it was compared with, of which the record has a digest.
        A pass of several canvases sums in another order than one of one. A run that shared its passes is therefore
        replayed beside as many copies of itself as it had neighbours at most; that is no promise, since these came and
        went, and their prompts had lengths of their own.
        Raises `ReplayMismatch` naming what differs: model, precision, images, request, or at the end the text.
        """
        if record.model_digest != self.digest:
            raise ReplayMismatch("the checkpoint")
        if record.adapter_digest != self._checkpoint.adapter_digest:
            raise ReplayMismatch("the adapter")
        held = self._checkpoint.precision
        if record.precision not in (None, held):
            remedy = f"Load the checkpoint in {record.precision} (--precision, or INLAY_PRECISION)."
            raise ReplayMismatch(f"the precision {held}", remedy)
        shots = list(images or ())
        if tuple(image_digest(shot) for shot in shots) != tuple(record.image_digests):
            raise ReplayMismatch("an image")
        asked, begin = tuple(sections or ()), ""
        if record.kind == "draft":
            names = tuple(section.name for section in asked) or ("findings", "impression")
            begin = next((item.text for section in asked[:1] for item in section.items if isinstance(item, Lock)), "")
            asked = draft_request(names, begin)
        if digest_of_request(asked) != record.request_digest:
            raise ReplayMismatch("the request")
        if digest_of_comparison(comparison) != record.comparison_digest:
            raise ReplayMismatch("the comparison")
        settings, context = record.generation_settings(), record.prompt_context(comparison)
        request: DraftRequest | InfillRequest
        if record.kind == "draft":
            request = DraftRequest(shots, names, begin, settings, context)
        else:
            request = InfillRequest(shots, asked, settings, context)
        again = self._first_of(request, record.batch)
        if again.run.text_digest != record.text_digest:
            raise ReplayMismatch(
                "the text (another device, thread count or library version, other requests beside it?)"
            )
        return again

    def _alone(self, request: DraftRequest | InfillRequest) -> Filled:
        return self._first_of(request, 1)

    def _first_of(self, request: DraftRequest | InfillRequest, copies: int) -> Filled:
        answer = self.batch([request] * copies)[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _work(self, request: DraftRequest | InfillRequest, tally: Tally) -> Passes[Filled]:
        """The request's answer. Where memory or numbers fail, the kept studies go: the next attempt encodes anew."""
        with named(self._checkpoint.model.device, self.forget):
            try:
                if isinstance(request, DraftRequest):
                    return (yield from self._drafting(request, tally))
                return (yield from self._infilling(request, tally))
            except (NotANumber, NotEnoughMemory):
                # What was not a number may have come from an encoded study, and would come from it again.
                self.forget()
                raise

    def _drafting(self, request: DraftRequest, tally: Tally) -> Passes[Filled]:
        if not request.images:
            raise BadRequest("A draft needs an image.")
        asked, tokenizer = draft_request(request.sections, request.begin), self._checkpoint.tokenizer
        ears = Ears(request.on_step, request.cancelled, request.on_stage)
        call = make_call(self._checkpoint, "draft", asked, request.settings, request.context, ears)
        study = self._study(request.images, call)
        head = request.sections[0] if request.begin or call.settings.lock_first_header else None
        layout = lay_out_draft(tokenizer, head, self._checkpoint.canvas_length, request.begin)
        began = time.perf_counter()
        written = yield from self._canvases(study.prefix, call, layout)
        steps = written.steps
        ears.tell("denoising", began, steps=steps)
        # Locked text is not read back from tokens: only what follows it is decoded, and the rest spliced.
        text = (header(0, head) if head else "") + decode(tokenizer, written.ids)
        texts, complete = parse_draft(text, request.sections)
        if complete and written.canvases == 1 and call.settings.second_look:
            began = time.perf_counter()
            look = yield from on([study.prefix], mended(call, self._policy, self._banned_V, texts))
            ears.tell("second-look", began, steps=look.steps)
            texts, steps = list(look.texts), steps + look.steps
        filled = spliced(asked, texts)
        record = call.record(study, filled, steps=steps, gap_lengths=(), **self._page(tally))
        found = {"headers-missing": not complete, "unfinished-sentence": breaks_off(texts, ended=written.ended)}
        return Filled(filled, record, noted(found))

    def _canvases(self, prefix: Prefix, call: Call, layout: Layout) -> Passes[_Written]:
        """What is written on this canvas and on those after it, while none ends the turn."""
        control, length = self._checkpoint.control, self._checkpoint.canvas_length
        written: list[int] = []
        steps = 0
        for canvas in range(1, call.settings.canvases + 1):
            done = yield from on([prefix], call.denoised(layout))
            ids, (start, _) = done.ids_BL[0].tolist(), layout.spans[0]
            kept = until_end_of_turn(ids, control)
            written, steps = written + kept[start:], steps + done.steps
            ended = len(kept) < length
            if ended or canvas == call.settings.canvases:
                break
            # As DiffusionGemma goes on: the finished canvas is encoded behind the prompt, the next one is all noise.
            prefix = encode(self._checkpoint.model, tuple(ids), (0,) * length, None, after=prefix)
            layout = Layout((control.eos,) * length, (True,) * length, ((0, length),))
        return _Written(written, steps, canvas, ended)

    def _infilling(self, request: InfillRequest, tally: Tally) -> Passes[Filled]:
        ears = Ears(request.on_step, request.cancelled, request.on_stage)
        call = make_call(self._checkpoint, "infill", tuple(request.sections), request.settings, request.context, ears)
        tokenizer, control = self._checkpoint.tokenizer, self._checkpoint.control
        pages = paged(tokenizer, call.sections, self._checkpoint.canvas_length, control)
        studies: list[Study] = []
        filled: list[FilledSection] = []
        found: list[Attempt] = []
        for page in pages:
            studies.append(self._study(request.images or (), call, page))
            prefix = self._behind(studies[-1].prefix, filled)
            filling = Filling(replace(call, sections=page.sections), self._policy, self._banned_V)
            began = time.perf_counter()
            found.append((yield from on([prefix], filling.fill(page.frame))))
            ears.tell("denoising", began, steps=found[-1].steps)
            filled += spliced(page.sections, found[-1].texts)
        began = time.perf_counter()
        readings = yield from on([studies[0].prefix], self._reread(call, filled))
        if readings:
            ears.tell("rereading", began)
        record = call.record(
            studies[0],
            filled,
            steps=sum(best.steps for best in found),
            gap_lengths=tuple(end - begin for best in found for begin, end in best.layout.spans),
            **self._page(tally),
        )
        deaf = bool(hints_of(call.sections)) and (call.context.rewrite or not self.takes_hints)
        notes = noted(
            {
                "unfinished-sentence": not all(best.whole for best in found),
                "shorter-than-asked": any(best.short for best in found),
                "hints-left-aside": deaf,
                "not-trained-without-image": not request.images and not self._checkpoint.about.fills_without_image,
            }
        )
        choices = tuple(one for page, best in zip(pages, found, strict=True) for one in _choices(page, best))
        return Filled(
            tuple(filled), record, notes, self._disputes(call, readings), self._confidence(call, readings), choices
        )

    def _behind(self, prefix: Prefix, filled: Sequence[FilledSection]) -> Prefix:
        """The prompt with the pages before this one after it, as the model reads the canvases that it has finished."""
        if not filled:
            return prefix
        ids = written_before(self._checkpoint.tokenizer, [(section.name, section.text) for section in filled])
        return encode(self._checkpoint.model, tuple(ids), (0,) * len(ids), None, after=prefix)

    def _reread(self, call: Call, filled: Sequence[FilledSection]) -> Passes[list[Reading]]:
        disputes = call.settings.disputes and self._threshold is not None
        # Where a pass is taken for the locks it says the same of the written words at no cost.
        return (
            yield from reread(self._checkpoint, filled, locked=disputes, written=disputes or call.settings.confidence)
        )

    def _disputes(self, call: Call, readings: Sequence[Reading]) -> tuple[Dispute, ...] | None:
        if not call.settings.disputes or self._threshold is None:
            return None
        return disputes_of(readings, self._threshold, self._checkpoint.tokenizer, self._checkpoint.control)

    def _confidence(self, call: Call, readings: Sequence[Reading]) -> tuple[Word, ...] | None:
        asked = call.settings.confidence or (call.settings.disputes and self._threshold is not None)
        return words_of(readings) if asked else None

    @property
    def _threshold(self) -> float | None:
        return self._checkpoint.about.dispute_threshold

    def _study(self, images: Sequence[RadiographLike], call: Call, page: Page | None = None) -> Study:
        text = instruction([section.name for section in call.sections], call.context.style)
        began, missed = time.perf_counter(), self._encoder.kept.misses
        if page is None:
            study = self._encoder.study(images, text, wish=self._wish(call), comparison=call.comparison)
        else:
            later = locked_texts(call.sections[page.first + len(page.sections) :])
            locked = locked_texts(call.sections)
            study = self._encoder.study(images, text, locked, self._wish(call), later, call.comparison)
        call.ears.tell("prefix", began, known=self._encoder.kept.misses == missed)
        return study

    def _wish(self, call: Call) -> str:
        """What the prompt says at its end."""
        if call.context.rewrite:
            return to_rewrite(as_it_was(call.sections))
        return hinted(hints_of(call.sections)) if self.takes_hints else ""

    def _page(self, tally: Tally) -> dict[str, int]:
        return {
            "passes": tally.passes,
            "batch": tally.shared,
            "canvas_length": self._checkpoint.canvas_length,
        }


def _choices(page: Page, best: Attempt) -> list[Choice]:
    """What might stand in the gaps of a page; nothing where one text only was asked for."""
    places = [(hole.section, hole.item) for hole in page.frame.blocks.holes]
    return [
        Choice(page.sections[section].name, item, texts)
        for (section, item), texts in zip(places, best.alternatives, strict=bool(best.alternatives))
    ]
