"""Which model has an accelerated path: asked by the plain passes before they compute anything. Imports nothing else.

The path hangs on the model itself, so both go together when nobody holds them any more.
"""

from typing import Any

_NAME = "_inlay_accelerated"


def remember(model: Any, path: Any) -> None:
    """Give this model its path, an `accelerated.Accelerated`."""
    vars(model)[_NAME] = path


def forget(model: Any) -> Any:
    """Take the path of this model away and return it; nothing if it had none."""
    return vars(model).pop(_NAME, None)


def attached(model: Any) -> Any:
    """The path of this model, or nothing."""
    return getattr(model, _NAME, None)
