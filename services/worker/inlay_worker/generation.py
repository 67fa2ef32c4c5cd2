"""From a claimed job to the model and back: drafts and infills, in the core's own values.

What reaches the model is pixels, section names, and text that stands in the report. Nothing of the order or the patient
does: the claim does not carry it, but for the order's free text where a site allows that, and it is left out here.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from inlay_core.application.ports import Claimed, Generated
from inlay_core.domain.errors import Forbidden, Invalid
from inlay_core.domain.fragment import SECTION_NAMES
from inlay_core.domain.infill import Fill, KeptText, OpenGap, ResolvedSection
from inlay_core.domain.job import Job, JobKind
from inlay_model import Filled, Gap, GenerationSettings, Lock, PromptContext, Section, StepEvent
from inlay_worker.images import Study

DRAFTED_SECTIONS: Final = ("findings", "impression")
OnStep = Callable[[StepEvent], None]
Cancelled = Callable[[], bool]


class Model(Protocol):
    """What the worker needs of `inlay_model.Engine`."""

    @property
    def is_demonstration(self) -> bool:
        """Whether the checkpoint knows synthetic phantoms only."""
        ...

    def draft(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        sections: Sequence[str] = DRAFTED_SECTIONS,
        settings: GenerationSettings | None = None,
        context: PromptContext | None = None,
        on_step: OnStep | None = None,
        cancelled: Cancelled | None = None,
    ) -> Filled:
        """Write a report."""
        ...

    def infill(
        self,
        images: Sequence[NDArray[np.uint8]] | None,
        sections: Sequence[Section],
        *,
        settings: GenerationSettings | None = None,
        context: PromptContext | None = None,
        on_step: OnStep | None = None,
        cancelled: Cancelled | None = None,
    ) -> Filled:
        """Fill the gaps between locks."""
        ...

    @property
    def styles(self) -> tuple[str, ...]:
        """Report styles that the model was trained to write in; empty where it does not say."""
        ...

    def use_adapter(self, name: str | None) -> None:
        """Make one of the adapters it was loaded with the active one, None for the bare checkpoint."""
        ...


class Generation:
    """Runs one job at a time on a model.

    `steps` is the site's number of denoising steps; `style` the one that it reports in, None for the model's first;
    `demo_on_any_study` lifts rule 9: that the demonstration model is refused on studies that are no phantoms. `adapt`
    makes the adapter of a job the model's active one.
    """

    def __init__(
        self,
        model: Model,
        *,
        steps: int,
        style: str | None = None,
        demo_on_any_study: bool = False,
        adapt: Callable[[Claimed], None] | None = None,
    ) -> None:
        if style is not None and style not in model.styles:
            known = ", ".join(model.styles) or "none"
            raise Invalid("unknown-style", f"The model was trained to write in: {known}.", "INLAY_REPORT_STYLE")
        self._model = model
        self._steps = steps
        self._style = style or next(iter(model.styles), None)
        self._demo_on_any_study = demo_on_any_study
        self._adapt = adapt or (lambda _: None)

    def check(self, job: Job, study: Study | None) -> None:
        """Refuse what must not be generated, before anything is: Forbidden not-a-phantom, Invalid images-missing."""
        if job.kind is JobKind.DRAFT and study is None:
            raise Invalid("images-missing", "There are no images to draft from.")
        if not self._model.is_demonstration or self._demo_on_any_study:
            return
        if study is None or not study.phantom:
            raise Forbidden("not-a-phantom", "The demonstration model reads synthetic phantoms only, and this is none.")

    def generate(self, claimed: Claimed, study: Study | None, on_step: OnStep, cancelled: Cancelled) -> Generated:
        """The model's answer to the job. Raises `inlay_model.Cancelled` between two steps, and what `check` raises."""
        self.check(claimed.job, study)
        settings = settings_of(claimed.job, self._steps)
        self._adapt(claimed)
        if claimed.job.kind is JobKind.DRAFT:
            assert study is not None
            # A draft is in one style from the start; an infill reads the style off the locked text.
            context = PromptContext(style=self._style)
            drafted = self._model.draft(
                study.pictures,
                sections=DRAFTED_SECTIONS,
                settings=settings,
                context=context,
                on_step=on_step,
                cancelled=cancelled,
            )
            texts = tuple((section.name, storable(section.text)) for section in drafted.sections)
            return Generated(run_record(drafted), texts=texts, studied_at=study.studied_at)
        filled = self._model.infill(
            None if study is None else study.pictures,
            sections_of(claimed.sections),
            settings=settings,
            on_step=on_step,
            cancelled=cancelled,
        )
        return Generated(run_record(filled), fills=fills_of(claimed.sections, filled))


def settings_of(job: Job, steps: int) -> GenerationSettings:
    """Seed and steps of the request, else the site's steps and a seed of the job's own.

    The seed follows from the job's id: a job that is run again after a crash gives the same text, another request about
    the same report gives another.
    """
    seed = job.request.get("seed")
    if seed is None:
        seed = int.from_bytes(hashlib.sha256(job.id.encode()).digest()[:8]) >> 1
    return GenerationSettings(steps=job.request.get("steps") or steps, seed=seed)


def sections_of(resolved: Sequence[ResolvedSection]) -> tuple[Section, ...]:
    """Locks and gaps for the model, sections in the order of a report; context sections are locks altogether."""
    ordered = sorted(resolved, key=lambda part: SECTION_NAMES.index(part.name))
    return tuple(Section(part.name, tuple(_item(item) for item in part.items)) for part in ordered)


def _item(item: KeptText | OpenGap) -> Lock | Gap:
    if isinstance(item, KeptText):
        return Lock(item.text)
    # Text that is free to change is a gap like another: its old length says little of what ought to stand there.
    return Gap(item.min_tokens or 0, item.max_tokens, item.hint)


def fills_of(resolved: Sequence[ResolvedSection], filled: Filled) -> tuple[Fill, ...]:
    """One fill per gap of the request, empty where the model wrote nothing there; locked pieces are left behind."""
    written: dict[tuple[str, int], str] = {}
    for section in filled.sections:
        for piece in section.pieces:
            if piece.kind == "fill":
                key = (section.name, piece.item)
                written[key] = written.get(key, "") + storable(piece.text)
    return tuple(
        Fill(part.name, number, written.get((part.name, number), ""))
        for part in resolved
        for number, item in enumerate(part.items)
        if isinstance(item, OpenGap)
    )


def storable(text: str) -> str:
    """The model's own words without NUL, which a tokenizer with byte fallback can write and no database can store."""
    return text.replace("\x00", "")


def run_record(filled: Filled) -> dict[str, Any]:
    """The run record as JSON, with the notes of this run."""
    return {**filled.run.to_json(), "notes": list(filled.notes)}
