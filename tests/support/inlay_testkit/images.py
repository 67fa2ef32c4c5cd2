"""Studies kept in memory: the image source for tests of what happens around images."""

from collections.abc import Iterable

from pydicom.dataset import Dataset

from inlay_core.application.ports import ImageRef
from inlay_core.domain.errors import NotFound
from inlay_dicom.choose import in_order, view_of
from inlay_dicom.dataset import header_of
from inlay_testkit.dicom import file_bytes


class MemoryImages:
    """An `ImageSource` of datasets; `put` is the arrival of images."""

    def __init__(self, datasets: Iterable[Dataset] = ()) -> None:
        self.datasets = {str(dataset.SOPInstanceUID): dataset for dataset in datasets}

    def put(self, *datasets: Dataset) -> None:
        """Add images."""
        self.datasets |= {str(dataset.SOPInstanceUID): dataset for dataset in datasets}

    def find(self, study_instance_uid: str | None, accession_number: str | None) -> list[ImageRef]:
        """By StudyInstanceUID, else by accession number."""
        headers = in_order(map(header_of, self.datasets.values()))
        found = [h for h in headers if h.study_instance_uid == study_instance_uid]
        found = found or [h for h in headers if accession_number and h.accession_number == accession_number]
        return [
            ImageRef("memory", "", h.study_instance_uid, h.sop_instance_uid, h.modality, view=view_of(h).side)
            for h in found
        ]

    def load(self, ref: ImageRef) -> bytes:
        """The file of one image."""
        if ref.sop_instance_uid not in self.datasets:
            raise NotFound("image-gone", "No such image.")
        return file_bytes(self.datasets[ref.sop_instance_uid])
