"""Layers compiled while they are trained: small layers spend most of a step on being launched one by one.

Each layer is compiled for the shapes that it meets, so a run has to keep to few of them: prompts are padded to a
multiple of tokens, always by one at least, since the library has another kind of mask where nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

from inlay_model.training.encoding import text_layers
from inlay_model.vision import vision_of

F = TypeVar("F", bound=Callable[..., Any])

_COMPILER = "inductor"
_MOST_SHAPES = 128


def compiled(function: F) -> F:
    """The function, compiled for every shape that it meets."""
    made: Any = torch.compile(function, backend=_COMPILER, dynamic=False)
    return made  # type: ignore[no-any-return]


def compile_layers(model: Any) -> None:
    """Compile every layer of both towers, in place.

    A layer of the encoder writes a cache slot of its own, and is therefore compiled by itself.
    """
    torch._dynamo.config.recompile_limit = _MOST_SHAPES  # noqa: SLF001 - there is no public name
    for layer in [*vision_of(model).vision_tower.encoder.layers, *text_layers(model)]:
        layer.compile(backend=_COMPILER, dynamic=False)


def worth_compiling(*, usual: bool) -> AbstractContextManager[Any]:
    """Where shapes are not the usual ones, run as it stands what is compiled for others: compiling takes minutes."""
    return nullcontext() if usual else torch.compiler.set_stance("force_eager")


def padded(length: int, step: int) -> int:
    """The next multiple of `step` above this length: at least one token is padding."""
    return (length // step + 1) * step
