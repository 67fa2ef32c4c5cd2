import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inlay_dicom.errors import InvalidDicom
from inlay_dicom.folder import FolderIndex
from inlay_dicom.store import Kept, ReceivedStore, StoreFull
from inlay_testkit.dicom import file_bytes, radiograph

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)


def image(**tags: Any) -> bytes:
    """A Part 10 file with a fixed identity."""
    return file_bytes(radiograph(PIXELS, **({"SOPInstanceUID": "1.2.9", "PatientName": "Planted^Patricia"} | tags)))


def store(folder: Path, quota_bytes: int = 1 << 20) -> ReceivedStore:
    """A store with a quota."""
    return ReceivedStore(folder, quota_bytes=quota_bytes)


def files(folder: Path) -> list[Path]:
    """Everything in the folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_kept_is_found_by_the_watched_folder(tmp_path: Path) -> None:
    """The image source on the folder above finds a received image by its study, byte for byte."""
    data = image()
    assert store(tmp_path).put(data)[0] is Kept.STORED
    index = FolderIndex(tmp_path, settle_s=0)
    index.scan()
    (found,) = index.study("1.2.3", None)
    assert index.load(found.name, "1.2.9") == data


def test_the_same_image_again_changes_nothing(tmp_path: Path) -> None:
    """A repeated object is no second file, also when another sender stands in its file meta information."""
    kept = store(tmp_path)
    kept.put(image())
    again = radiograph(PIXELS, SOPInstanceUID="1.2.9", PatientName="Planted^Patricia")
    again.file_meta.SourceApplicationEntityTitle = "OTHER"
    assert kept.put(file_bytes(again))[0] is Kept.REPEATED
    assert len(files(tmp_path)) == 1


def test_another_image_of_the_same_uid_is_set_aside(tmp_path: Path) -> None:
    """Nothing is overwritten: the first stays in use, the other is kept where no draft is made from it, and counted."""
    kept, first, other = store(tmp_path), image(), image(ViewPosition="AP")
    kept.put(first)
    assert [kept.put(other)[0], kept.put(other)[0]] == [Kept.CONFLICTING, Kept.CONFLICTING]
    index = FolderIndex(tmp_path, settle_s=0)
    index.scan()
    (found,) = index.study("1.2.3", None)
    assert index.load(found.name, "1.2.9") == first
    assert sorted(path.read_bytes() for path in files(tmp_path)) == sorted((first, other))
    assert kept.conflicting() == 1


def test_a_full_store_keeps_nothing_more(tmp_path: Path) -> None:
    """Beyond the quota an object is refused; when room has been made the next one is taken."""
    kept = store(tmp_path, quota_bytes=len(image()) + 10)
    kept.put(image())
    with pytest.raises(StoreFull):
        kept.put(image(SOPInstanceUID="1.2.10"))
    assert len(files(tmp_path)) == 1
    files(tmp_path)[0].unlink()
    assert kept.put(image(SOPInstanceUID="1.2.10"))[0] is Kept.STORED


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "truncated"),
        (b"\0" * 400, "not-dicom"),
        (image()[:-8], "truncated"),
        (image(StudyInstanceUID=None), "bad-tag"),
    ],
)
def test_what_is_broken_is_not_kept(tmp_path: Path, data: bytes, code: str) -> None:
    """No file without a study, an end, or a beginning."""
    with pytest.raises(InvalidDicom) as refused:
        store(tmp_path).put(data)
    assert refused.value.code == code
    assert files(tmp_path) == []


def test_another_object_than_was_announced_is_refused(tmp_path: Path) -> None:
    """The UIDs of the command must be those of the dataset."""
    with pytest.raises(InvalidDicom) as refused:
        store(tmp_path).put(image(), ("1.2.840.10008.5.1.4.1.1.1", "1.2.9"))
    assert refused.value.code == "mismatch"


def test_many_writers_of_one_image_leave_one_file(tmp_path: Path) -> None:
    """Whoever comes first wins; the others' equal bytes count as repeated, and no unfinished file stays."""
    outcomes: list[Kept] = []
    threads = [threading.Thread(target=lambda: outcomes.append(store(tmp_path).put(image())[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {Kept.STORED, Kept.REPEATED}
    assert len(outcomes) == 8
    assert len(files(tmp_path)) == 1


def test_names_tell_nothing(tmp_path: Path) -> None:
    """Neither names of patients nor UIDs stand in paths."""
    store(tmp_path).put(image())
    (path,) = files(tmp_path)
    assert "1.2" not in str(path.relative_to(tmp_path)).removesuffix(".dcm")
    assert "Patricia" not in str(path)


def test_old_files_and_leftovers_are_forgotten(tmp_path: Path) -> None:
    """What came long ago is removed, what a killed process left after an hour; what is young stays."""
    kept = store(tmp_path)
    kept.put(image())
    kept.put(image(SOPInstanceUID="1.2.10"))
    old, young = files(tmp_path)
    leftover = young.parent / ".unfinished-1"
    leftover.write_bytes(b"half")
    os.utime(leftover, (0, young.stat().st_mtime - 7200))
    os.utime(old, (0, 0))
    assert kept.forget(older_than_s=86400) == 2
    assert files(tmp_path) == [young]
