"""One request under way: settings resolved, its generator, whom to tell of each step, how a canvas is denoised."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from inlay_model.canvas import Layout
from inlay_model.errors import BadRequest, Cancelled
from inlay_model.gaps import as_fixed
from inlay_model.generate import Denoised, denoising
from inlay_model.loading import Checkpoint, make_sampler, sampler_defaults
from inlay_model.passes import Passes
from inlay_model.request import GenerationSettings, PromptContext, Section, Shown, StepEvent, check_sections
from inlay_model.schedule import BEGIN_AGAIN, Sampler
from inlay_model.step import Step
from inlay_model.transcript import spans_of, until_end_of_turn


@dataclass(frozen=True, slots=True)
class Ears:
    """Whom to tell of each step, and whom to ask whether to go on."""

    on_step: Callable[[StepEvent], None] | None = None
    cancelled: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What every part of one request needs."""

    kind: str
    sections: tuple[Section, ...]
    settings: GenerationSettings
    context: PromptContext
    checkpoint: Checkpoint
    sampler: Sampler
    generator: torch.Generator
    ears: Ears
    began: float

    def denoised(self, layout: Layout, banned_V: torch.Tensor | None = None) -> Passes[Denoised]:
        """Denoise one canvas of this layout; `banned_V` is true for tokens that must not be written."""
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
        )

    def check_cancelled(self) -> None:
        """Raise `Cancelled` once the caller says so: for work between two canvases."""
        if self.ears.cancelled is not None and self.ears.cancelled():
            raise Cancelled("The request was cancelled.")

    def _teller(self, layout: Layout) -> Callable[[int, Step], None] | None:
        tell = self.ears.on_step
        if tell is None:
            return None
        tokenizer, control = self.checkpoint.tokenizer, self.checkpoint.control

        def told(number: int, step: Step) -> None:
            # Copies, because a reader of static buffers writes its next step into them; nothing is waited for here.
            argmax_L, accepted_L = step.argmax_BL[0].clone(), step.accepted_BL[0].clone()

            def show() -> Shown:
                accepted = accepted_L.tolist()
                text, spans = spans_of(tokenizer, until_end_of_turn(argmax_L.tolist(), control), accepted)
                return Shown(text, tuple(spans), sum(layout.free) - sum(accepted))

            tell(StepEvent.later(number, self.sampler.steps, show))

        return told


def make_call(
    checkpoint: Checkpoint,
    kind: str,
    sections: tuple[Section, ...],
    settings: GenerationSettings | None,
    context: PromptContext | None,
    ears: Ears,
) -> Call:
    """A request's call; raises `BadRequest` for sections or a style that make no sense."""
    check_sections(sections)
    chosen, said = settings or GenerationSettings(), context or PromptContext()
    styles = checkpoint.about.styles
    if said.style is not None and said.style not in styles:
        raise BadRequest(f"This checkpoint knows the styles: {', '.join(styles) or 'none'}.")
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
    generator = torch.Generator(checkpoint.model.device)
    generator.manual_seed(chosen.seed)
    return Call(kind, sections, chosen, said, checkpoint, sampler, generator, ears, time.perf_counter())
