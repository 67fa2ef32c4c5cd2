"""DiffusionGemma for radiology reports: drafting, any-order infill, training, evaluation.

Importing the package loads no torch; that happens when the `Engine` is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from inlay_model.errors import (
    BadImage,
    BadRequest,
    Cancelled,
    CanvasOverflow,
    CheckpointProblem,
    ModelError,
    NotANumber,
    NotAPhantom,
    PromptTooLong,
    ReplayMismatch,
    UnpinnedRevision,
    WrongDigest,
)
from inlay_model.provenance import RunRecord
from inlay_model.request import (
    Alternative,
    Choice,
    Comparison,
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
    PromptContext,
    ReportText,
    Section,
    Stage,
    StepEvent,
    Word,
)

if TYPE_CHECKING:
    from inlay_model.engine import Engine

__all__ = [
    "Alternative",
    "BadImage",
    "BadRequest",
    "Cancelled",
    "CanvasOverflow",
    "CheckpointProblem",
    "Choice",
    "Comparison",
    "DeviceMemory",
    "Dispute",
    "DraftRequest",
    "Engine",
    "Filled",
    "FilledSection",
    "Gap",
    "GenerationSettings",
    "InfillRequest",
    "Lock",
    "ModelError",
    "NotANumber",
    "NotAPhantom",
    "Piece",
    "PromptContext",
    "PromptTooLong",
    "ReplayMismatch",
    "ReportText",
    "RunRecord",
    "Section",
    "Stage",
    "StepEvent",
    "UnpinnedRevision",
    "Word",
    "WrongDigest",
]


def __getattr__(name: str) -> Any:
    if name != "Engine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("inlay_model.engine").Engine
