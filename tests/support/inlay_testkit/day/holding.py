"""What a process and its children hold and use: memory, open files and CPU time, from Linux's /proc.

Memory is PSS (proportional set size): resident pages, those that several processes map divided among them. A sum of RSS
would count PostgreSQL's shared buffers once per backend and what gunicorn's workers inherit once per worker. Its heap
are the anonymous pages, which is where a leak shows: the rest are pages of files, of which the programs beside it on
the machine share more or less, and shared buffers, which fill up to their set size.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Held:
    """PSS and the heap in it, in MB (10^6 bytes) with what is swapped out, and how many files and processes."""

    pss: float
    heap: float
    files: int
    processes: int = 1

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.pss + other.pss, self.heap + other.heap, self.files + other.files, self.processes + other.processes
        )


def children(pid: int) -> list[int]:
    """The processes that this one started, from whichever thread, and that run. OSError where it has ended."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]


def held(pid: int, *, alone: bool = False) -> Held | None:
    """What a process holds, with its children unless `alone`; None where it has ended or may not be read."""
    try:
        pss, heap = in_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))
        own = Held(pss, heap, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
        theirs = [] if alone else [held(child) for child in children(pid)]
    except (OSError, KeyError):
        return None
    return sum((each for each in theirs if each is not None), own)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, of its children that ended, and of those that run; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        theirs = children(pid)
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + sum(cpu_seconds(child) for child in theirs)


def libraries(pid: int) -> set[str]:
    """Paths of what a process and its children have mapped: programs and libraries. OSError where it has ended."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    # Address, permissions, offset, device, inode, and where there is one the path.
    own = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) > 5}
    return own.union(*(libraries(child) for child in children(pid)))


def in_rollup(text: str) -> tuple[float, float]:
    """PSS and heap in MB from a `smaps_rollup`. Raises KeyError where the kernel does not tell (before Linux 5.4)."""
    lines = (line.split() for line in text.splitlines()[1:])
    kilobytes = {fields[0].removesuffix(":"): int(fields[1]) for fields in lines}
    swapped = kilobytes.get("SwapPss", 0)
    pss, heap = kilobytes["Pss"] + swapped, kilobytes["Pss_Anon"] + swapped
    return pss * 1024 / 1e6, heap * 1024 / 1e6
