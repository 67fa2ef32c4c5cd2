"""The state file of a run: written whole or not at all, and taken up again by the run that left it only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inlay_model.errors import BadRecipe

NAME = "state.pt"
# Where the state says which run it belongs to.
_RUN = "run"
# What pieces of one run may differ in: how long it is, and what the loop's errors tell to change.
_FREE = ("steps", "micro_batch", "learning_rate", "precision")
# What is longer, as digests are, is not read by anybody.
_SHOWN = 40


def run_of(tables: Mapping[str, Mapping[str, Any]], **alone: Any) -> dict[str, str]:
    """What makes a run this one, by name, each as JSON: keys of the recipe's tables, and what stands alone."""
    keyed = {
        f"{table}.{key}": value for table, keys in tables.items() for key, value in keys.items() if key not in _FREE
    }
    return {name: json.dumps(value, sort_keys=True) for name, value in (alone | keyed).items()}


def save_state(folder: Path, state: dict[str, Any], run: Mapping[str, str]) -> None:
    """Write the state of this run over the previous one, once it is whole."""
    torch.save({**state, _RUN: dict(run)}, folder / "state.tmp")
    (folder / "state.tmp").replace(folder / NAME)


def has_state(folder: Path) -> bool:
    """Whether a run left its state here."""
    return (folder / NAME).is_file()


def load_state(folder: Path, device: torch.device, run: Mapping[str, str]) -> dict[str, Any] | None:
    """The state in this folder, if there is one.

    Raises `BadRecipe` for a file that is none, and for the state of another run than this, naming what differs. States
    of versions that did not say whose they are, and what later versions compare besides, are taken as they are.
    """
    path = folder / NAME
    if not has_state(folder):
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, ValueError) as problem:
        raise BadRecipe(f"{path} is no state of a run; move it away to begin anew.") from problem
    _check_run(folder, state.get(_RUN, {}), run)
    return state


def _check_run(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    different = [
        f"{name} was {before[name]} and is {value}" if len(before[name] + value) < _SHOWN else f"{name} is another"
        for name, value in now.items()
        if before.get(name, value) != value
    ]
    if different:
        raise BadRecipe(
            f"{folder / NAME} is of another run: {', '.join(different)}. Name another --out for a new run, or give the "
            "same arguments as before to go on."
        )
