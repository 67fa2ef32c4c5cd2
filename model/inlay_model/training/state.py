"""The state file of a run: written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from inlay_model.errors import BadRecipe

NAME = "state.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the state over the previous one, once it is whole."""
    torch.save(state, folder / "state.tmp")
    (folder / "state.tmp").replace(folder / NAME)


def has_state(folder: Path) -> bool:
    """Whether a run left its state here."""
    return (folder / NAME).is_file()


def load_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The state in this folder, if there is one; raises `BadRecipe` for a file that is none."""
    path = folder / NAME
    if not has_state(folder):
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, ValueError) as problem:
        raise BadRecipe(f"{path} is no state of a run; move it away to begin anew.") from problem
    return state
