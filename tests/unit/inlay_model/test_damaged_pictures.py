"""Files of pictures that a disk, a network or a tool has damaged: a named error, whatever their readers raise."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from inlay_model import BadImage
from inlay_model import study as pictures
from inlay_model.study import Picture, read_picture
from inlay_testkit.dicom import file_bytes, radiograph

GREY = np.arange(64, dtype=np.uint16).reshape(8, 8) * 500


def png(values: np.ndarray) -> bytes:
    """The file of a picture."""
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


WHOLE = {
    "window.dcm": file_bytes(
        radiograph(GREY, WindowCenter="900", WindowWidth="800", RescaleSlope=2, RescaleIntercept=1)
    ),
    "plain.dcm": file_bytes(radiograph(GREY.astype(np.uint8))),
    "deep.png": png(GREY),
    "grey.png": png(GREY.astype(np.uint8)),
}
# What stands in the first bytes of a file decides what all others mean.
PLACES = st.one_of(st.integers(0, 63), st.integers(128, 1023))
CHANGES = st.lists(st.tuples(PLACES, st.integers(1, 255)), max_size=4)


def damaged(whole: bytes, kept: float, changes: list[tuple[int, int]]) -> bytes:
    """The first part of these bytes, some of them changed."""
    left = bytearray(whole[: max(1, round(len(whole) * kept))])
    for place, bits in changes:
        left[place % len(left)] ^= bits
    return bytes(left)


def picture_or_problem(file: Path) -> Picture | BadImage:
    """What reading it gives."""
    try:
        return read_picture(file)
    except BadImage as problem:
        return problem


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the damaged files are written."""
    return tmp_path_factory.mktemp("damaged")


# As at the command line, what a reader only warns of does not end the reading.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=60)
@given(kept=st.one_of(st.just(1.0), st.floats(0, 1)), changes=CHANGES)
@example(kept=1.0, changes=[])
# Of a PNG: the length of a chunk, and the name of one.
@example(kept=1.0, changes=[(11, 1)])
@example(kept=1.0, changes=[(36, 16)])
@example(kept=1.0, changes=[(36, 32)])
def test_a_damaged_file_is_a_picture_or_a_named_error(
    folder: Path, name: str, kept: float, changes: list[tuple[int, int]]
) -> None:
    """Cut and flipped bytes: where there is no picture any more, the file is named with what to do."""
    file = folder / name
    file.write_bytes(damaged(WHOLE[name], kept, changes))
    found = picture_or_problem(file)
    if isinstance(found, BadImage):
        assert str(file) in str(found)
        assert str(found).endswith(".")
    else:
        assert found.image.mode in {"L", "RGB"}


@pytest.mark.parametrize("raised", [TypeError, NotImplementedError, SyntaxError, KeyError, RecursionError])
def test_whatever_a_reader_raises_says_which_file_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[Exception]
) -> None:
    """The error keeps what was raised as its cause, and quotes nothing of it."""

    def fail(_path: Path) -> Picture:
        raise raised("private text of a header")

    for name, reader in (("plain.dcm", "_read_dicom"), ("grey.png", "_read_plain")):
        file = tmp_path / name
        file.write_bytes(WHOLE[name])
        monkeypatch.setattr(pictures, reader, fail)
        with pytest.raises(BadImage, match="Copy it again") as refused:
            read_picture(file)
        assert isinstance(refused.value.__cause__, raised)
        assert str(file) in str(refused.value)
        assert "private" not in str(refused.value)


def test_a_lack_of_memory_is_not_blamed_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls may free some and try again."""

    def fail(_path: Path) -> Picture:
        raise MemoryError

    file = tmp_path / "grey.png"
    file.write_bytes(WHOLE["grey.png"])
    monkeypatch.setattr(pictures, "_read_plain", fail)
    with pytest.raises(MemoryError):
        read_picture(file)
