"""One request under way: settings resolved, its generator, whom to tell of each step, how a canvas is denoised."""

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

import torch

from inlay_model.canvas import Layout
from inlay_model.comparison import compared, digest_of_comparison
from inlay_model.encoding import Study
from inlay_model.errors import BadRequest, Cancelled
from inlay_model.gaps import as_fixed
from inlay_model.generate import Denoised, denoising
from inlay_model.loading import Checkpoint, make_sampler, sampler_defaults
from inlay_model.passes import Passes
from inlay_model.provenance import RunRecord, digest_of_ids, digest_of_request, digest_of_text
from inlay_model.request import (
    Comparison,
    FilledSection,
    GenerationSettings,
    PromptContext,
    Section,
    Shown,
    Stage,
    StepEvent,
    check_sections,
)
from inlay_model.schedule import BEGIN_AGAIN, Sampler
from inlay_model.second_look import regrets
from inlay_model.step import Earlier, Step
from inlay_model.tokens import Control, Tokenizer
from inlay_model.transcript import spans_of, until_end_of_turn


@dataclass(frozen=True, slots=True)
class Ears:
    """Whom to tell of each step and each stage, and whom to ask whether to go on."""

    on_step: Callable[[StepEvent], None] | None = None
    cancelled: Callable[[], bool] | None = None
    on_stage: Callable[[Stage], None] | None = None

    def tell(self, name: str, began: float, *, steps: int = 0, known: bool = False) -> None:
        """A stage that began at that reading of `time.perf_counter` has ended."""
        if self.on_stage is not None:
            self.on_stage(Stage(name, time.perf_counter() - began, steps, known))


@dataclass(slots=True)
class Looks:
    """How many second looks a request has taken, and how many texts did not stand."""

    taken: int = 0
    doubted: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """What every part of one request needs, whichever kind of model answers it."""

    kind: str
    sections: tuple[Section, ...]
    settings: GenerationSettings
    context: PromptContext
    checkpoint: Checkpoint
    generator: torch.Generator
    ears: Ears
    began: float
    looks: Looks = field(default_factory=Looks, kw_only=True)

    @property
    def told(self) -> tuple[Comparison, ...]:
        """The earlier examinations that the prompt tells of, where the checkpoint has a place for them."""
        return self.context.comparison if self.checkpoint.about.takes_comparison else ()

    @property
    def comparison(self) -> str:
        """What the prompt says of them."""
        return compared(self.checkpoint.tokenizer, self.told)

    def check_cancelled(self) -> None:
        """Raise `Cancelled` once the caller says so: for work between two canvases."""
        if self.ears.cancelled is not None and self.ears.cancelled():
            raise Cancelled("The request was cancelled.")

    def record(
        self,
        study: Study,
        filled: Sequence[FilledSection],
        *,
        steps: int,
        passes: int,
        gap_lengths: tuple[int, ...],
        canvas_length: int,
        batch: int = 1,
    ) -> RunRecord:
        """What this request used, and digests of what it was asked and answered."""
        checkpoint = self.checkpoint
        return RunRecord(
            kind=self.kind,
            model=checkpoint.about.name,
            model_digest=checkpoint.digest,
            revision=checkpoint.revision,
            adapter_digest=checkpoint.adapter_digest,
            demonstration=checkpoint.about.demonstration,
            seed=self.settings.seed,
            settings=asdict(self.settings),
            context={"style": self.context.style, "rewrite": self.context.rewrite},
            steps_taken=steps,
            forward_passes=passes,
            gap_lengths=gap_lengths,
            prompt_digest=digest_of_ids(study.prompt.ids),
            image_digests=study.image_digests,
            request_digest=digest_of_request(self.sections),
            text_digest=digest_of_text(filled),
            canvas_length=canvas_length,
            batch=batch,
            second_looks=self.looks.taken,
            doubted=self.looks.doubted,
            comparison_digest=digest_of_comparison(self.told),
            device=_device_name(checkpoint.model.device),
            dtype=str(checkpoint.model.dtype).removeprefix("torch."),
            precision=checkpoint.precision,
            threads=torch.get_num_threads(),
            versions=_versions(),
            seconds=round(time.perf_counter() - self.began, 4),
        )


@dataclass(frozen=True, slots=True)
class Call(Begun):
    """A request that is denoised."""

    sampler: Sampler

    def denoised(
        self, layout: Layout, banned_V: torch.Tensor | None = None, before: Mapping[int, int] | None = None
    ) -> Passes[Denoised]:
        """Denoise one canvas of this layout; `banned_V` is true for tokens that must not be written.

        `before` are tokens of the previous version by their places; without any, denoising begins from noise.
        """
        model = self.checkpoint.model
        return denoising(
            as_fixed([layout], model.device),
            self.sampler,
            self.checkpoint.vocabulary,
            self.generator,
            banned_V=banned_V,
            dtype=model.dtype,
            on_step=self._teller(layout),
            cancelled=self.ears.cancelled,
            earlier=self._earlier(layout, before or {}),
        )

    def _earlier(self, layout: Layout, before: Mapping[int, int]) -> Earlier | None:
        share = self.settings.warm_start
        if share is None or not before:
            return None
        places = range(len(layout.ids))
        device = self.checkpoint.model.device
        ids_BL = torch.tensor([[before.get(at, layout.ids[at]) for at in places]], device=device)
        return Earlier(ids_BL, torch.tensor([[at in before for at in places]], device=device), share)

    def looked_at(self, ids: Sequence[int], parts: Sequence[Sequence[int]]) -> Passes[list[float]]:
        """What a second look says of these parts of a canvas (`second_look.regrets`)."""
        self.looks.taken += 1
        canvas_L = torch.tensor(ids, device=self.checkpoint.model.device)
        return (yield from regrets(canvas_L, parts, self.checkpoint.vocabulary, self.generator))

    def _teller(self, layout: Layout) -> Callable[[int, Step], None] | None:
        tell = self.ears.on_step
        if tell is None:
            return None
        return teller(tell, self.checkpoint.tokenizer, self.checkpoint.control, sum(layout.free), self.sampler.steps)


def teller(
    tell: Callable[[StepEvent], None], tokenizer: Tokenizer, control: Control, free: int, steps: int
) -> Callable[[int, Step], None]:
    """What tells of steps on a canvas with so many free tokens: its first row, decoded once somebody looks at it."""

    def told(number: int, step: Step) -> None:
        def show() -> Shown:
            argmax_BL, accepted_BL, _ = step.glance.read()
            accepted = accepted_BL[0].tolist()
            text, spans = spans_of(tokenizer, until_end_of_turn(argmax_BL[0].tolist(), control), accepted)
            return Shown(text, tuple(spans), free - sum(accepted))

        tell(StepEvent.later(number, steps, show))

    return told


def begin_request(
    checkpoint: Checkpoint,
    kind: str,
    sections: tuple[Section, ...],
    settings: GenerationSettings | None,
    context: PromptContext | None,
    ears: Ears,
) -> Begun:
    """A request, begun; raises `BadRequest` for sections, a style or a rewriting that make no sense."""
    check_sections(sections)
    chosen, said = settings or GenerationSettings(), context or PromptContext()
    styles = checkpoint.about.styles
    if said.style is not None and said.style not in styles:
        raise BadRequest(f"This checkpoint knows the styles: {', '.join(styles) or 'none'}.")
    if said.rewrite and not (kind == "infill" and said.style is not None and checkpoint.about.rewrites):
        raise BadRequest(
            "Only an infill is rewritten, in a named style, by a checkpoint that was trained for it; any other one "
            "rewrites nothing."
        )
    generator = torch.Generator(checkpoint.model.device)
    generator.manual_seed(chosen.seed)
    return Begun(kind, sections, chosen, said, checkpoint, generator, ears, time.perf_counter())


def make_call(
    checkpoint: Checkpoint,
    kind: str,
    sections: tuple[Section, ...],
    settings: GenerationSettings | None,
    context: PromptContext | None,
    ears: Ears,
) -> Call:
    """A request's call; raises as `begin_request` does."""
    begun = begin_request(checkpoint, kind, sections, settings, context, ears)
    chosen = begun.settings
    sampler = make_sampler(
        sampler_defaults(checkpoint.model),
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
    return Call(**{part.name: getattr(begun, part.name) for part in fields(begun)}, sampler=sampler)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {platform.machine()}"


def _versions() -> dict[str, str]:
    """Versions of what the numerics depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": importlib.metadata.version("transformers"),
        "tokenizers": importlib.metadata.version("tokenizers"),
    }
