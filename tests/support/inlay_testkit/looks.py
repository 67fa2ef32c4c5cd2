"""Counts looks at images: how often anybody's vision tower runs while something is called, the library's included."""

from collections.abc import Callable
from typing import ParamSpec, Self, TypeVar

from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.models.gemma4.modeling_gemma4 import Gemma4VisionModel

P = ParamSpec("P")
T = TypeVar("T")


class Looks:
    """`found` has, in order, the name of each call of what went through `of`, and how many looks it took."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int]] = []
        self._looks = 0

    def __enter__(self) -> Self:
        self._hook = register_module_forward_pre_hook(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def of(self, name: str, call: Callable[P, T]) -> Callable[P, T]:
        """The same call, counted under this name."""

        def counted(*args: P.args, **kwargs: P.kwargs) -> T:
            before = self._looks
            result = call(*args, **kwargs)
            self.found.append((name, self._looks - before))
            return result

        return counted

    def _count(self, module: object, _: object) -> None:
        self._looks += isinstance(module, Gemma4VisionModel)
