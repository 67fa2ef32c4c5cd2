"""Which model has an accelerated path: asked by the plain passes before they compute anything. Imports nothing else."""

from typing import Any
from weakref import WeakKeyDictionary

_PATHS: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()


def remember(model: Any, path: Any) -> None:
    """Give this model its path, an `accelerated.Accelerated`."""
    _PATHS[model] = path


def forget(model: Any) -> Any:
    """Take the path of this model away and return it; nothing if it had none."""
    return _PATHS.pop(model, None)


def attached(model: Any) -> Any:
    """The path of this model, or nothing."""
    try:
        return _PATHS.get(model)
    except TypeError:
        # Stand-ins of tests need not be hashable.
        return None
