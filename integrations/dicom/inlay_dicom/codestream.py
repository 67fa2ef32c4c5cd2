"""How large a compressed frame says it is: looked up in its own header before any decoder may reserve memory for it.

References: ISO 10918-1 B.2 (JPEG), ISO 14495-1 C.2 (JPEG-LS), ISO 15444-1 A.5.1 (JPEG 2000).
"""

from typing import Final

SOI: Final = b"\xff\xd8"
J2K_START: Final = b"\xff\x4f\xff\x51"
# SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC), and SOF55, the start of a JPEG-LS frame.
_STARTS_OF_FRAME: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
# Markers that stand alone: TEM, RST0..7, SOI.
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN: Final = 0xDA


def size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns by the header of a JPEG, JPEG-LS or JPEG 2000 frame; None where it has none that can be read."""
    if frame.startswith(SOI):
        return _jpeg_size(frame)
    start = frame.find(J2K_START, 0, 4096)  # A codestream may be wrapped in the boxes of a JP2 file.
    return _j2k_size(frame, start) if start >= 0 else None


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 4 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker in _STARTS_OF_FRAME:
            if at + 9 > len(frame):
                return None
            return int.from_bytes(frame[at + 5 : at + 7]), int.from_bytes(frame[at + 7 : at + 9])
        elif marker == _START_OF_SCAN:
            return None
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    return None


def _j2k_size(frame: bytes, start: int) -> tuple[int, int] | None:
    siz = frame[start + 8 : start + 24]
    if len(siz) < 16:
        return None
    width, height, left, top = (int.from_bytes(siz[i : i + 4]) for i in range(0, 16, 4))
    return height - top, width - left
