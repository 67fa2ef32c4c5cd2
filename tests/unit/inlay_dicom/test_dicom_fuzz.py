"""Whatever bytes arrive, reading and showing them ends in a picture or in InvalidDicom."""

import contextlib
import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from inlay_dicom import codestream
from inlay_dicom.choose import in_order
from inlay_dicom.dataset import Limits, header_of, read, read_header
from inlay_dicom.errors import InvalidDicom
from inlay_dicom.pixels import grey8
from inlay_testkit.dicom import file_bytes, in_htj2k, in_syntax, radiograph

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    RLELossless,
]
LIMITS = Limits(file_bytes=1 << 20, pixels=1 << 16)


@functools.cache
def valid(syntax: UID) -> bytes:
    """A good file in that syntax, to be spoiled."""
    pixels = (np.arange(40 * 48) % 251).astype(np.uint8).reshape(40, 48)
    dataset = radiograph(pixels, WindowCenter=100, WindowWidth=200, RescaleSlope=1, RescaleIntercept=0)
    encoded = in_htj2k if syntax == HTJ2KLossless else in_syntax
    return file_bytes(encoded(dataset, syntax))


def swallow(data: bytes) -> None:
    """Read and show; the only error that may come is InvalidDicom."""
    with contextlib.suppress(InvalidDicom):
        dataset = read(data, LIMITS)
        in_order([header_of(dataset)])
        picture = grey8(dataset, limits=LIMITS)
        assert picture.dtype == np.uint8
        assert picture.ndim == 2


@settings(deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_garbage_is_invalid(data: bytes, marked: bool) -> None:
    """Random bytes, with or without the mark of Part 10, give InvalidDicom and nothing else."""
    with pytest.raises(InvalidDicom):
        grey8(read(bytes(128) + b"DICM" + data if marked else data, LIMITS))


@settings(deadline=None)
@given(st.sampled_from(SYNTAXES), st.floats(0, 1))
def test_cut_files_are_invalid_or_shown(syntax: UID, share: float) -> None:
    """A file cut anywhere is refused, or shown if only padding is missing."""
    data = valid(syntax)
    swallow(data[: int(len(data) * share)])


# Lossless JPEG starts a process per picture, and CharLS takes its time (seconds, bounded) over some broken scans.
@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SYNTAXES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_spoiled_files_are_invalid_or_shown(syntax: UID, changes: list[tuple[float, int]]) -> None:
    """Bytes changed anywhere, pixels and codestreams included, never lead to another error."""
    data = bytearray(valid(syntax))
    for share, value in changes:
        data[132 + int((len(data) - 133) * share)] = value
    swallow(bytes(data))


@settings(deadline=None)
@given(st.sampled_from(SYNTAXES), st.integers(0, 3000), st.binary(max_size=60))
def test_inserted_bytes_are_invalid_or_shown(syntax: UID, at: int, extra: bytes) -> None:
    """Bytes put in anywhere shift all that follows; that too ends in InvalidDicom at worst."""
    data = valid(syntax)
    swallow(data[: 132 + at] + extra + data[132 + at :])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(SYNTAXES), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=6))
def test_headers_of_spoiled_files(tmp_path: Path, syntax: UID, changes: list[tuple[int, int]]) -> None:
    """Reading a header from a spoiled file on disk ends in a header or in InvalidDicom."""
    data = bytearray(valid(syntax))
    for at, value in changes:
        data[132 + at % (len(data) - 132)] = value
    path = tmp_path / "spoiled.dcm"
    path.write_bytes(data)
    with contextlib.suppress(InvalidDicom):
        in_order([read_header(path, LIMITS)])


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\xff\x4f\xff\x51"]))
def test_codestream_headers_of_garbage(data: bytes, start: bytes) -> None:
    """Looking for the size of a codestream never fails; it finds one or none."""
    size = codestream.size(start + data)
    assert size is None or len(size) == 2
