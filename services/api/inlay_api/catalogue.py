"""Every text of the pages, from one catalogue that the templates and the scripts share: `texts/en.json`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).parent / "texts" / "en.json"


@cache
def catalogue() -> dict[str, str]:
    """Key -> text."""
    texts: dict[str, str] = json.loads(_FILE.read_text(encoding="utf-8"))
    return texts


def text(key: str, **values: object) -> str:
    """The text under `key` with its {names} filled in; KeyError for one that is not there."""
    found = catalogue()[key]
    for name, value in values.items():
        found = found.replace("{" + name + "}", str(value))
    return found
