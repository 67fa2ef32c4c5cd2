"""The images of a study as the model sees them: one per view, the frontal first, in 8 bits; whether it is a phantom."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inlay_core.application.ports import ImageRef, ImageSource, ImageWanted
from inlay_core.domain.errors import NotFound
from inlay_core.domain.matching import PatientShown
from inlay_dicom.dataset import header_of, read
from inlay_dicom.errors import InvalidDicom
from inlay_dicom.mapping import domain_error, patient_shown
from inlay_dicom.pixels import grey8
from inlay_dicom.times import study_time

# An infill follows its draft within minutes; a film of 16 megapixels in 8 bits takes 16 MB.
STUDIES_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class Study:
    """Pictures (rows, columns) of uint8, the frontal one first; `phantom` is true if every header says so.

    `refs` are where the pictures come from. `studied_at` is the study's time by the first image that has one; `shown`
    are the patients that the headers name.
    """

    pictures: tuple[NDArray[np.uint8], ...]
    phantom: bool
    studied_at: datetime | None = None
    shown: tuple[PatientShown, ...] = field(default=(), repr=False)
    refs: tuple[ImageRef, ...] = field(default=(), repr=False)


class Studies:
    """Finds and decodes the images of studies; the last few are kept decoded.

    What is kept is known by its SOP Instance UID: other pixels need another one (PS3.3 C.12.1.1).
    """

    def __init__(self, source: ImageSource, *, views: int = 1, keep: int = STUDIES_KEPT, zone: tzinfo = UTC) -> None:
        """`views` is how many a study has at most; `zone` is that of images that name none."""
        self._source = source
        self._views = views
        self._keep = keep
        self._zone = zone
        self._kept: OrderedDict[tuple[ImageRef, ...], Study] = OrderedDict()

    def fetch(self, wanted: ImageWanted) -> Study | None:
        """The study; None while its images are missing.

        Raises Invalid (code `image-...`) for an image that cannot be shown, Conflict or Unavailable where it may be
        tried again.
        """
        refs = views_of(self._source.find(wanted.study_instance_uid, wanted.accession_number), self._views)
        if not refs:
            return None
        study = self._kept.get(refs)
        if study is None:
            try:
                study = _decoded(refs, [self._source.load(ref) for ref in refs], self._zone)
            except NotFound:
                return None  # Gone between finding and loading.
            self._kept[refs] = study
        self._kept.move_to_end(refs)
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)
        return study

    def forget(self, study: Study | None) -> None:
        """Read the study anew the next time: its files may be mended under the same UIDs, their headers at least."""
        for refs in [refs for refs, kept in self._kept.items() if kept is study]:
            del self._kept[refs]


def views_of(refs: Sequence[ImageRef], most: int) -> tuple[ImageRef, ...]:
    """The best image of a study, and the best one of each further view that somebody stated, `most` altogether."""
    chosen = list(refs[:1])
    for ref in refs[1:]:
        if len(chosen) < most and ref.view and ref.view not in [one.view for one in chosen]:
            chosen.append(ref)
    return tuple(chosen)


def _decoded(refs: tuple[ImageRef, ...], files: list[bytes], zone: tzinfo) -> Study:
    try:
        datasets = [read(file) for file in files]
        pictures = tuple(grey8(dataset) for dataset in datasets)
    except InvalidDicom as problem:
        raise domain_error(problem) from None
    phantom = all(header_of(dataset).is_phantom for dataset in datasets)
    times = (study_time(dataset, zone) for dataset in datasets)
    studied_at = next((time for time in times if time is not None), None)
    return Study(pictures, phantom, studied_at, tuple(patient_shown(dataset) for dataset in datasets), refs)
