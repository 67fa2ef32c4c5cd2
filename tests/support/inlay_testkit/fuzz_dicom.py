"""Coverage-guided fuzzing (atheris) of reading DICOM: `python -m inlay_testkit.fuzz_dicom [-runs=N ...]`.

The seeds are one small radiograph in the transfer syntaxes that are decoded in this process. Anything but a picture or
InvalidDicom ends the process with the input that did it.
"""

from __future__ import annotations

import contextlib

import atheris
import numpy as np

with atheris.instrument_imports(
    include=["inlay_dicom", "pydicom.filereader", "pydicom.dataelem", "pydicom.values"], enable_loader_override=False
):
    from inlay_dicom.choose import in_order
    from inlay_dicom.dataset import Limits, header_of, read
    from inlay_dicom.errors import InvalidDicom
    from inlay_dicom.pixels import grey8

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from inlay_testkit.dicom import file_bytes, in_syntax, radiograph
from inlay_testkit.fuzzing import fuzz

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEG2000Lossless,
    RLELossless,
)
LIMITS = Limits(file_bytes=1 << 20, pixels=1 << 14)


def take(data: bytes) -> None:
    """Whatever the bytes are, they are shown or refused."""
    with contextlib.suppress(InvalidDicom):
        dataset = read(data, LIMITS)
        in_order([header_of(dataset)])
        picture = grey8(dataset, limits=LIMITS)
        if picture.ndim != 2 or picture.dtype != np.uint8:
            raise AssertionError("a picture that is none")


def main() -> None:
    """Fuzz."""
    pixels = (np.arange(40 * 48) % 251).astype(np.uint8).reshape(40, 48)
    dataset = radiograph(pixels, WindowCenter=100, WindowWidth=200, RescaleSlope=1, RescaleIntercept=0)
    fuzz(take, {syntax: file_bytes(in_syntax(dataset, syntax)) for syntax in SYNTAXES})


if __name__ == "__main__":
    main()
