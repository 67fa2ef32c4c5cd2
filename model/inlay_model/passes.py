"""Work that needs passes of the model, as generators: they yield what the model is to be shown and are sent its logits.

So the work itself knows no model: one request drives one generator (`driven`), several requests share each pass
(`together.py`), and a test plays the model with a table.

Where the answer is under way on a GPU and the work is about to wait for it, it yields `Underway`, and is gone on with
as soon as everybody else of the pass has got so far.

Shapes: B canvases, L positions, V vocabulary, N = all wanted positions of the batch in reading order.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch

from inlay_model.errors import NotANumber
from inlay_model.prefix import Prefix
from inlay_model.stride import Stride

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class View:
    """What the model is to be shown in one pass, and at which positions its logits are wanted.

    `conditioning_BLV` are the logits of the step before. `prefixes` are the encoded prompts of the rows, one each;
    empty while the work leaves that to whoever drives it. `stride` says how the step is taken that the logits are for,
    where they are for one.
    """

    canvas_BL: torch.Tensor
    wanted_BL: torch.Tensor
    conditioning_BLV: torch.Tensor | None = None
    prefixes: tuple[Prefix, ...] = ()
    stride: Stride | None = None

    @property
    def rows(self) -> int:
        """How many canvases are shown."""
        return int(self.canvas_BL.shape[0])


@dataclass(frozen=True, slots=True)
class Underway:
    """The work waits for an answer. `following` is the view that it asks for next, unless what it sees changes that."""

    following: View | None


Passes = Generator[View | Underway, torch.Tensor, T]
"""Work that yields views, is sent the logits (float32, N x V) of each, and returns its result."""


class Reader(Protocol):
    """A model that reads one encoded prompt; `inlay_model.prefix.Decoder` is the real one, a table of logits a toy."""

    def __call__(
        self, canvas_BL: torch.Tensor, wanted_BL: torch.Tensor, conditioning_BLV: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits N x V at the wanted positions."""


@runtime_checkable
class Stepper(Protocol):
    """A reader that can take whole steps itself, on the device: `prefix.Decoder` where its model is accelerated."""

    def steps_itself(self, free: int) -> bool:
        """Whether it takes steps with so many free positions."""

    def prepare(self, strides: Sequence[Stride]) -> None:
        """Have ready, while the device takes a step, what these need, which probably are the next ones."""

    def step(self, strides: Sequence[Stride]) -> torch.Tensor:
        """Take these steps together, and leave each in its stride."""


def takes_step(view: View, read: object) -> bool:
    """Whether this reader itself takes the step that the view is for: it goes on to once it has begun to."""
    stride = view.stride
    if stride is None or view.conditioning_BLV is not None or not isinstance(read, Stepper):
        return False
    return stride.told_BLH is not None or read.steps_itself(stride.numbers.free)


def as_numbers(scores: list[float]) -> list[float]:
    """Scores made of logits, as they are; raises `NotANumber` where one is NaN, which compares with nothing."""
    if any(map(math.isnan, scores)):
        raise NotANumber("The model gave NaN logits. Copy or fetch the checkpoint again, or choose a higher precision.")
    return scores


def driven(passes: Passes[T], read: Reader) -> T:
    """The result of the work, every pass of it done by this reader."""
    try:
        view = next(passes)
        while True:
            if isinstance(view, Underway):
                if view.following is not None and view.following.stride is not None:
                    assert isinstance(read, Stepper)
                    read.prepare([view.following.stride])
                view = next(passes)
            elif takes_step(view, read):
                assert isinstance(read, Stepper)
                assert view.stride is not None
                view = passes.send(read.step([view.stride]))
            else:
                view = passes.send(read(view.canvas_BL, view.wanted_BL, view.conditioning_BLV))
    except StopIteration as ended:
        result: T = ended.value
        return result


def on(prefixes: Sequence[Prefix], passes: Passes[T]) -> Passes[T]:
    """The same work with its views read on these prefixes: one for all rows, or one for each."""
    try:
        view = next(passes)
        while True:
            if isinstance(view, Underway):
                yield Underway(None if view.following is None else _on(prefixes, view.following))
                view = next(passes)
            else:
                logits_NV = yield _on(prefixes, view)
                view = passes.send(logits_NV)
    except StopIteration as ended:
        result: T = ended.value
        return result


def _on(prefixes: Sequence[Prefix], view: View) -> View:
    return replace(view, prefixes=tuple(prefixes) if len(prefixes) > 1 else tuple(prefixes) * view.rows)
