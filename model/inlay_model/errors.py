"""The named errors of the model package: each has a code that a caller may branch on, and says what to do about it."""

from collections.abc import Sequence


class ModelError(Exception):
    """Any error that this package raises on purpose; `code` is stable, the message is for people.

    Messages carry counts, names and places, never report text.
    """

    code = "model-error"


class Cancelled(ModelError):
    """The caller's `cancelled()` became true; raised between two denoising steps, nothing was produced."""

    code = "cancelled"


class BadRequest(ModelError):
    """The request cannot be understood (no sections, a gap whose minimum exceeds its maximum, ...)."""

    code = "bad-request"


class CanvasOverflow(ModelError):
    """More locked tokens than the canvas holds; `needed` and `available` are token counts."""

    code = "canvas-overflow"

    def __init__(self, needed: int, available: int) -> None:
        super().__init__(
            f"The locked text, headers and smallest gaps need {needed} tokens, the canvas holds {available}. "
            "Lock fewer or shorter fragments, or ask for one section at a time."
        )
        self.needed = needed
        self.available = available


class PromptTooLong(ModelError):
    """The prompt has more tokens than the model has positions for."""

    code = "prompt-too-long"


class BadImage(ModelError):
    """An image that is no radiograph-like array: wrong shape, wrong type, empty, or the same everywhere."""

    code = "bad-image"


class CheckpointProblem(ModelError):
    """A checkpoint that cannot be used: missing file, unknown class, missing token, wrong digest."""

    code = "checkpoint-problem"


class WrongDigest(CheckpointProblem):
    """Another checkpoint than the one that is expected: some file of its folder differs."""


class UnpinnedRevision(CheckpointProblem):
    """A hub id without a commit hash: a name alone may be another model tomorrow."""

    code = "unpinned-revision"


class AdapterProblem(CheckpointProblem):
    """An adapter that cannot be used: missing file, made for another base, or of a kind that cannot be merged."""

    code = "adapter-problem"


class FetchProblem(ModelError):
    """A checkpoint could not be fetched whole: hub unreachable, no such revision, a file unlike the hub's."""

    code = "fetch-problem"


class BadRecipe(ModelError):
    """A training recipe that cannot be followed; the message names table and key."""

    code = "bad-recipe"


class BadData(ModelError):
    """Training data with lines that cannot be used; `problems` names file, line, field and remedy of each."""

    code = "bad-data"

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *problems]))
        self.problems = tuple(problems)


class NotAPhantom(ModelError):
    """The demonstration checkpoint was asked about a study that is no synthetic phantom."""

    code = "not-a-phantom"


class ReplayMismatch(ModelError):
    """A replay is not given what the recorded run was; `what` names the differing part, `remedy` what helps."""

    code = "replay-mismatch"

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"This run cannot be replayed here: {what} differs from the record. {remedy}".rstrip())
        self.what = what


class NotANumber(ModelError):
    """The model produced NaN logits; the run is stopped rather than sampled from garbage."""

    code = "nan-logits"


class NotEnoughMemory(ModelError):
    """The device has less free memory than a model or a request needs; counts are bytes, `needed` None if unknown.

    `each` is what every one of several devices has free, `of` which memory lacks; `remedy` is said instead of what
    helps where a model serves.
    """

    code = "not-enough-memory"

    def __init__(
        self,
        needed: int | None,
        free: int,
        precision: str | None,
        each: Sequence[int] = (),
        *,
        of: str = "memory",
        remedy: str = "",
    ) -> None:
        lower = {"bf16": "fp8 or 4bit", "fp32": "bf16, fp8 or 4bit", "fp8": "4bit"}.get(precision or "")
        what = (
            f"The model needs {needed / 2**30:.1f} GiB of {of}"
            if needed is not None
            else "The device ran out of memory"
        )
        over = f" on {len(each)} devices ({', '.join(f'{one / 2**30:.1f}' for one in each)})" if each else ""
        choice = f"Choose the precision {lower}, a" if lower else "Choose a"
        served = f"{choice} device with more free memory, or several of them (device auto)."
        super().__init__(f"{what}; {free / 2**30:.1f} GiB are free{over}. {remedy or served}")
        self.needed = needed
        self.free = free
