import itertools
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inlay_core.domain.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from inlay_dicom.dataset import Limits
from inlay_dicom.errors import InvalidDicom
from inlay_dicom.folder import FolderIndex, Found
from inlay_dicom.mapping import FolderImages
from inlay_testkit.dicom import file_bytes, radiograph

PIXELS = np.zeros((64, 64), np.uint8)
HOUR_NS = 3_600 * 10**9


class Time:
    """A clock that the test turns; it starts an hour after the present, so that files written now are old."""

    def __init__(self) -> None:
        self.ns = time.time_ns() + HOUR_NS

    def __call__(self) -> int:
        """Nanoseconds since the epoch."""
        return self.ns


def put(path: Path, *, data: bytes | None = None, **tags: Any) -> Path:
    """A radiograph with these attributes, or the given bytes, as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_bytes(radiograph(PIXELS, **tags)) if data is None else data)
    return path


def index(root: Path, **options: Any) -> FolderIndex:
    """An index that takes files as they lie there, however new."""
    usual: dict[str, Any] = {"settle_s": 0.0, "now_ns": Time()}
    return FolderIndex(root, **(usual | options))


def names(watched: FolderIndex, study: str | None = "1.2.3", accession: str | None = None) -> list[str]:
    """The files of the study after a scan."""
    watched.scan()
    return sorted(found.name for found in watched.study(study, accession))


def test_files_are_found_at_any_depth(tmp_path: Path) -> None:
    """Studies lie in folders of any depth, with or without the ending .dcm."""
    put(tmp_path / "a.dcm")
    put(tmp_path / "x/y/z/IM0001")
    put(tmp_path / "other.dcm", StudyInstanceUID="9.9")
    assert names(index(tmp_path)) == ["a.dcm", "x/y/z/IM0001"]


def test_missing_folder_is_empty_until_it_is_mounted(tmp_path: Path) -> None:
    """A share that is not there yet holds no studies; once it is there, they are found."""
    watched = index(tmp_path / "share")
    assert names(watched) == []
    put(tmp_path / "share/a.dcm")
    assert names(watched) == ["a.dcm"]


def test_accession_finds_what_the_study_uid_does_not(tmp_path: Path) -> None:
    """Modalities without a worklist make up their own StudyInstanceUID: the accession number finds the study."""
    put(tmp_path / "a.dcm", AccessionNumber="A7")
    watched = index(tmp_path)
    assert names(watched, None, "A7") == ["a.dcm"]
    assert names(watched, "8.8.8", "A7") == ["a.dcm"]
    assert names(watched, None, "A8") == []
    assert names(watched, None, None) == []


def test_study_uid_decides_over_the_accession(tmp_path: Path) -> None:
    """Where files have the order's StudyInstanceUID, others with its accession number are left alone."""
    put(tmp_path / "a.dcm", AccessionNumber="A7")
    put(tmp_path / "b.dcm", AccessionNumber="A7", StudyInstanceUID="9.9")
    assert names(index(tmp_path), "1.2.3", "A7") == ["a.dcm"]


def test_accession_of_two_studies_finds_neither(tmp_path: Path) -> None:
    """Two hospitals may use one accession number: without a study UID no one can say whose images these are."""
    put(tmp_path / "a.dcm", AccessionNumber="A7")
    put(tmp_path / "b.dcm", AccessionNumber="A7", StudyInstanceUID="9.9")
    assert names(index(tmp_path), None, "A7") == []


def test_half_written_file_does_not_exist_until_it_is_complete(tmp_path: Path) -> None:
    """A file is found with its last byte, not before; what is there so far is no error."""
    data = file_bytes(radiograph(PIXELS))
    watched = index(tmp_path, now_ns=time.time_ns)
    path = tmp_path / "a.dcm"
    for length in (0, 50, 200, len(data) // 2, len(data) - 1):
        put(path, data=data[:length])
        assert names(watched) == []
        assert watched.problems() == {"incomplete": 1}
    put(path, data=data)
    assert names(watched) == ["a.dcm"]


def test_fresh_file_settles_first(tmp_path: Path) -> None:
    """A file changed a moment ago is left alone even if it looks complete: some copiers reserve the size first."""
    clock = Time()
    path = put(tmp_path / "a.dcm")
    os.utime(path, ns=(clock.ns, clock.ns))
    watched = index(tmp_path, settle_s=0.5, now_ns=clock)
    assert names(watched) == []
    clock.ns += 600_000_000
    assert names(watched) == ["a.dcm"]


def test_clock_of_a_share_may_run_ahead(tmp_path: Path) -> None:
    """A file from the future is taken by its completeness: it would otherwise wait for the clocks to meet."""
    clock = Time()
    path = put(tmp_path / "a.dcm")
    os.utime(path, ns=(clock.ns + HOUR_NS, clock.ns + HOUR_NS))
    assert names(index(tmp_path, settle_s=0.5, now_ns=clock)) == ["a.dcm"]


@pytest.mark.parametrize("name", [".hidden.dcm", "a.dcm.part", "a.TMP", ".a.dcm.Xy12"])
def test_names_of_unfinished_copies_are_passed_over(tmp_path: Path, name: str) -> None:
    """Names that copying programs use until they rename are not looked at."""
    put(tmp_path / name)
    assert names(index(tmp_path)) == []


def test_broken_files_are_counted_and_passed_over(tmp_path: Path) -> None:
    """Other files in the folder do no harm; their number is told by kind, their names are not."""
    put(tmp_path / "a.dcm")
    put(tmp_path / "DOE_JANE.txt", data=b"notes" * 100)
    put(tmp_path / "cut.dcm", data=file_bytes(radiograph(PIXELS))[:-30])
    watched = index(tmp_path)
    assert names(watched) == ["a.dcm"]
    assert watched.problems() == {"not-dicom": 1, "truncated": 1}


def test_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A link to a file outside is refused, and a linked folder is not entered; both are counted."""
    outside = put(tmp_path / "outside/secret.dcm")
    root = tmp_path / "images"
    put(root / "a.dcm", StudyInstanceUID="5.5")
    (root / "link.dcm").symlink_to(outside)
    (root / "linked").symlink_to(outside.parent)
    watched = index(root)
    assert names(watched) == []
    assert watched.problems() == {"refused": 2}


def test_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    """A link to another file of the folder is as good as the file."""
    put(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").symlink_to(tmp_path / "a.dcm")
    assert len(names(index(tmp_path))) == 1


def test_link_to_itself_ends(tmp_path: Path) -> None:
    """Circles of links end the scan of nothing but themselves."""
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.dcm").symlink_to(tmp_path / "self.dcm")
    put(tmp_path / "a.dcm")
    assert names(index(tmp_path)) == ["a.dcm"]


def test_named_pipe_does_not_stop_the_scan(tmp_path: Path) -> None:
    """A pipe in the folder is refused without waiting for somebody to write into it."""
    os.mkfifo(tmp_path / "pipe.dcm")
    put(tmp_path / "a.dcm")
    assert names(index(tmp_path)) == ["a.dcm"]


def test_removed_files_are_forgotten(tmp_path: Path) -> None:
    """A study that has been deleted is not found any more."""
    put(tmp_path / "x/a.dcm")
    watched = index(tmp_path)
    assert names(watched) == ["x/a.dcm"]
    shutil.rmtree(tmp_path / "x")
    assert names(watched) == []


def everything(watched: FolderIndex) -> dict[str, list[Found]]:
    """What is found of each study and accession number that the tests use."""
    asked = [(f"1.{n}", None) for n in range(3)] + [(None, f"A{n}") for n in range(3)]
    return {f"{study} {accession}": sorted(watched.study(study, accession), key=str) for study, accession in asked}


def disturb(root: Path, chance: random.Random, stamp: int) -> None:
    """A file comes, is written anew (perhaps as that of another study, perhaps broken), moves or goes; or a folder."""
    path = root / chance.choice("abc") / chance.choice(("", "deep/")) / f"{chance.randrange(4)}.dcm"
    what = chance.random()
    if what < 0.5:
        study, accession = f"1.{chance.randrange(3)}", f"A{chance.randrange(3)}"
        put(path, StudyInstanceUID=study, AccessionNumber=accession, SOPInstanceUID=f"7.{chance.randrange(9)}")
        if chance.random() < 0.2:
            path.write_bytes(path.read_bytes()[:-200])
        os.utime(path, ns=(stamp, stamp))
    elif what < 0.6 and path.exists():
        path.rename(path.with_name("9.dcm"))
    elif what < 0.9:
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path.parent, ignore_errors=True)


def is_scanned(watched: FolderIndex) -> bool:
    """Whether there were not too many files."""
    try:
        watched.scan()
    except InvalidDicom:
        return False
    return True


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_between_scans_is_what_a_new_index_finds(tmp_path: Path, seed: int) -> None:
    """Whatever happens to the files, and also after there were too many: once there are not, all are found again."""
    chance, stamps = random.Random(seed), itertools.count(10**18, 10**9)
    watched = index(tmp_path, now_ns=time.time_ns, max_files=8)
    outcomes = Counter[bool]()
    for _ in range(80):
        for _ in range(chance.randrange(1, 4)):
            disturb(tmp_path, chance, next(stamps))
        anew = index(tmp_path, now_ns=time.time_ns)
        anew.scan()
        fits = sum(path.is_file() for path in tmp_path.rglob("*.dcm")) <= 8
        # Files that went make room at the end of a scan, for the next one.
        assert (is_scanned(watched) or is_scanned(watched)) is fits
        outcomes[fits] += 1
        if fits:
            assert everything(watched) == everything(anew)
            assert watched.problems() == anew.problems()
    assert min(outcomes[True], outcomes[False]) > 5


def test_a_file_more_sorts_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand files that lie there cost nothing when one comes: only that one is sorted in."""
    for n in range(20):
        put(tmp_path / f"s{n}/a.dcm", SOPInstanceUID=f"7.{n}")
    watched = index(tmp_path)
    assert len(names(watched)) == 20
    kept: list[str] = []
    keep = watched._keep
    monkeypatch.setattr(watched, "_keep", lambda path, entry: kept.append(Path(path).name) or keep(path, entry))
    put(tmp_path / "s3/b.dcm", SOPInstanceUID="8.8")
    assert len(names(watched)) == 21
    assert kept == ["b.dcm"]


def test_same_image_twice_is_one(tmp_path: Path) -> None:
    """Of two files of one SOP instance the later written counts."""
    old = put(tmp_path / "a.dcm", SOPInstanceUID="7.7")
    put(tmp_path / "b.dcm", SOPInstanceUID="7.7")
    os.utime(old, (1, 1))
    assert names(index(tmp_path)) == ["b.dcm"]


def test_second_scan_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of an unchanged folder opens no file and lists no directory."""
    for n in range(20):
        put(tmp_path / f"s{n}/a.dcm", SOPInstanceUID=f"7.{n}")
    watched = index(tmp_path)
    assert len(names(watched)) == 20
    listed: list[str] = []
    opened: list[str] = []
    real_scandir, real_open = os.scandir, os.open
    monkeypatch.setattr("inlay_dicom.folder.os.scandir", lambda path: listed.append(path) or real_scandir(path))
    monkeypatch.setattr("inlay_dicom.folder.os.open", lambda path, flags: opened.append(path) or real_open(path, flags))
    assert len(names(watched)) == 20
    assert (listed, opened) == ([], [])
    put(tmp_path / "s3/b.dcm", SOPInstanceUID="8.8")
    assert len(names(watched)) == 21
    assert [Path(path).name for path in listed] == ["s3"]
    assert [Path(path).name for path in opened] == ["b.dcm"]


def test_file_put_in_right_after_a_listing_is_seen(tmp_path: Path) -> None:
    """A directory that changed just now is listed again, even if its time stamp cannot tell the two changes apart."""
    put(tmp_path / "a.dcm", SOPInstanceUID="7.1")
    watched = index(tmp_path, now_ns=time.time_ns)
    assert names(watched) == ["a.dcm"]
    stamp = tmp_path.stat().st_mtime_ns
    put(tmp_path / "b.dcm", SOPInstanceUID="7.2")
    os.utime(tmp_path, ns=(stamp, stamp))
    assert names(watched) == ["a.dcm", "b.dcm"]


def test_number_of_files_is_bounded(tmp_path: Path) -> None:
    """A folder with more files than the bound is a clear error at the port, not a growing process."""
    for n in range(3):
        put(tmp_path / f"{n}.dcm")
    source = FolderImages(index(tmp_path, max_files=2))
    with pytest.raises(Unavailable) as caught:
        source.find("1.2.3", None)
    assert caught.value.code == "image-folder-too-large"


def test_replaced_file_is_not_taken_for_the_found_one(tmp_path: Path) -> None:
    """Bytes are only handed out if they still are the image that was found, complete, and inside the folder."""
    path = put(tmp_path / "a.dcm", SOPInstanceUID="7.1")
    source = FolderImages(index(tmp_path))
    (ref,) = source.find("1.2.3", None)
    put(path, SOPInstanceUID="7.2")
    with pytest.raises(Conflict):
        source.load(ref)
    put(path, data=file_bytes(radiograph(PIXELS, SOPInstanceUID="7.1"))[:-9])
    with pytest.raises(Invalid):
        source.load(ref)
    path.unlink()
    with pytest.raises(NotFound):
        source.load(ref)
    outside = put(tmp_path.parent / f"{tmp_path.name}-outside.dcm", SOPInstanceUID="7.1")
    path.symlink_to(outside)
    with pytest.raises(Forbidden):
        source.load(ref)


def test_file_over_the_limit_is_never_read(tmp_path: Path) -> None:
    """A file larger than the limit is counted as too large."""
    put(tmp_path / "a.dcm")
    watched = index(tmp_path, limits=Limits(file_bytes=1000))
    assert names(watched) == []
    assert watched.problems() == {"too-large": 1}


def test_errors_hold_no_file_name(tmp_path: Path) -> None:
    """File names may hold a patient's name: no error shows one."""
    put(tmp_path / "DOE_JANE.dcm", SOPInstanceUID="7.1")
    watched = index(tmp_path)
    watched.scan()
    (tmp_path / "DOE_JANE.dcm").unlink()
    with pytest.raises(InvalidDicom) as caught:
        watched.load("DOE_JANE.dcm", "7.1")
    assert "DOE" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_lateral_alone_waits_for_its_frontal(tmp_path: Path) -> None:
    """While a study still grows, it is not drafted from its lateral; left alone for a while, it is."""
    path = put(tmp_path / "lateral.dcm", ViewPosition="LL", SOPInstanceUID="7.1")
    written = path.stat().st_mtime
    times = iter([written + 1, written + 60])
    source = FolderImages(index(tmp_path), patience_s=20, now=lambda: next(times))
    assert source.find("1.2.3", None) == []
    assert [ref.sop_instance_uid for ref in source.find("1.2.3", None)] == ["7.1"]


def test_frontal_is_there_at_once(tmp_path: Path) -> None:
    """With a frontal image nothing is waited for, and it comes first."""
    lateral = put(tmp_path / "a.dcm", ViewPosition="LL", SOPInstanceUID="7.1")
    put(tmp_path / "b.dcm", ViewPosition="PA", SOPInstanceUID="7.2")
    source = FolderImages(index(tmp_path), now=lambda: lateral.stat().st_mtime)
    assert [ref.sop_instance_uid for ref in source.find("1.2.3", None)] == ["7.2", "7.1"]


def test_one_scan_answers_many_questions(tmp_path: Path) -> None:
    """Questions in quick succession share a scan; a file that has arrived meanwhile is found a moment later."""
    moment = [100.0]
    source = FolderImages(index(tmp_path), rescan_s=5.0, timer=lambda: moment[0])
    assert source.find("1.2.3", None) == []
    put(tmp_path / "a.dcm")
    moment[0] += 4.9
    assert source.find("1.2.3", None) == []
    moment[0] += 0.2
    assert len(source.find("1.2.3", None)) == 1
