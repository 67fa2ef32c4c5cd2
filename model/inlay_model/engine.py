"""The engine: a loaded checkpoint that drafts reports and fills the gaps between locked text."""

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from inlay_model.canvas import Frame, Hole, Layout, encode_fragment, encode_request, header, lay_out_draft
from inlay_model.errors import BadImage, BadRequest, Cancelled, CanvasOverflow, ReplayMismatch
from inlay_model.gaps import Policy, Scored, Search, as_fixed
from inlay_model.generate import Denoised, run
from inlay_model.loading import Checkpoint, load, make_sampler, sampler_defaults, soft_tokens
from inlay_model.prefix import Decoder, Prefix, Prefixes, encode
from inlay_model.prompt import Prompt, build_prompt, instruction
from inlay_model.provenance import (
    RunRecord,
    digest_of_ids,
    digest_of_request,
    digest_of_text,
    sha256_of,
)
from inlay_model.request import (
    Filled,
    FilledSection,
    Gap,
    GenerationSettings,
    Lock,
    Piece,
    PromptContext,
    Section,
    StepEvent,
    check_sections,
)
from inlay_model.schedule import BEGIN_AGAIN, Sampler
from inlay_model.step import Step
from inlay_model.transcript import (
    continues_sentence,
    decode,
    ends_sentence,
    fill_text,
    joined,
    parse_draft,
    spans_of,
    until_end_of_turn,
    whole_sentences,
)

RadiographLike = Image.Image | np.ndarray

# The least that can follow the last lock of a request: a header, a word, the end of turn.
_TAIL = 8
# Room for a few hundred studies of the demonstration model, or about six of the 26B model at 280 image tokens.
_PREFIX_BUDGET = 512 * 2**20


@dataclass(frozen=True, slots=True)
class _Ears:
    """Whom to tell of each step, and whom to ask whether to go on."""

    on_step: Callable[[StepEvent], None] | None
    cancelled: Callable[[], bool] | None


@dataclass(frozen=True, slots=True)
class _Call:
    """What every part of one request needs: its settings resolved, its generator, and whom to tell."""

    kind: str
    sections: tuple[Section, ...]
    settings: GenerationSettings
    context: PromptContext
    sampler: Sampler
    generator: torch.Generator
    ears: _Ears
    began: float


@dataclass(frozen=True, slots=True)
class _Study:
    """A prompt with its images, encoded."""

    prompt: Prompt
    prefix: Prefix
    image_digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One way of filling gaps: its layout, the tokens, the text of every gap, and how sure the model was of them."""

    layout: Layout
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    whole: bool
    score: float
    steps: int


class Engine:
    """Drafts and infills with one checkpoint on one device. Not for use by several threads at once."""

    def __init__(self, checkpoint: Checkpoint, policy: Policy | None = None) -> None:
        self._checkpoint = checkpoint
        # Four lengths: on 80 phantom reports the right one was always among the first three.
        self._policy = policy or Policy(shortlist=4 if checkpoint.about.foretells_length else None)
        self._prefixes = Prefixes(_PREFIX_BUDGET)
        self._defaults: Mapping[str, Any] = sampler_defaults(checkpoint.model)
        self._banned_V = _banned_in_gaps(checkpoint)

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
    def checkpoint(self) -> Checkpoint:
        """Model, tokenizer and image processor, for training and evaluation."""
        return self._checkpoint

    def use_adapter(self, name: str | None) -> None:
        """Make one of the adapters it was loaded with the active one, None for the bare checkpoint."""
        self._checkpoint.use_adapter(name)

    @property
    def prefixes(self) -> Prefixes:
        """The encoded studies that are kept."""
        return self._prefixes

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
        `headers-missing`.
        Raises `Cancelled` between two steps once `cancelled()` is true.
        """
        if not images:
            raise BadRequest("A draft needs an image.")
        asked = _draft_request(sections, begin)
        call = self._call("draft", asked, settings, context, _Ears(on_step, cancelled))
        with torch.inference_mode():
            study = self._study(images, call, locked=())
            head = sections[0] if begin or call.settings.lock_first_header else None
            layout = lay_out_draft(self._checkpoint.tokenizer, head, self._checkpoint.canvas_length, begin)
            decoder = Decoder(self._checkpoint.model, study.prefix)
            done = self._denoise(decoder, layout, call, banned_V=None)
        # Locked text is not read back from tokens: only what follows it is decoded, and the rest spliced.
        (start, _), free = layout.spans[0], self._written(done.ids_BL[0].tolist())
        text = (header(0, head) if head else "") + decode(self._checkpoint.tokenizer, free[start:])
        texts, complete = parse_draft(text, sections)
        filled = _spliced(asked, texts)
        record = self._record(call, study, filled, (done.steps, decoder.passes), gap_lengths=())
        return Filled(filled, record, () if complete else ("headers-missing",))

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
        `Cancelled` between two steps once `cancelled()` is true. The note `unfinished-sentence` says that no length was
        found at which a gap ends with a sentence.
        """
        call = self._call("infill", tuple(sections), settings, context, _Ears(on_step, cancelled))
        blocks = encode_request(self._checkpoint.tokenizer, call.sections)
        frame = Frame(blocks, self._checkpoint.canvas_length, self._checkpoint.control)
        _ = frame.room
        locked = [item.text for section in call.sections for item in section.items if isinstance(item, Lock)]
        with torch.inference_mode():
            study = self._study(images or (), call, locked)
            best, passes = self._fill(frame, study, call)
        filled = _spliced(call.sections, best.texts)
        lengths = tuple(end - begin for begin, end in best.layout.spans)
        record = self._record(call, study, filled, (best.steps, passes), lengths)
        return Filled(filled, record, () if best.whole else ("unfinished-sentence",))

    def replay(
        self, record: RunRecord, images: Sequence[RadiographLike] | None, sections: Sequence[Section] | None = None
    ) -> Filled:
        """Run a recorded request again; the same text on the same device, threads and library versions.

        `sections` is what an infill was asked (a draft: not needed, its section names stand in the record's request).
        Raises `ReplayMismatch` naming the part that differs: model, images, request, or at the end the text.
        """
        if record.model_digest != self.digest:
            raise ReplayMismatch("the checkpoint")
        if record.adapter_digest != self._checkpoint.adapter_digest:
            raise ReplayMismatch("the adapter")
        shots = list(images or ())
        if tuple(image_digest(shot) for shot in shots) != tuple(record.image_digests):
            raise ReplayMismatch("an image")
        asked, begin = tuple(sections or ()), ""
        if record.kind == "draft":
            names = tuple(section.name for section in asked) or ("findings", "impression")
            begin = next((item.text for section in asked[:1] for item in section.items if isinstance(item, Lock)), "")
            asked = _draft_request(names, begin)
        if digest_of_request(asked) != record.request_digest:
            raise ReplayMismatch("the request")
        settings, context = record.generation_settings(), record.prompt_context()
        if record.kind == "draft":
            again = self.draft(shots, sections=names, begin=begin, settings=settings, context=context)
        else:
            again = self.infill(shots, asked, settings=settings, context=context)
        if again.run.text_digest != record.text_digest:
            raise ReplayMismatch("the text (another device, thread count or library version?)")
        return again

    # ── one request ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _call(
        self,
        kind: str,
        sections: tuple[Section, ...],
        settings: GenerationSettings | None,
        context: PromptContext | None,
        ears: _Ears,
    ) -> _Call:
        check_sections(sections)
        chosen, said = settings or GenerationSettings(), context or PromptContext()
        if said.style is not None and said.style not in self.styles:
            raise BadRequest(f"This checkpoint knows the styles: {', '.join(self.styles) or 'none'}.")
        sampler = make_sampler(
            self._defaults,
            steps=chosen.steps,
            early_stop=chosen.early_stop,
            begin_again=BEGIN_AGAIN if chosen.begin_again else (),
            stop_when_accepted=kind == "infill",
            entropy_bound=chosen.entropy_bound,
            t_min=chosen.t_min,
            t_max=chosen.t_max,
            stability_threshold=chosen.stability_threshold,
            confidence_threshold=chosen.confidence_threshold,
        )
        generator = torch.Generator(self._checkpoint.model.device)
        generator.manual_seed(chosen.seed)
        began = time.perf_counter()
        return _Call(kind, sections, chosen, said, sampler, generator, ears, began)

    def _study(self, images: Sequence[RadiographLike], call: _Call, locked: Sequence[str]) -> _Study:
        checkpoint = self._checkpoint
        pictures = [as_picture(image) for image in images]
        digests = tuple(image_digest(picture) for picture in pictures)
        counts = [soft_tokens(checkpoint.image_processor, *picture.size) for picture in pictures]
        text = instruction([section.name for section in call.sections], call.context.style)
        listed = locked if checkpoint.about.locked_in_prompt else ()
        prompt = build_prompt(checkpoint.tokenizer, counts, text, listed)
        # Checkpoints that are told about locks share the encoding up to there; the others share all of it.
        shared = prompt.shared if checkpoint.about.locked_in_prompt else len(prompt.ids)
        adapter = (checkpoint.adapter_digest or "").encode()
        key = sha256_of(adapter, digest_of_ids(prompt.ids[:shared]).encode(), *(digest.encode() for digest in digests))
        prefix = self._prefixes.get(key)
        if prefix is None:
            pixels = self._pixels(pictures) if pictures else None
            prefix = encode(checkpoint.model, prompt.ids[:shared], prompt.mm_token_type_ids[:shared], pixels)
            self._prefixes.put(key, prefix)
        if shared < len(prompt.ids):
            rest, types = prompt.ids[shared:], prompt.mm_token_type_ids[shared:]
            prefix = encode(checkpoint.model, rest, types, None, after=prefix)
        return _Study(prompt, prefix, digests)

    def _pixels(self, pictures: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        model = self._checkpoint.model
        batch = self._checkpoint.image_processor(images=list(pictures), return_tensors="pt")
        return {
            "pixel_values": batch["pixel_values"].to(model.device, model.dtype),
            "image_position_ids": batch["image_position_ids"].to(model.device),
        }

    def _denoise(self, decoder: Decoder, layout: Layout, call: _Call, banned_V: torch.Tensor | None) -> Denoised:
        model = self._checkpoint.model
        return run(
            decoder,
            as_fixed([layout], model.device),
            call.sampler,
            self._checkpoint.vocabulary,
            call.generator,
            banned_V=banned_V,
            dtype=model.dtype,
            on_step=self._teller(call, layout),
            cancelled=call.ears.cancelled,
        )

    def _teller(self, call: _Call, layout: Layout) -> Callable[[int, Step], None] | None:
        tell = call.ears.on_step
        if tell is None:
            return None

        def told(number: int, step: Step) -> None:
            accepted = step.accepted_BL[0].tolist()
            ids = self._written(step.argmax_BL[0].tolist())
            text, spans = spans_of(self._checkpoint.tokenizer, ids, accepted)
            left = sum(layout.free) - sum(accepted)
            tell(StepEvent(number, call.sampler.steps, text, tuple(spans), left))

        return told

    def _written(self, ids: Sequence[int]) -> list[int]:
        return until_end_of_turn(ids, self._checkpoint.control)

    # ── filling gaps ────────────────────────────────────────────────────────────────────────────────────────────────

    def _fill(self, frame: Frame, study: _Study, call: _Call) -> tuple[_Attempt, int]:
        """Fill the gaps in reading order, each with what was written before it as locked text.

        Several gaps of unknown length at once would make each other's surroundings improbable: with one open gap at a
        time the length search and the model see what they see with a single gap.
        """
        holes, control = frame.blocks.holes, self._checkpoint.control
        open_ended = _open_ended(call.sections)
        attempts: list[_Attempt] = []
        written: list[list[int]] = []
        passes = 0
        trailing = frame.blocks.trailing if not any(_is_bounded(hole.gap) for hole in holes) else 0
        if trailing != frame.blocks.trailing:
            frame = Frame(frame.blocks.closed(), frame.canvas_length, control)
        for hole, place in enumerate(holes[: len(holes) - trailing]):
            if hole and _side_by_side(holes[hole - 1], place):
                # The gap before it holds what there is to say.
                attempts.append(replace(attempts[-1], texts=("",), steps=0))
                written.append([])
                continue
            blocks = frame.blocks.only(hole, written)
            # A trailing part needs at least a header and the end of turn.
            reserved = sum(later.gap.min_tokens for later in holes[hole + 1 :]) + _TAIL * bool(trailing)
            single = Frame(blocks, frame.canvas_length, control, reserved)
            attempt, spent = self._fill_one(single, study, call, open_ended=open_ended[hole])
            attempts.append(attempt)
            passes += spent
            written.append(self._as_written(attempt, place.gap))
        if trailing:
            return self._fill_trailing(frame, attempts, written, study, call, passes)
        if len(attempts) == 1:
            return attempts[0], passes
        return _joint(frame, attempts, written), passes

    def _fill_trailing(
        self,
        frame: Frame,
        attempts: Sequence[_Attempt],
        written: Sequence[Sequence[int]],
        study: _Study,
        call: _Call,
        passes: int,
    ) -> tuple[_Attempt, int]:
        """Write everything after the last lock in one go, headers included, and cut it at them."""
        checkpoint, holes = self._checkpoint, frame.blocks.holes
        head = frame.blocks.before_trailing(written)
        size = frame.canvas_length - len(head)
        if size < _TAIL:
            raise CanvasOverflow(needed=len(head) + _TAIL, available=frame.canvas_length)
        eos = checkpoint.control.eos
        span = (len(head), frame.canvas_length)
        layout = Layout((*head, *[eos] * size), (*[False] * len(head), *[True] * size), (span,))
        decoder = Decoder(checkpoint.model, study.prefix)
        open_holes = holes[len(attempts) :]
        names = [section.name for section in call.sections[open_holes[0].section :]]
        steps = 0
        # The generator has gone on, so another attempt is another text.
        for _ in range(call.settings.fill_attempts):
            done = self._denoise(decoder, layout, call, banned_V=None)
            steps += done.steps
            written_ids = self._written(done.ids_BL[0].tolist())[len(head) :]
            texts, complete = parse_draft(header(0, names[0]) + decode(checkpoint.tokenizer, written_ids), names)
            found = {open_holes[0].section + at: text for at, text in enumerate(texts)}
            # Of several gaps side by side the first holds the text.
            filled = tuple(found.pop(hole.section, "") for hole in open_holes)
            whole = complete and all(ends_sentence(text) for text in filled if text)
            if whole:
                break
        joint = _Attempt(
            layout=layout,
            ids=tuple(done.ids_BL[0].tolist()),
            texts=(*(text for attempt in attempts for text in attempt.texts), *filled),
            whole=whole and all(attempt.whole for attempt in attempts),
            score=min((attempt.score for attempt in attempts), default=0.0),
            steps=steps + sum(attempt.steps for attempt in attempts),
        )
        return joint, passes + decoder.passes

    def _as_written(self, attempt: _Attempt, gap: Gap) -> list[int]:
        """Token ids of a filled gap as later gaps see it: the returned text, or the raw tokens where bounds count."""
        text = encode_fragment(self._checkpoint.tokenizer, attempt.texts[0])
        (begin, end) = attempt.layout.spans[0]
        return text if len(text) >= gap.min_tokens and len(text) <= end - begin else list(attempt.ids[begin:end])

    def _fill_one(self, frame: Frame, study: _Study, call: _Call, *, open_ended: bool) -> tuple[_Attempt, int]:
        checkpoint = self._checkpoint
        readers: dict[int, Decoder] = {}

        def reader(batch: int) -> Decoder:
            if call.ears.cancelled is not None and call.ears.cancelled():
                raise Cancelled("The request was cancelled.")
            return readers.setdefault(batch, Decoder(checkpoint.model, study.prefix, batch))

        device = checkpoint.model.device
        noise_L = torch.randint(checkpoint.vocabulary, (frame.canvas_length,), generator=call.generator, device=device)
        ranking = Search(frame, self._policy, reader, noise_L).ranking()
        attempts: list[_Attempt] = []
        for lengths in _tries(ranking, call.settings.fill_attempts, frame.room):
            attempts.append(self._attempt(frame, lengths, reader(1), call, open_ended=open_ended))
            if attempts[-1].whole:
                break
        best = max(attempts, key=lambda attempt: (attempt.whole, attempt.score))
        return best, sum(decoder.passes for decoder in readers.values())

    def _attempt(
        self, frame: Frame, lengths: Sequence[int], read: Decoder, call: _Call, *, open_ended: bool
    ) -> _Attempt:
        checkpoint = self._checkpoint
        layout = frame.layout(lengths)
        done = self._denoise(read, layout, call, self._banned_V)
        ids = tuple(done.ids_BL[0].tolist())
        ((begin, end),) = layout.spans
        raw = fill_text(checkpoint.tokenizer, ids[begin:end])
        text = raw if open_ended else (whole_sentences(raw) or raw)
        whole = open_ended or ends_sentence(raw)
        return _Attempt(layout, ids, (text,), whole, -float(done.doubt_B[0]), done.steps)

    def _record(
        self,
        call: _Call,
        study: _Study,
        filled: Sequence[FilledSection],
        spent: tuple[int, int],
        gap_lengths: tuple[int, ...],
    ) -> RunRecord:
        checkpoint = self._checkpoint
        return RunRecord(
            kind=call.kind,
            model=checkpoint.about.name,
            model_digest=checkpoint.digest,
            revision=checkpoint.revision,
            adapter_digest=checkpoint.adapter_digest,
            demonstration=checkpoint.about.demonstration,
            seed=call.settings.seed,
            settings=asdict(call.settings),
            context=asdict(call.context),
            steps_taken=spent[0],
            forward_passes=spent[1],
            gap_lengths=gap_lengths,
            prompt_digest=digest_of_ids(study.prompt.ids),
            image_digests=study.image_digests,
            request_digest=digest_of_request(call.sections),
            text_digest=digest_of_text(filled),
            canvas_length=checkpoint.canvas_length,
            batch=1,
            device=_device_name(checkpoint.model.device),
            dtype=str(checkpoint.model.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            versions=_versions(),
            seconds=round(time.perf_counter() - call.began, 4),
        )


def as_picture(image: RadiographLike) -> Image.Image:
    """A grey or RGB picture of 8 bits; raises `BadImage` for an array of another shape or type."""
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise BadImage("The image has no pixels.")
        return image if image.mode in {"L", "RGB"} else image.convert("RGB")
    if image.dtype != np.uint8 or image.ndim != 2 or image.size == 0:
        raise BadImage(f"An image must be rows x columns of 8 bits; this one is {image.shape} of {image.dtype}.")
    return Image.fromarray(image)


def image_digest(image: RadiographLike) -> str:
    """Digest of an image's pixels, its size and whether it is grey or coloured."""
    picture = as_picture(image)
    return sha256_of(f"{picture.mode} {picture.width}x{picture.height}".encode(), picture.tobytes())


def _side_by_side(one: Hole, other: Hole) -> bool:
    free = not _is_bounded(one.gap) and not _is_bounded(other.gap)
    return free and one.section == other.section and one.item + 1 == other.item


def _is_bounded(gap: Gap) -> bool:
    return gap.min_tokens > 0 or gap.max_tokens is not None


def _joint(frame: Frame, attempts: Sequence[_Attempt], written: Sequence[Sequence[int]]) -> _Attempt:
    """The gaps filled one after the other as one answer; the score is that of the worst of them."""
    layout = frame.layout([len(ids) for ids in written])
    ids = list(layout.ids)
    for (begin, end), tokens in zip(layout.spans, written, strict=True):
        ids[begin:end] = tokens
    return _Attempt(
        layout=layout,
        ids=tuple(ids),
        texts=tuple(text for attempt in attempts for text in attempt.texts),
        whole=all(attempt.whole for attempt in attempts),
        score=min((attempt.score for attempt in attempts), default=0.0),
        steps=sum(attempt.steps for attempt in attempts),
    )


def _draft_request(names: Sequence[str], begin: str) -> tuple[Section, ...]:
    """A draft as a request: one gap per section, after the text that the first one begins with."""
    first = (Lock(begin), Gap()) if begin else (Gap(),)
    return tuple(Section(name, first if at == 0 else (Gap(),)) for at, name in enumerate(names))


def _spliced(sections: Sequence[Section], texts: Sequence[str]) -> tuple[FilledSection, ...]:
    """The answer: locks from the caller's strings, fills joined to their neighbours."""
    left = iter(texts)
    answer = []
    for section in sections:
        found = [item.text if isinstance(item, Lock) else next(left) for item in section.items]
        pieces: list[Piece] = []
        before = ""
        for at, item in enumerate(section.items):
            if isinstance(item, Lock):
                pieces.append(Piece(item.text, "lock", at))
            else:
                after = next((text for text in found[at + 1 :] if text), "")
                pieces.append(Piece(joined(before, found[at], after), "fill", at))
            before = pieces[-1].text or before
        answer.append(FilledSection(section.name, tuple(pieces)))
    return tuple(answer)


def _open_ended(sections: Sequence[Section]) -> list[bool]:
    """Per gap: whether the locked text after it goes on with its sentence, so that it need not end one."""
    answer = []
    for section in sections:
        for at, item in enumerate(section.items):
            if isinstance(item, Gap):
                following = next(
                    (other.text for other in section.items[at + 1 :] if isinstance(other, Lock) and other.text.strip()),
                    "",
                )
                answer.append(continues_sentence(following))
    return answer


def _tries(ranking: Sequence[Sequence[Scored]], attempts: int, most: int) -> list[list[int]]:
    """Length combinations to write out, best first: all gaps at their best, then all at their second best, ..."""
    found: list[list[int]] = []
    for attempt in range(attempts):
        lengths = [order[min(attempt, len(order) - 1)].length for order in ranking]
        if sum(lengths) <= most and lengths not in found:
            found.append(lengths)
    return found


def _banned_in_gaps(checkpoint: Checkpoint) -> torch.Tensor:
    """True for tokens that must not stand inside a gap: control tokens, and everything that breaks the line."""
    tokenizer: Any = checkpoint.tokenizer
    banned_V = torch.zeros(checkpoint.vocabulary, dtype=torch.bool)
    for token, index in tokenizer.get_vocab().items():
        if index < checkpoint.vocabulary and ("\n" in token or "\r" in token or token in {"<0x0A>", "<0x0D>"}):
            banned_V[index] = True
    banned_V[[index for index in tokenizer.all_special_ids if index < checkpoint.vocabulary]] = True
    return banned_V.to(checkpoint.model.device)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {platform.machine()}"


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": importlib.metadata.version("transformers"),
        "tokenizers": importlib.metadata.version("tokenizers"),
    }
