"""The port that both models stand behind.

`Engine` (diffusion) and `Sibling` (autoregressive) take and give the same values, so that a comparison of the two is a
comparison of the models.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from inlay_model.engine import RadiographLike
from inlay_model.request import Filled, GenerationSettings, PromptContext, Section, StepEvent

Tell = Callable[[StepEvent], None]
Asked = Callable[[], bool]


class Backend(Protocol):
    """A loaded checkpoint that drafts reports and fills gaps. Not for use by several threads at once."""

    @property
    def name(self) -> str:
        """Name of the checkpoint."""

    @property
    def digest(self) -> str:
        """SHA-256 over the checkpoint's files."""

    @property
    def is_demonstration(self) -> bool:
        """Whether the checkpoint knows synthetic phantoms only."""

    @property
    def styles(self) -> tuple[str, ...]:
        """Site styles that the checkpoint was trained to write in."""

    def draft(
        self,
        images: Sequence[RadiographLike],
        *,
        sections: Sequence[str] = ("findings", "impression"),
        begin: str = "",
        settings: GenerationSettings | None = None,
        context: PromptContext | None = None,
        on_step: Tell | None = None,
        cancelled: Asked | None = None,
    ) -> Filled:
        """Write a report about these images; `begin` is text with which the first section begins."""

    def infill(
        self,
        images: Sequence[RadiographLike] | None,
        sections: Sequence[Section],
        *,
        settings: GenerationSettings | None = None,
        context: PromptContext | None = None,
        on_step: Tell | None = None,
        cancelled: Asked | None = None,
    ) -> Filled:
        """Fill the gaps of these sections; every lock comes back byte for byte."""
