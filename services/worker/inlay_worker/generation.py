"""From a claimed job to the model and back: drafts and infills, in the core's own values.

What reaches the model is pixels, section names, and text that stands in the report. Nothing of the order or the patient
does: the claim does not carry it, but where a site allows that for the order's free text, which is left out here, and
for what a draft is compared with, which a checkpoint is told that has a place for it.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import numpy as np

from inlay_core.application.ports import Claimed, Generated
from inlay_core.domain.errors import Forbidden, Invalid, Unavailable
from inlay_core.domain.fragment import SECTION_NAMES
from inlay_core.domain.infill import Candidate, Choice, Dispute, Fill, KeptText, OpenGap, ResolvedSection
from inlay_core.domain.job import Job, JobKind
from inlay_core.domain.switch import Writer
from inlay_model import (
    Comparison,
    DeviceMemory,
    DraftRequest,
    Filled,
    Gap,
    GenerationSettings,
    InfillRequest,
    Lock,
    PromptContext,
    Section,
    Stage,
    StepEvent,
)
from inlay_worker.images import Study

DRAFTED_SECTIONS: Final = ("findings", "impression")
# The code of a warning at a locked word that the model holds to be wrong.
DISPUTED: Final = "disputed"
# A picture of the size of most: a ramp from black to white, for a picture without contrast is refused.
_RAMP: Final = np.tile(np.linspace(0, 255, 512).astype(np.uint8), (512, 1))
# As a radiologist asks: a gap of unknown length between two sentences, and a section that is open.
_BETWEEN_LOCKS: Final = (
    Section("findings", (Lock("The lungs are clear. "), Gap(), Lock("The heart is normal in size."))),
    Section("impression", (Gap(),)),
)
OnStep = Callable[[StepEvent], None]
OnStage = Callable[[Stage], None]
Cancelled = Callable[[], bool]


class KeptPrefixes(Protocol):
    """Figures of the store of encoded studies."""

    hits: int
    misses: int

    @property
    def nbytes(self) -> int:
        """Memory held."""
        ...


class Model(Protocol):
    """What the worker needs of `inlay_model.Engine`."""

    @property
    def name(self) -> str:
        """The checkpoint's name, as run records state it."""
        ...

    @property
    def digest(self) -> str:
        """The checkpoint's digest, as run records state it."""
        ...

    @property
    def is_demonstration(self) -> bool:
        """Whether the checkpoint knows synthetic phantoms only."""
        ...

    @property
    def views(self) -> int:
        """How many images of a study the checkpoint was trained to read together."""
        ...

    @property
    def styles(self) -> tuple[str, ...]:
        """Report styles that the model was trained to write in; empty where it does not say."""
        ...

    @property
    def takes_hints(self) -> bool:
        """Whether it is told of the hints of gaps."""
        ...

    @property
    def rewrites(self) -> bool:
        """Whether it was trained to say a report again in one of its styles."""
        ...

    @property
    def prefixes(self) -> KeptPrefixes:
        """The encoded studies that are kept."""
        ...

    @property
    def passes(self) -> Mapping[str, int]:
        """How many of its passes went which way on a GPU: `step.fast`, `step.plain`, `failed.step.ERROR`, `unfit`."""
        ...

    def memory(self) -> Sequence[DeviceMemory]:
        """What its GPUs hold; empty on the CPU."""
        ...

    def batch(
        self,
        requests: Sequence[DraftRequest | InfillRequest],
        finished: Callable[[int, Filled | Exception], None] | None = None,
    ) -> list[Filled | Exception]:
        """Answer several requests together; `finished` hears of each, by its place, as soon as it has ended."""
        ...

    def use_adapter(self, name: str | None) -> None:
        """Make one of the adapters it was loaded with the active one, None for the bare checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A job as the model is asked: what was claimed, its images, whom to tell of steps and stages, whether to go on."""

    claimed: Claimed
    study: Study | None
    on_step: OnStep
    cancelled: Cancelled
    on_stage: OnStage | None = None


class Generation:
    """Runs jobs on a model, several at a time where it is given several.

    `steps` is the site's number of denoising steps; `style` the one that it reports in, None for the model's first;
    `demo_on_any_study` lifts rule 9: that the demonstration model is refused on studies that are no phantoms.
    `without_images` allows infills from the text alone. `adapter_of` says which adapter a job wants; without it the
    model's own one stays.
    """

    def __init__(
        self,
        model: Model,
        *,
        steps: int,
        style: str | None = None,
        demo_on_any_study: bool = False,
        without_images: bool = True,
        adapter_of: Callable[[Claimed], str | None] | None = None,
    ) -> None:
        if style is not None and style not in model.styles:
            known = ", ".join(model.styles) or "none"
            raise Invalid("unknown-style", f"The model was trained to write in: {known}.", "INLAY_REPORT_STYLE")
        self._model = model
        self._steps = steps
        self._style = style or next(iter(model.styles), None)
        self._demo_on_any_study = demo_on_any_study
        self._without_images = without_images
        self._adapter_of = adapter_of

    @property
    def writer(self) -> Writer:
        """The model, as switches name it."""
        return Writer(self._model.name, self._model.digest)

    def check(self, job: Job, study: Study | None) -> None:
        """Refuse what must not be generated, before anything is.

        Raises Forbidden not-a-phantom, Invalid images-missing, or Invalid cannot-rewrite.
        """
        if job.kind is JobKind.DRAFT and study is None:
            raise Invalid("images-missing", "There are no images to draft from.")
        if study is None and not self._without_images:
            raise Invalid("images-missing", "There are no images, and this site fills no gaps from the text alone.")
        if job.request.get("rewrite") and not self._rewrites:
            raise Invalid("cannot-rewrite", "The model was not trained to say a report again in the site's style.")
        if not self._model.is_demonstration or self._demo_on_any_study:
            return
        if study is None or not study.phantom:
            raise Forbidden("not-a-phantom", "The demonstration model reads synthetic phantoms only, and this is none.")

    @property
    def _rewrites(self) -> bool:
        return self._model.rewrites and self._style is not None

    def warm_up(self, kinds: Collection[JobKind] = tuple(JobKind), together: int = 1) -> None:
        """Write what these kinds of jobs write from a made-up picture, alone and as many `together` as a worker takes.

        Each has passes of its own, which are captured when they are first needed. Raises Unavailable where it cannot.
        """
        settings, context = GenerationSettings(steps=self._steps), PromptContext(style=self._style)
        tried: dict[JobKind, DraftRequest | InfillRequest] = {
            JobKind.DRAFT: DraftRequest((_RAMP,), DRAFTED_SECTIONS, settings=settings, context=context),
            JobKind.INFILL: InfillRequest((_RAMP,), _BETWEEN_LOCKS, settings),
        }
        for kind in (kind for kind in tried if kind in kinds):
            for many in sorted({1, together}):
                for answer in self._model.batch([tried[kind]] * many):
                    if isinstance(answer, Exception):
                        what = f"The model cannot do {kind} ({type(answer).__name__})."
                        raise Unavailable(f"cannot-{kind}", what, "INLAY_MODEL")

    def generate(self, asked: Sequence[Asked], ended: Callable[[int, Generated | Exception], None]) -> None:
        """Answer all these jobs; `ended` hears of each, by its place, as soon as it has its answer or has failed.

        `inlay_model.Cancelled` stands for a job that was stopped between two steps.
        """
        for adapter, places in self._by_adapter(asked).items():
            if self._adapter_of is not None:
                self._model.use_adapter(adapter)
            self._batch({place: asked[place] for place in places}, ended)

    def _batch(self, asked: dict[int, Asked], ended: Callable[[int, Generated | Exception], None]) -> None:
        places = list(asked)

        def finished(at: int, answer: Filled | Exception) -> None:
            place = places[at]
            ended(place, self._generated(asked[place], answer) if isinstance(answer, Filled) else answer)

        self._model.batch([self._request(one) for one in asked.values()], finished)

    def _by_adapter(self, asked: Sequence[Asked]) -> dict[str | None, list[int]]:
        """Places of the jobs by the adapter that they want: only one is active in a pass."""
        places: dict[str | None, list[int]] = {}
        for place, one in enumerate(asked):
            wanted = None if self._adapter_of is None else self._adapter_of(one.claimed)
            places.setdefault(wanted, []).append(place)
        return places

    def _request(self, asked: Asked) -> DraftRequest | InfillRequest:
        job, study = asked.claimed.job, asked.study
        settings = settings_of(job, self._steps)
        if job.kind is JobKind.INFILL:
            pictures = None if study is None else study.pictures
            # An infill reads its style off the locked text, unless it is to be brought into the site's.
            rewrite = bool(job.request.get("rewrite"))
            replaced = rewrite or settings.warm_start is not None
            sections = sections_of(asked.claimed.sections, replaced=replaced)
            context = PromptContext(self._style, rewrite=True) if rewrite else None
            return InfillRequest(pictures, sections, settings, context, asked.on_step, asked.cancelled, asked.on_stage)
        assert study is not None
        # A draft is in one style from the start.
        context = PromptContext(style=self._style, comparison=compared_with(asked.claimed, study))
        return DraftRequest(
            study.pictures,
            DRAFTED_SECTIONS,
            settings=settings,
            context=context,
            on_step=asked.on_step,
            cancelled=asked.cancelled,
            on_stage=asked.on_stage,
        )

    def _generated(self, asked: Asked, filled: Filled) -> Generated:
        claimed = asked.claimed
        # What the model can: whoever reads the record knows what to ask of it next.
        able = {"takes_hints": self._model.takes_hints, "rewrites": self._rewrites}
        record = {**run_record(filled, asked.study), **able}
        if claimed.job.kind is JobKind.DRAFT:
            return Generated(record, texts=tuple((s.name, storable(s.text)) for s in filled.sections))
        return Generated(
            record,
            fills=fills_of(claimed.sections, filled),
            disputes=disputes_of(claimed.sections, filled),
            alternatives=choices_of(filled),
        )


def compared_with(claimed: Claimed, study: Study) -> tuple[Comparison, ...]:
    """The earlier examinations that the site lets the model know of, and that were before this study.

    Only its images say when the study was made, so what the claim carries may be of later ones.
    """
    now = study.studied_at
    return tuple(
        Comparison(each.on, storable(each.what), storable(each.impression))
        for each in claimed.comparisons
        if now is None or each.performed_at is None or each.performed_at < now
    )


def settings_of(job: Job, steps: int) -> GenerationSettings:
    """Seed and steps of the request, else the site's steps and a seed of the job's own.

    The seed follows from the job's id: a job that is run again after a crash gives the same text, another request about
    the same report gives another.
    """
    seed = job.request.get("seed")
    if seed is None:
        seed = int.from_bytes(hashlib.sha256(job.id.encode()).digest()[:8]) >> 1
    return GenerationSettings(
        steps=job.request.get("steps") or steps,
        seed=seed,
        alternatives=job.request.get("alternatives") or 1,
        warm_start=job.request.get("warm_start"),
    )


def sections_of(resolved: Sequence[ResolvedSection], *, replaced: bool = False) -> tuple[Section, ...]:
    """Locks and gaps for the model, sections in the order of a report; context sections are locks altogether.

    With `replaced` a gap says what text it takes the place of.
    """
    ordered = sorted(resolved, key=lambda part: SECTION_NAMES.index(part.name))
    return tuple(Section(part.name, tuple(_item(item, replaced) for item in part.items)) for part in ordered)


def _item(item: KeptText | OpenGap, replaced: bool) -> Lock | Gap:  # noqa: FBT001 - called in one place
    if isinstance(item, KeptText):
        return Lock(item.text)
    # Text that is free to change is a gap like another: its old length says little of what ought to stand there.
    return Gap(item.min_tokens or 0, item.max_tokens, item.hint, item.replaces if replaced else None)


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


def disputes_of(resolved: Sequence[ResolvedSection], filled: Filled) -> tuple[Dispute, ...]:
    """What the model disputes of the locks that the request names; text shown for context is not the request's."""
    named = {part.name: part.items for part in resolved if not part.context}
    disputes: list[Dispute] = []
    for one in filled.disputes or ():
        item = named.get(one.section, ())[one.item : one.item + 1]
        if item and isinstance(item[0], KeptText):
            words = item[0].text[one.start : one.end]
            message = f"The model holds “{words}” to be wrong: it gives it a probability of {_percent(one.probability)}"
            message += f" and would say “{storable(one.instead)}”." if one.instead else "."
            disputes.append(Dispute(one.section, one.item, one.start, one.end, DISPUTED, message))
    return tuple(disputes)


def choices_of(filled: Filled) -> tuple[Choice, ...]:
    """The texts that each gap might hold, where more than one was asked for."""
    return tuple(
        Choice(
            one.section,
            one.item,
            tuple(Candidate(storable(text.text), text.score, text.probability) for text in one.texts),
        )
        for one in filled.alternatives
    )


def _percent(probability: float) -> str:
    return "less than 1 %" if probability < 0.01 else f"{probability:.0%}".replace("%", " %")


def storable(text: str) -> str:
    """The model's own words without NUL, which a tokenizer with byte fallback can write and no database can store."""
    return text.replace("\x00", "")


def run_record(filled: Filled, study: Study | None = None) -> dict[str, Any]:
    """The run record as JSON, with the notes of this run and the images that it saw, in the order of their digests.

    Where the written words have probabilities, these are there too.
    """
    words = [asdict(word) for word in filled.confidence or ()]
    told = {"confidence": [{**word, "probability": round(word["probability"], 4)} for word in words]} if words else {}
    images = (
        [{"sop_instance_uid": ref.sop_instance_uid, "view": ref.view or None} for ref in study.refs] if study else []
    )
    return {**filled.run.to_json(), "notes": list(filled.notes), "images": images, **told}
