"""`inlay model ...`: the model alone, without the service. Everything is done by `python -m inlay_model`."""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Hand the arguments to the model's own command line; returns its exit status."""
    from inlay_model.__main__ import main as model_main

    return int(model_main(list(arguments)) or 0)
