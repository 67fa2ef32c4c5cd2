"""What a caller asks for and gets back: locks, gaps, settings, filled sections, progress. Plain values, no torch."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from inlay_model.errors import BadRequest

if TYPE_CHECKING:
    from inlay_model.provenance import RunRecord


@dataclass(frozen=True, slots=True)
class Lock:
    """Text that comes back byte for byte, whatever the model thinks of it. It must have a form in UTF-8."""

    text: str

    def __post_init__(self) -> None:
        if any("\ud800" <= character <= "\udfff" for character in self.text):
            raise BadRequest("A lock holds half of a character (a lone surrogate): send the text as UTF-8.")


@dataclass(frozen=True, slots=True)
class Gap:
    """A place to be filled. Bounds are in tokens of the model; zero as the minimum allows that nothing is written.

    Without a maximum the search considers lengths up to its own limit. The hint says in a word or two what the gap is
    to speak of; a checkpoint that was not trained on hints is not told. `replaces` is the text that stood there before.
    """

    min_tokens: int = 0
    max_tokens: int | None = None
    hint: str | None = None
    replaces: str | None = None

    def __post_init__(self) -> None:
        if self.min_tokens < 0 or (self.max_tokens is not None and self.max_tokens < self.min_tokens):
            raise BadRequest("A gap needs 0 <= min_tokens <= max_tokens.")


Item = Lock | Gap


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the report: its name and its items in reading order."""

    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """An earlier examination to compare with: its day, what it was, and what was reported of it (may be empty)."""

    on: date
    what: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class PromptContext:
    """What the prompt says besides the section names. `style` must be one that the checkpoint knows.

    With `rewrite` an infill is the same report in that style: the model is shown what stood in the gaps
    (`Gap.replaces`) and between them. Locks stay as they are.
    `comparison` are earlier examinations, the newest first; a checkpoint that has no place for them is not told.
    """

    style: str | None = None
    rewrite: bool = False
    comparison: tuple[Comparison, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How to denoise; what is None is taken from the checkpoint's generation_config.

    `steps` is the most denoising steps taken; with `early_stop` a canvas that is stable and confident ends sooner.
    With `begin_again` a canvas that has not settled at about half and three quarters of its steps writes anew what
    follows its first uncertain token.
    `lock_first_header` holds the first section's header in a draft (the model writes the others itself).
    `canvases` is how many a draft may fill one after the other, where it does not end on the one before.
    `fill_attempts` is how many gap lengths are written out at most before the best is returned.
    `second_look` shows what was written to the model once more, half of it hidden: what it would not write again is
    mended in a draft, and gives way to another text in a gap.
    `alternatives` is how many different texts are looked for in every gap of an infill; fewer may be found.
    `warm_start` begins the gaps that say what they replace (`Gap.replaces`) from that text instead of noise: this share
    of its tokens is noise, and the last steps of the schedule are taken, as large a share of them. None: never.
    `disputes` reads a filled report twice more and says which locked words the model disputes, where the checkpoint was
    trained for that, and how probable each written word is; `confidence` asks for the latter of any checkpoint.
    """

    steps: int = 16
    seed: int = 0
    entropy_bound: float | None = None
    t_min: float | None = None
    t_max: float | None = None
    stability_threshold: int | None = None
    confidence_threshold: float | None = None
    early_stop: bool = True
    begin_again: bool = True
    lock_first_header: bool = True
    canvases: int = 1
    fill_attempts: int = 3
    second_look: bool = True
    alternatives: int = 1
    disputes: bool = True
    confidence: bool = False
    warm_start: float | None = None

    def __post_init__(self) -> None:
        if min(self.steps, self.canvases, self.fill_attempts, self.alternatives) < 1:
            raise BadRequest("steps, canvases, fill_attempts and alternatives must be at least 1.")
        if not 0 <= self.seed < 2**63:
            raise BadRequest("The seed must be a non-negative 63-bit number.")
        if self.warm_start is not None and not 0 < self.warm_start <= 1:
            raise BadRequest("warm_start is a share above 0, at most 1; leave it out to begin from noise.")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a filled section: a lock (the caller's own string) or a fill; `item` counts the section's items."""

    text: str
    kind: Literal["lock", "fill"]
    item: int

    @property
    def sha256(self) -> str:
        """Digest of the text, for the caller to compare with what it sent."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


@dataclass(frozen=True, slots=True)
class FilledSection:
    """A section of the answer; its text is exactly the concatenation of its pieces."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The section's text."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Word:
    """How probable the model finds characters [start, end) of the fill that is item `item` of a section."""

    section: str
    item: int
    start: int
    end: int
    probability: float


@dataclass(frozen=True, slots=True)
class Dispute:
    """Characters [start, end) of the lock that is item `item` of a section, which the model holds to be wrong.

    `probability` is what it gives to the least probable word of them; `instead` is what it would say, where that has
    as many words and tokens.
    """

    section: str
    item: int
    start: int
    end: int
    probability: float
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class Alternative:
    """A text for a gap, without the blanks around it; the score is a mean log-probability (nats; larger is better).

    `probability` is how often a text of such a score was right, where the checkpoint has a curve for that: for gaps
    that are filled by themselves, not for texts that are written to the end of a report, or that say one again.
    """

    text: str
    score: float
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What might stand in the gap that is item `item` of a section, best first; the first one does."""

    section: str
    item: int
    texts: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Filled:
    """The answer to a draft or an infill. `notes` has codes of what a reader should know, such as `headers-missing`.

    `disputes` are the locked words that the model disputes, `confidence` has the words that it wrote; None where the
    report was not read once more for them (`GenerationSettings`). `alternatives` has an entry for every gap of an
    infill that asked for more than one text.
    """

    sections: tuple[FilledSection, ...]
    run: "RunRecord"
    notes: tuple[str, ...] = ()
    disputes: tuple[Dispute, ...] | None = None
    confidence: tuple[Word, ...] | None = None
    alternatives: tuple[Choice, ...] = ()

    @property
    def text(self) -> str:
        """All sections with their headers, for people."""
        return "\n".join(f"{section.name.capitalize()}: {section.text.strip()}" for section in self.sections)


ReportText = Filled


@dataclass(frozen=True, slots=True)
class Shown:
    """A canvas as people see it: its text, the spans of it (start, end) that are accepted, how many tokens are open."""

    text: str
    accepted: tuple[tuple[int, int], ...] = ()
    free_left: int = 0


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of a GPU: `allocated` to tensors, `reserved` by this process altogether, and all that it has."""

    device: str
    allocated: int
    reserved: int
    total: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a request that has just ended, with the seconds from its begin to its end, shared passes included.

    `prefix`: images and instruction are read, or were kept (`known`). `denoising`: `steps` steps wrote the text; of an
    infill, lengths are searched and gaps looked at in it. `second-look`: a draft is looked at once more, with what that
    wrote again. `rereading`: disputes and probabilities are asked for. On a GPU a stage ends when its work is queued:
    what the next one waits for counts there.
    """

    name: str
    seconds: float
    steps: int = 0
    known: bool = False


class StepEvent:
    """One denoising step has been taken: `step` counts from 1, `steps` is the most there can be in this round.

    The canvas is decoded when somebody first asks for it, in the thread that asks: an event that nobody looks at costs
    the loop nothing.
    """

    __slots__ = ("_show", "_shown", "step", "steps")

    def __init__(
        self, step: int, steps: int, text: str = "", accepted: tuple[tuple[int, int], ...] = (), free_left: int = 0
    ) -> None:
        self.step = step
        self.steps = steps
        self._shown: Shown | None = Shown(text, accepted, free_left)
        self._show: Callable[[], Shown] | None = None

    @classmethod
    def later(cls, step: int, steps: int, show: Callable[[], Shown]) -> "StepEvent":
        """An event whose canvas is decoded by `show` once it is asked for."""
        event = cls(step, steps)
        event._shown, event._show = None, show
        return event

    @property
    def shown(self) -> Shown:
        """The canvas after this step."""
        if self._shown is None:
            assert self._show is not None
            self._shown, self._show = self._show(), None
        return self._shown

    @property
    def text(self) -> str:
        """The text as it stands."""
        return self.shown.text

    @property
    def accepted(self) -> tuple[tuple[int, int], ...]:
        """Spans (start, end) of the text that are accepted."""
        return self.shown.accepted

    @property
    def free_left(self) -> int:
        """How many tokens are still open."""
        return self.shown.free_left


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """A draft, as one of several requests answered together; the fields are the arguments of `Engine.draft`."""

    images: Sequence[Any]
    sections: tuple[str, ...] = ("findings", "impression")
    begin: str = ""
    settings: GenerationSettings | None = None
    context: PromptContext | None = None
    on_step: Callable[[StepEvent], None] | None = None
    cancelled: Callable[[], bool] | None = None
    on_stage: Callable[[Stage], None] | None = None


@dataclass(frozen=True, slots=True)
class InfillRequest:
    """An infill, as one of several requests answered together; the fields are the arguments of `Engine.infill`."""

    images: Sequence[Any] | None
    sections: tuple[Section, ...]
    settings: GenerationSettings | None = None
    context: PromptContext | None = None
    on_step: Callable[[StepEvent], None] | None = None
    cancelled: Callable[[], bool] | None = None
    on_stage: Callable[[Stage], None] | None = None


def check_sections(sections: Sequence[Section]) -> None:
    """Refuse a request that names no section, or the same one twice."""
    names = [section.name.strip().lower() for section in sections]
    if not names or not all(names):
        raise BadRequest("A request needs at least one section, each with a name.")
    if len(set(names)) != len(names):
        raise BadRequest("A section is named twice.")
