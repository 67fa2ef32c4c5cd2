"""What every image source does: folder, received images, DICOMweb, DIMSE, and the fake that other tests use."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from inlay_core.application.ports import ImageSource
from inlay_core.domain.errors import NotFound
from inlay_dicom.dataset import read
from inlay_dicom.folder import FolderIndex
from inlay_dicom.mapping import ArchiveImages, FolderImages
from inlay_dicom.pixels import grey8
from inlay_dicom.scu import DimseArchive, DimseServer
from inlay_dicom.store import ReceivedStore
from inlay_dicom.web import WebArchive, WebServer
from inlay_testkit.archive import Held, dimse_archive, web_archive
from inlay_testkit.dicom import file_bytes, radiograph
from inlay_testkit.images import MemoryImages
from inlay_testkit.scp import storage

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
Put = Callable[[Dataset], None]
Remove = Callable[[Dataset], None]


def void(_: object) -> None:
    """Nothing, whatever came."""


@pytest.fixture(params=["folder", "memory", "received", "dicomweb", "dimse"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ImageSource, Put, Remove]]:
    """An empty source, how images arrive in it, and how they go."""
    folder = FolderImages(FolderIndex(tmp_path, settle_s=0.0), rescan_s=0.0)
    held = Held()

    def forget(_: Dataset) -> None:
        for path in tmp_path.rglob("*.dcm"):
            path.unlink()

    def write(dataset: Dataset) -> None:
        (tmp_path / f"{dataset.SOPInstanceUID}.dcm").write_bytes(file_bytes(dataset))

    match request.param:
        case "memory":
            memory = MemoryImages()
            yield memory, memory.put, lambda _: memory.datasets.clear()
        case "folder":
            yield folder, write, forget
        case "received":
            with storage(tmp_path) as scp:
                yield folder, lambda dataset: void(scp.send(dataset)), forget
        case "dicomweb":
            with web_archive(held) as url:
                web = WebArchive(WebServer(url), ReceivedStore(tmp_path, quota_bytes=1 << 26))
                yield ArchiveImages(folder, web, first_pause_s=0), held.put, forget
        case "dimse":
            with storage(tmp_path) as scp, dimse_archive(held, {"INLAY": scp.port}) as port:
                dimse = DimseArchive(DimseServer("PACS", "127.0.0.1", port), "INLAY")
                yield ArchiveImages(folder, dimse, first_pause_s=0), held.put, forget


def test_study_that_has_not_arrived_is_empty(source: tuple[ImageSource, Put, Remove]) -> None:
    """Asking for unknown images is no error: the job waits."""
    images, _, _ = source
    assert images.find("1.2.3", "A1") == []
    assert images.find(None, None) == []


def test_images_are_found_when_they_arrive(source: tuple[ImageSource, Put, Remove]) -> None:
    """The same question has an answer once the images are there, by StudyInstanceUID and by accession number."""
    images, put, _ = source
    assert images.find("1.2.3", None) == []
    put(radiograph(PIXELS, StudyInstanceUID="1.2.3", AccessionNumber="A1", SOPInstanceUID="7.1"))
    assert [ref.sop_instance_uid for ref in images.find("1.2.3", None)] == ["7.1"]
    assert [ref.study_instance_uid for ref in images.find(None, "A1")] == ["1.2.3"]
    assert images.find(None, "A2") == []


def test_frontal_view_comes_first(source: tuple[ImageSource, Put, Remove]) -> None:
    """Whatever the order of arrival, the first image is the frontal one; what is no image to draft from is left out."""
    images, put, _ = source
    put(radiograph(PIXELS, ViewPosition="LL", SOPInstanceUID="7.1"))
    put(radiograph(PIXELS, ImageType=["DERIVED", "SECONDARY"], SOPInstanceUID="7.2"))
    put(radiograph(PIXELS, ViewPosition="PA", SOPInstanceUID="7.3"))
    assert [ref.sop_instance_uid for ref in images.find("1.2.3", None)] == ["7.3", "7.1"]


def test_loaded_bytes_are_the_image(source: tuple[ImageSource, Put, Remove]) -> None:
    """Loading gives a DICOM file with the pixels that were put in."""
    images, put, _ = source
    put(radiograph(PIXELS))
    (ref,) = images.find("1.2.3", None)
    assert (grey8(read(images.load(ref))) == PIXELS).all()


def test_image_that_has_gone_is_not_found(source: tuple[ImageSource, Put, Remove]) -> None:
    """An image that was found and deleted since is NotFound, which the worker takes for missing images."""
    images, put, remove = source
    dataset = radiograph(PIXELS)
    put(dataset)
    (ref,) = images.find("1.2.3", None)
    remove(dataset)
    with pytest.raises(NotFound):
        images.load(ref)
