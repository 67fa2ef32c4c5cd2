"""Lossless JPEG (ISO 10918-1 process 14), decoded by GDCM in a process of its own.

GDCM is the free decoder of 16-bit lossless JPEG that can be had as a wheel, and it ends its process on broken data; a
picture from outside must not end the server. A child costs about 50 ms, per image of this one syntax.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inlay_dicom.lossless_jpeg_child import REQUEST

_CHILD: Final = Path(__file__).with_name("lossless_jpeg_child.py")
# The largest film within the limits takes some seconds on a slow core.
TIMEOUT_S: Final = 60.0


class BrokenFrame(ValueError):
    """The frame cannot be decoded."""


def decode(
    frame: bytes, *, rows: int, columns: int, samples: int, allocated: int, stored: int, signed: bool, first_order: bool
) -> NDArray[Any]:
    """Stored values of the frame, (rows, columns) or (rows, columns, 3). Raises `BrokenFrame`."""
    kind = np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")
    request = REQUEST.pack(rows, columns, samples, allocated, stored, signed, first_order)
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_CHILD)],
            input=request + frame,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BrokenFrame from None
    if done.returncode != 0 or len(done.stdout) != rows * columns * samples * kind.itemsize:
        raise BrokenFrame
    values = np.frombuffer(done.stdout, kind)
    return values.reshape((rows, columns) if samples == 1 else (rows, columns, samples))
