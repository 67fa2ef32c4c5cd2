"""What an evaluation found of a checkpoint, written into its card: `inlay.json`."""

import json
from pathlib import Path
from typing import Any

from inlay_model.errors import BadRequest
from inlay_model.provenance import ABOUT, FETCHED


def check_writable(folder: Path) -> None:
    """Raise `BadRequest`, before the work, where the checkpoint could not be made to say something after it."""
    if not (folder / ABOUT).is_file():
        raise BadRequest(f"What was found is written into the {ABOUT} of a local checkpoint, and {folder} has none.")
    if (folder / FETCHED).exists():
        raise BadRequest(f"{folder} was fetched, and a changed file would be taken for a damaged one. Copy it first.")


def state(folder: Path, name: str, value: Any) -> None:
    """Have the checkpoint say this of itself beside what it says already; its digest thereby changes."""
    file = folder / ABOUT
    said = json.loads(file.read_text(encoding="utf-8"))
    # Whole or not at all: a worker may read it at any moment.
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(json.dumps(said | {name: value}, indent=2) + "\n", encoding="utf-8")
    fresh.replace(file)
