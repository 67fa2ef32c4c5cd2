"""A watched folder of DICOM files: what studies lie in it, and one file's dataset.

Files may be written by anybody at any moment: one that is not complete does not exist yet, one that cannot be read is
counted and passed over, and nothing outside the folder is ever opened. File names can hold names of patients, so that
paths never appear in errors.
"""

import io
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from inlay_dicom.dataset import DEFAULT_LIMITS, Header, Limits, header_from, refuse_unless_part10
from inlay_dicom.errors import InvalidDicom

# File systems stamp times in steps of up to two seconds (FAT, some network shares): a folder that changed less than
# that before it was listed may have changed again under the same stamp.
STAMP_STEP_NS: Final = 2_000_000_000
# A file that has not grown for so long is not being written any more; what it lacks it will not get.
GIVEN_UP_AFTER_S: Final = 600.0
# Names that copying programs give to unfinished files (rsync and others begin with a dot).
_UNFINISHED: Final = (".tmp", ".part", ".partial", ".filepart", ".crdownload")


@dataclass(frozen=True, slots=True)
class Found:
    """One complete DICOM file: its name below the folder, its header, and when it was last written (epoch seconds)."""

    name: str
    header: Header
    modified: float


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of one file as long as its stamp (time of change in ns, bytes) stays the same."""

    stamp: tuple[int, int]
    found: Found | None
    problem: str | None


@dataclass(slots=True)
class _Directory:
    """What one listing found, and whether a listing is needed although the directory itself did not change."""

    changed_ns: int
    listed_ns: int
    files: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    pending: bool = False

    def is_current(self, changed_ns: int) -> bool:
        return not self.pending and self.changed_ns == changed_ns and self.listed_ns - changed_ns > STAMP_STEP_NS


class FolderIndex:
    """The headers of all files below `root`, kept between scans; safe to use from several threads.

    A scan asks for the time of change of each directory, lists those that changed, and reads the headers of files that
    are new or were written to; beside that it costs the same however many files there are. A file counts once it has
    been left alone for `settle_s` and its pixel data has an end. `max_files` bounds the memory; raises InvalidDicom
    too-large beyond it.
    """

    def __init__(
        self,
        root: Path,
        *,
        limits: Limits = DEFAULT_LIMITS,
        settle_s: float = 0.5,
        max_files: int = 200_000,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._root = Path(os.path.realpath(root))
        self._limits = limits
        self._settle_ns = int(settle_s * 1e9)
        self._max_files = max_files
        self._now_ns = now_ns
        self._entries: dict[str, _Entry] = {}
        self._directories: dict[str, _Directory] = {}
        self._lock = threading.Lock()
        self._too_many = False
        self._by_study: dict[str, list[Found]] = {}
        self._by_accession: dict[str, list[Found]] = {}

    def scan(self) -> None:
        """Bring the index up to date. A folder that is not there (a share not mounted yet) is an empty one."""
        with self._lock:
            self._too_many = False
            seen: set[str] = set()
            waiting = [str(self._root)]
            while waiting:
                path = waiting.pop()
                directory = self._directory(path)
                if directory is None:
                    continue
                seen.add(path)
                waiting += directory.directories
            for path in self._directories.keys() - seen:
                for file in self._directories.pop(path).files:
                    self._forget(file)
            if self._too_many:
                raise InvalidDicom("too-large", f"more than {self._max_files} files in the image folder")

    def study(self, study_instance_uid: str | None, accession_number: str | None) -> list[Found]:
        """The complete files of a study, key objects included; one per SOP Instance UID, the latest written.

        The StudyInstanceUID decides. Only where no file has it, the accession number does, and then only if all its
        files belong to one study: accession numbers of two assigners may be equal.
        """
        with self._lock:
            own = list(self._by_study.get(study_instance_uid or "", ()))
            accession = list(self._by_accession.get(accession_number or "", ()))
        if own:
            return _latest(own)
        return _latest(accession) if len({one.header.study_instance_uid for one in accession}) == 1 else []

    def load(self, name: str, sop_instance_uid: str) -> bytes:
        """The bytes of a file found before. Raises `InvalidDicom`: gone, replaced, and what reading a header raises.

        The file is opened anew and must still be the same image: it may have been replaced since.
        """
        try:
            with os.fdopen(self._descriptor(str(self._root / name)), "rb") as file:
                data = file.read(self._limits.file_bytes + 1)
        except OSError:
            raise InvalidDicom("gone", "the file cannot be opened any more") from None
        refuse_unless_part10(data[:132], len(data))
        header = header_from(io.BytesIO(data), self._limits)
        if not header.complete:
            raise InvalidDicom("truncated", "the file breaks off")
        if header.sop_instance_uid != sop_instance_uid:
            raise InvalidDicom("replaced", "another image has taken the file's place")
        return data

    def problems(self) -> Counter[str]:
        """How many files were passed over, by the code of their error; `incomplete` are being written still."""
        with self._lock:
            return Counter(entry.problem for entry in self._entries.values() if entry.problem)

    # ── one directory ────────────────────────────────────────────────────────────────────────────────────────────────

    def _directory(self, path: str) -> _Directory | None:
        try:
            changed_ns = os.stat(path).st_mtime_ns  # noqa: PTH116 - strings: a scan makes no objects per file
            known = self._directories.get(path)
            if known is None or not known.is_current(changed_ns):
                known = self._list(path, changed_ns)
                self._directories[path] = known
        except OSError:
            return None  # It has gone, or may not be read; the next scan asks again.
        return known

    def _list(self, path: str, changed_ns: int) -> _Directory:
        directory = _Directory(changed_ns, self._now_ns())
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    directory.directories.append(entry.path)
                elif not entry.name.lower().endswith(_UNFINISHED):
                    directory.files.append(entry.path)
        before = self._directories.get(path)
        for file in set(before.files if before else ()).difference(directory.files):
            self._forget(file)
        for file in directory.files:
            directory.pending |= self._look_at(file)
        return directory

    def _look_at(self, path: str) -> bool:
        """Bring the entry of one file up to date; true while it may still change without its directory changing."""
        if path not in self._entries and len(self._entries) >= self._max_files:
            self._too_many = True
            return True
        try:
            status = os.stat(path)  # noqa: PTH116 - as above
        except OSError:
            self._forget(path)  # A link to nowhere, or gone in between.
            return False
        stamp = (status.st_mtime_ns, status.st_size)
        age_ns = self._now_ns() - status.st_mtime_ns
        # A clock ahead of ours (a network share) gives a negative age; then completeness alone has to do.
        settled = age_ns < 0 or age_ns >= self._settle_ns
        known = self._entries.get(path)
        if known is None or known.stamp != stamp or (known.problem == "incomplete" and settled):
            known = self._entry(path, stamp) if settled else _Entry(stamp, None, "incomplete")
            self._forget(path)
            self._keep(path, known)
        return known.problem == "incomplete" and age_ns < GIVEN_UP_AFTER_S * 1e9

    def _entry(self, path: str, stamp: tuple[int, int]) -> _Entry:
        try:
            with os.fdopen(self._descriptor(path), "rb") as file:
                refuse_unless_part10(file.read(132), stamp[1])
                file.seek(0)
                header = header_from(file, self._limits)
        except InvalidDicom as problem:
            # What breaks off or does not begin right may only be unfinished; it is looked at until it is given up.
            unfinished = problem.code in ("truncated", "not-dicom", "bad-tag")
            return _Entry(stamp, None, "incomplete" if unfinished and self._is_young(stamp) else problem.code)
        except OSError:
            return _Entry(stamp, None, "incomplete")
        if not header.complete:
            return _Entry(stamp, None, "incomplete" if self._is_young(stamp) else "truncated")
        return _Entry(stamp, Found(path[len(str(self._root)) + 1 :], header, stamp[0] / 1e9), None)

    def _is_young(self, stamp: tuple[int, int]) -> bool:
        return self._now_ns() - stamp[0] < GIVEN_UP_AFTER_S * 1e9

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _descriptor(self, path: str) -> int:
        """An open descriptor of an ordinary file that truly lies below the root, links followed. Raises refused."""
        real = os.path.realpath(path)
        if not real.startswith(str(self._root) + os.sep):
            raise InvalidDicom("refused", "the file lies outside the image folder")
        # O_NONBLOCK: opening a named pipe must not wait for a writer. O_NOFOLLOW: the last part is no link any more.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise InvalidDicom("refused", "not an ordinary file")
        if status.st_size > self._limits.file_bytes:
            os.close(descriptor)
            raise InvalidDicom("too-large", f"more than {self._limits.file_bytes} bytes")
        return descriptor

    def _keep(self, path: str, entry: _Entry) -> None:
        """Know this of a file; a complete one is found by its study and by its accession number."""
        self._entries[path] = entry
        if entry.found is not None:
            for key, sorted_in in self._places(entry.found):
                sorted_in.setdefault(key, []).append(entry.found)

    def _forget(self, path: str) -> None:
        """Know nothing of a file any more."""
        entry = self._entries.pop(path, None)
        if entry is not None and entry.found is not None:
            for key, sorted_in in self._places(entry.found):
                sorted_in[key].remove(entry.found)
                if not sorted_in[key]:
                    del sorted_in[key]

    def _places(self, found: Found) -> list[tuple[str, dict[str, list[Found]]]]:
        places = (
            (found.header.study_instance_uid, self._by_study),
            (found.header.accession_number, self._by_accession),
        )
        return [(key, sorted_in) for key, sorted_in in places if key]


def _latest(found: list[Found]) -> list[Found]:
    by_instance: dict[str, Found] = {}
    for one in sorted(found, key=lambda f: (f.modified, f.name)):
        by_instance[one.header.sop_instance_uid] = one
    return list(by_instance.values())
