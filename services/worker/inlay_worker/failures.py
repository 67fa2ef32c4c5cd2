"""What went wrong with a job, as the reason that is kept, and whether trying again can help. One table, one place."""

from typing import Final

from inlay_core.domain.errors import Category, DomainError
from inlay_core.domain.job import Reason
from inlay_model import BadImage, BadRequest, CanvasOverflow, ModelError, NotAPhantom, PromptTooLong

# The same input fails in the same way again; a person has to change something.
_PARKED_CATEGORIES: Final = frozenset({Category.INVALID, Category.FORBIDDEN, Category.LOCKED, Category.NOT_FOUND})
_PARKED_MODEL_ERRORS: Final = (BadImage, BadRequest, CanvasOverflow, NotAPhantom, PromptTooLong)


def reason_of(error: Exception) -> tuple[Reason, bool]:
    """The reason to keep, and whether the job is tried again.

    Texts of our own errors name places and counts, never data, and are kept; of any other error only the type is.
    """
    if isinstance(error, DomainError):
        return Reason(error.code, error.message), error.category not in _PARKED_CATEGORIES
    if isinstance(error, ModelError):
        return Reason(error.code, str(error)), not isinstance(error, _PARKED_MODEL_ERRORS)
    if _is_out_of_memory(error):
        return Reason("out-of-memory", "The device has not enough free memory."), True
    return Reason("worker-fault", f"The worker failed unexpectedly ({type(error).__name__})."), True


def is_unexpected(error: Exception) -> bool:
    """Whether the error is none of those that we raise on purpose: the process itself may be in a bad state."""
    return not isinstance(error, (DomainError, ModelError)) and not _is_out_of_memory(error)


def _is_out_of_memory(error: Exception) -> bool:
    # torch is not imported here: torch.OutOfMemoryError is known by its name.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
