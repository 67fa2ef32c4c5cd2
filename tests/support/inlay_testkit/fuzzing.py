"""What the fuzzers that are guided by coverage share: seeds in a folder of their own, and atheris."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import atheris


def fuzz(take: Callable[[bytes], None], seeds: Mapping[str, bytes]) -> None:
    """Fuzz until `take` raises or the end of `-runs` or `-max_total_time`. The seeds are named."""
    with tempfile.TemporaryDirectory(prefix="inlay-fuzz-") as folder:
        for name, seed in seeds.items():
            Path(folder, name).write_bytes(seed)
        atheris.Setup([*sys.argv, f"-artifact_prefix={folder}/", folder], take)
        atheris.Fuzz()
