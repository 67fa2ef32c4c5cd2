"""DICOM in Inlay's own words: the watched folder as an image source, and errors of files as errors of the domain.

The only module of this package that knows the core.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from inlay_core.application.ports import ImageRef
from inlay_core.domain.errors import Conflict, DomainError, Forbidden, Invalid, NotFound, Unavailable
from inlay_dicom.choose import in_order, view_of
from inlay_dicom.dataset import Header
from inlay_dicom.errors import InvalidDicom
from inlay_dicom.folder import FolderIndex, Found

FOLDER: Final = "folder"
# Views of one study arrive one after another. Until a frontal one has, a study that still grows is not drafted from:
# the lateral that happened to be first would be taken for the whole. Modalities send the next view within seconds.
PATIENCE_S: Final = 20.0
# The sweeper asks for every waiting job, one after the other: one scan answers them all.
RESCAN_S: Final = 0.25
# What is not here will fail again when it is tried again.
_KINDS: Final[dict[str, type[DomainError]]] = {"gone": NotFound, "refused": Forbidden, "replaced": Conflict}


class FolderImages:
    """The image source on a watched folder (port `ImageSource`).

    A study with a complete frontal image is there at once, one without when nothing of it changed for `patience_s`.
    """

    def __init__(
        self,
        index: FolderIndex,
        *,
        patience_s: float = PATIENCE_S,
        rescan_s: float = RESCAN_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._index = index
        self._patience_s = patience_s
        self._rescan_s = rescan_s
        self._now = now
        self._scan_again = 0.0

    @classmethod
    def below(cls, root: Path) -> "FolderImages":
        """The source on the folder `root`, with defaults."""
        return cls(FolderIndex(root))

    def find(self, study_instance_uid: str | None, accession_number: str | None) -> list[ImageRef]:
        """The images of the study that may be drafted from, the best first; empty while it has not arrived."""
        self._scan()
        found = self._index.study(study_instance_uid, accession_number)
        by_instance = {one.header.sop_instance_uid: one for one in found}
        chosen = in_order(one.header for one in found)
        if not chosen or not (view_of(chosen[0]).is_frontal or self._is_quiet(found)):
            return []
        return [_reference(by_instance[header.sop_instance_uid]) for header in chosen]

    def load(self, ref: ImageRef) -> bytes:
        """The DICOM file of one image. Raises NotFound when it has gone, Conflict when it was replaced, Invalid."""
        try:
            return self._index.load(ref.locator, ref.sop_instance_uid)
        except InvalidDicom as problem:
            raise domain_error(problem) from None

    def _scan(self) -> None:
        if time.monotonic() < self._scan_again:
            return
        try:
            self._index.scan()
        except InvalidDicom as problem:
            raise Unavailable(f"image-folder-{problem.code}", problem.message) from None
        self._scan_again = time.monotonic() + self._rescan_s

    def _is_quiet(self, found: list[Found]) -> bool:
        return self._now() - max(one.modified for one in found) >= self._patience_s


def domain_error(problem: InvalidDicom) -> DomainError:
    """The domain's error for a file that cannot be used; its code is that of the file's error after "image-"."""
    kind: type[DomainError] = _KINDS.get(problem.code, Invalid)
    return kind(f"image-{problem.code}", problem.message, problem.place)


def _reference(found: Found) -> ImageRef:
    header: Header = found.header
    return ImageRef(
        source=FOLDER,
        locator=found.name,
        study_instance_uid=header.study_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        modality=header.modality or None,
        view_position=header.view_position or None,
    )
