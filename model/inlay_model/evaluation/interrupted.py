"""Results as they come, in `FILE.part` beside the file asked for: a run that is cut short goes on where it stopped.

Each line names the run it belongs to by a digest of all that decides its results, so lines of another run are ignored.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def part_of(out: Path) -> Path:
    """Where the results of an unfinished run stand."""
    return out.with_name(f"{out.name}.part")


class Arriving:
    """The results of one run by case, those from before it was cut short included; without a file, in memory alone."""

    def __init__(self, out: Path | None, run: Mapping[str, Any]) -> None:
        self._file = None if out is None else part_of(out)
        self._run = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]
        self.results: dict[str, Any] = {}
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self.results.update(_read(self._file, self._run))

    def add(self, case: str, result: Any) -> None:
        """Keep a result that JSON can hold, on disk before this returns."""
        self.results[case] = result
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": self._run, "case": case, "result": result}) + "\n")


def finish(out: Path | None) -> None:
    """The run is complete and its figures are written: what was kept for going on is not needed any more."""
    if out is not None:
        part_of(out).unlink(missing_ok=True)


def _read(file: Path, run: str) -> Iterator[tuple[str, Any]]:
    if not file.is_file():
        return
    text = file.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        # The last line was cut short; what comes next must not stand on it.
        file.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if said["run"] == run:
            yield said["case"], said["result"]
