"""A model that answers at once: the engine for tests of what happens around the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from inlay_model import (
    Alternative,
    Cancelled,
    Choice,
    DeviceMemory,
    Dispute,
    DraftRequest,
    Filled,
    FilledSection,
    Gap,
    GenerationSettings,
    InfillRequest,
    Lock,
    Piece,
    RunRecord,
    Section,
    Stage,
)
from inlay_model.request import StepEvent


def run_record(kind: str = "draft", **changes: Any) -> RunRecord:
    """A run record with made-up values."""
    values: dict[str, Any] = {
        "kind": kind,
        "model": "fake",
        "model_digest": "0" * 64,
        "revision": None,
        "adapter_digest": None,
        "demonstration": False,
        "seed": 0,
        "settings": {},
        "context": {},
        "steps_taken": 2,
        "forward_passes": 2,
        "gap_lengths": (),
        "prompt_digest": "0" * 64,
        "image_digests": (),
        "request_digest": "0" * 64,
        "text_digest": "0" * 64,
        "canvas_length": 128,
        "batch": 1,
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
        "versions": {},
        "seconds": 0.0,
    }
    return RunRecord(**(values | changes))


@dataclass
class NoPrefixes:
    """A store of encoded studies that never has any."""

    hits: int = 0
    misses: int = 0
    nbytes: int = 0


class FakeModel:
    """Writes the same sentence everywhere, in `steps` steps; keeps what it was asked in `asked`.

    `before_step` is called before each step, with its number: a test cancels, waits or raises there. With `foreseen` it
    stops early, as a real model does: it says of each step that there may be so many.
    """

    def __init__(
        self,
        *,
        demonstration: bool = False,
        steps: int = 2,
        foreseen: int | None = None,
        before_step: Callable[[int], None] | None = None,
    ) -> None:
        self.name = "fake"
        self.digest = "0" * 64
        self.is_demonstration = demonstration
        self.views = 1
        self.takes_hints = True
        self.rewrites = True
        self.steps = steps
        self.foreseen = foreseen or steps
        self.before_step = before_step or (lambda _: None)
        self.disputes: tuple[Dispute, ...] | None = None
        self.asked: list[dict[str, Any]] = []
        self.batches: list[int] = []
        self.adapted: list[str | None] = []
        self.prefixes = NoPrefixes()
        self.devices: tuple[DeviceMemory, ...] = ()
        self.passes: dict[str, int] = {}

    def batch(
        self,
        requests: Sequence[DraftRequest | InfillRequest],
        finished: Callable[[int, Filled | Exception], None] | None = None,
    ) -> list[Filled | Exception]:
        """Each request in turn; what one raises is its answer."""
        self.batches.append(len(requests))
        answers: list[Filled | Exception] = []
        for place, request in enumerate(requests):
            try:
                answers.append(self._answer(request))
            except Exception as error:  # noqa: BLE001 - as the engine does
                answers.append(error)
            if finished is not None:
                finished(place, answers[-1])
        return answers

    def _answer(self, request: DraftRequest | InfillRequest) -> Filled:
        options = {"settings": request.settings, "on_step": request.on_step, "cancelled": request.cancelled}
        if isinstance(request, DraftRequest):
            answer = self.draft(request.images, sections=request.sections, context=request.context, **options)
        else:
            told = {"context": request.context} if request.context else {}
            answer = self.infill(request.images, request.sections, **told, **options)
        if request.on_stage is not None:
            for stage in self.stages():
                request.on_stage(stage)
        return answer

    def stages(self) -> list[Stage]:
        """What it says that it has done."""
        return [Stage("prefix", 0.0), Stage("denoising", 0.0, self.steps)]

    def draft(self, images: Sequence[Any], *, sections: Sequence[str] = (), **options: Any) -> Filled:
        """A report with one sentence per section."""
        self.asked.append({"images": list(images), "sections": tuple(sections), **options})
        self._denoise(**options)
        drafted = tuple(FilledSection(s, (Piece(f"The {s} are normal. ", "fill", 0),)) for s in sections)
        return Filled(drafted, run_record("draft", seed=_seed(options)))

    def infill(self, images: Sequence[Any] | None, sections: Sequence[Section], **options: Any) -> Filled:
        """The same sentence in every gap; locks as they came."""
        self.asked.append({"images": images, "sections": tuple(sections), **options})
        self._denoise(**options)
        record = run_record("infill", seed=_seed(options))
        wanted = options["settings"].alternatives if options.get("settings") else 1
        choices = _choices(sections, wanted) if wanted > 1 else ()
        filled = tuple(_filled(section) for section in sections)
        return Filled(filled, record, disputes=self.disputes, alternatives=choices)

    def memory(self) -> Sequence[DeviceMemory]:
        """It works nowhere in particular, but for what a test says."""
        return self.devices

    @property
    def styles(self) -> tuple[str, ...]:
        """It writes in one style only, and says so."""
        return ("plain",)

    def use_adapter(self, name: str | None) -> None:
        """It has none, and keeps what it was told in `adapted`."""
        self.adapted.append(name)

    def _denoise(self, *, on_step: Any = None, cancelled: Any = None, **_: Any) -> None:
        for step in range(1, self.steps + 1):
            self.before_step(step)
            if cancelled is not None and cancelled():
                raise Cancelled
            if on_step is not None:
                on_step(StepEvent(step, self.foreseen, f"step {step}", ((0, 4),), self.steps - step))


def _seed(options: dict[str, Any]) -> int:
    settings = options.get("settings")
    return settings.seed if isinstance(settings, GenerationSettings) else 0


def _filled(section: Section) -> FilledSection:
    pieces = [
        Piece(item.text, "lock", number) if isinstance(item, Lock) else Piece(_written(item), "fill", number)
        for number, item in enumerate(section.items)
    ]
    return FilledSection(section.name, tuple(pieces))


def _choices(sections: Sequence[Section], wanted: int) -> tuple[Choice, ...]:
    return tuple(
        Choice(
            section.name,
            number,
            tuple(Alternative(f"{_written(item).strip()}{n or ''}", -float(n)) for n in range(wanted)),
        )
        for section in sections
        for number, item in enumerate(section.items)
        if isinstance(item, Gap)
    )


def _written(gap: Gap) -> str:
    return "" if gap.max_tokens == 0 else "No effusion. "
