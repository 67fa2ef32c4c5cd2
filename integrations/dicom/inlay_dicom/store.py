"""The store of received images: a folder that the watched folder contains, filled by the Storage SCP and by retrieval.

A file is there whole or not at all, and is never overwritten: the same image again changes nothing, another image under
the same SOP Instance UID is set aside. Names are digests of UIDs, so that no folder tells whose images lie in it.
"""

import errno
import hashlib
import io
import os
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from inlay_dicom.dataset import DEFAULT_LIMITS, Header, Limits, body_of, header_from, refuse_unless_part10
from inlay_dicom.errors import InvalidDicom

FOLDER: Final = "received"
# The folder index passes over names that begin with a dot, so that these are no images yet (or never will be).
_ASIDE: Final = ".conflicting"
_UNFINISHED: Final = ".unfinished-"
# Other processes (replicas) write into the same folder: what they took is counted again this often.
_RECOUNT_S: Final = 60.0
# A process that was killed leaves its unfinished file; none takes an hour to write.
_ABANDONED_S: Final = 3600.0


class Kept(StrEnum):
    """What became of a file that was handed in."""

    STORED = "stored"
    REPEATED = "repeated"
    CONFLICTING = "conflicting"


class StoreFull(OSError):
    """The quota is used up, or the disk is full. Nothing was kept."""


class ReceivedStore:
    """Files below `images`/received, at most `quota_bytes` of them; safe to use from threads and several processes.

    The quota is exact for one process; several may exceed it together by what they take within a minute.
    """

    def __init__(
        self,
        images: Path,
        *,
        quota_bytes: int,
        limits: Limits = DEFAULT_LIMITS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.root = images / FOLDER
        self._quota_bytes = quota_bytes
        self._limits = limits
        self._now = now
        self._lock = threading.Lock()
        self._used = 0
        self._count_again = 0.0

    def put(self, data: bytes, named: tuple[str, str] | None = None) -> tuple[Kept, Header]:
        """Keep a Part 10 file; `named` are the SOP Class and Instance UID that it was announced with.

        Nothing is kept on `InvalidDicom` (code mismatch: another object than was named), `StoreFull` and `OSError`.
        """
        refuse_unless_part10(data[:132], len(data))
        header = header_from(io.BytesIO(data), self._limits)
        if not header.complete:
            raise InvalidDicom("truncated", "the pixel data breaks off")
        if not header.study_instance_uid or not header.sop_instance_uid:
            raise InvalidDicom("bad-tag", "missing StudyInstanceUID or SOPInstanceUID")
        if named is not None and named != (header.sop_class_uid, header.sop_instance_uid):
            raise InvalidDicom("mismatch", "not the object that it was announced as")
        path = self._path(header)
        known = self._compared(path, data)
        if known is Kept.CONFLICTING:
            path = self.root / _ASIDE / f"{path.stem}-{_digest(data)}.dcm"
        if known is Kept.REPEATED or path.exists():
            return known or Kept.REPEATED, header
        self._write(path, data)
        # Somebody may have been faster with the same image; then theirs stands and ours is compared with it.
        return (known or self._compared(path, data, ours=True) or Kept.STORED), header

    def used_bytes(self) -> int:
        """What the files take, those set aside included."""
        return sum(status.st_size for _, status in self._files())

    def conflicting(self) -> int:
        """How many files were set aside because another image holds their SOP Instance UID."""
        return sum(1 for path, _ in self._files() if path.parent.name == _ASIDE)

    def old(self, older_than_s: float, spared: Collection[str] = ()) -> list[Path]:
        """Files that came longer ago than that, but for those of the spared studies (by StudyInstanceUID)."""
        kept = {_digest(uid.encode()) for uid in spared}
        return [
            path
            for path, status in self._files()
            if self._now() - status.st_mtime > older_than_s and path.name.partition("-")[0] not in kept
        ]

    def forget(self, older_than_s: float, spared: Collection[str] = ()) -> int:
        """Remove old files, and what killed processes left; return how many."""
        abandoned = [
            path
            for path, status in self._files()
            if path.name.startswith(_UNFINISHED) and self._now() - status.st_mtime > _ABANDONED_S
        ]
        removed = {*self.old(older_than_s, spared), *abandoned}
        for path in removed:
            path.unlink(missing_ok=True)
        self._count_again = 0.0
        return len(removed)

    def _path(self, header: Header) -> Path:
        study, image = _digest(header.study_instance_uid.encode()), _digest(header.sop_instance_uid.encode())
        # 256 folders: a new file makes the folder index list one of them anew, not all.
        return self.root / study[:2] / f"{study}-{image}.dcm"

    def _compared(self, path: Path, data: bytes, *, ours: bool = False) -> Kept | None:
        """How `data` stands to the file at `path`, None where there is none (or it is the one just written)."""
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            return None
        if stored == data:
            return None if ours else Kept.REPEATED
        # The file meta information names who sent it; what was sent is the rest.
        return Kept.REPEATED if body_of(stored) == body_of(data) else Kept.CONFLICTING

    def _write(self, path: Path, data: bytes) -> None:
        self._reserve(len(data))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        unfinished = path.parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # A link, not a rename: it fails where a file has come in between, instead of replacing it.
            os.link(unfinished, path)
            _sync(path.parent)
        except FileExistsError:
            pass
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull(problem.errno, "the disk is full") from None
            raise
        finally:
            unfinished.unlink(missing_ok=True)

    def _reserve(self, size: int) -> None:
        with self._lock:
            if self._now() >= self._count_again:
                self._used = self.used_bytes()
                self._count_again = self._now() + _RECOUNT_S
            if self._used + size > self._quota_bytes:
                # It may have been made room since; the next one counts again.
                self._count_again = 0.0
                raise StoreFull(errno.EDQUOT, "the quota is used up")
            self._used += size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                try:
                    yield path, path.stat()
                except FileNotFoundError:
                    continue


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
