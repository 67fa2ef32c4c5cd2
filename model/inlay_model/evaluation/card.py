"""What an evaluation found of a checkpoint, written into its card: `inlay.json`."""

import json
from pathlib import Path
from typing import Any


def state(folder: Path, name: str, value: Any) -> None:
    """Have the checkpoint say this of itself beside what it says already; its digest thereby changes."""
    file = folder / "inlay.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    # Whole or not at all: a worker may read it at any moment.
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(json.dumps(said | {name: value}, indent=2) + "\n", encoding="utf-8")
    fresh.replace(file)
