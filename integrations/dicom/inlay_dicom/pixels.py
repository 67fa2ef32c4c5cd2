"""From stored values to the 8 bits that a person or the model sees: modality LUT, VOI LUT or window, polarity.

The grey pipeline is a function of one stored value (PS3.3 C.11.1 and C.11.2, PS3.4 N.2), so it is computed once per
value and looked up per pixel. MONOCHROME1 is inverted, so that in every result 0 is black and air is dark.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from inlay_dicom import codestream, lossless_jpeg
from inlay_dicom.dataset import DEFAULT_LIMITS, Limits, place_of
from inlay_dicom.errors import InvalidDicom

Grey8 = NDArray[np.uint8]
Floats = NDArray[np.float64]
Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

NATIVE: Final = frozenset(
    {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
)
# One decoder per compressed syntax, by name, so that nothing else is used if it is there (pylibjpeg-libjpeg is GPL).
DECODERS: Final[dict[str, str]] = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",  # 8 bits per sample only; 12 bits are refused below.
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
    RLELossless: "pylibjpeg",
}
LOSSLESS_JPEG: Final = frozenset({JPEGLossless, JPEGLosslessSV1})  # See lossless_jpeg.py.
SUPPORTED_TRANSFER_SYNTAXES: Final = NATIVE | LOSSLESS_JPEG | DECODERS.keys()
# PS3.5 A.4.11: archives begin to use it, and no free decoder of it is kept well enough yet.
JPEG_XL: Final = frozenset({"1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"})
GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"})
# ITU-R BT.601 luma, the weights by which the standard's own YBR_FULL is defined (PS3.3 C.7.6.3.1.2).
LUMA: Final = (0.299, 0.587, 0.114)
# A table for every value of 16 bits is cheap; of 32 bits it is not, and such images are computed pixel by pixel.
_TABLE_VALUES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Window:
    """Centre and width in units of the modality LUT's output (PS3.3 C.11.2.1.2), and the function's name."""

    center: float
    width: float
    function: Function = "LINEAR"


@dataclass(frozen=True, slots=True)
class _Format:
    """The attributes of the Image Pixel module (PS3.3 C.7.6.3) that say how values are stored."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    signed: bool
    photometric: str
    frames: int
    syntax: str

    def value_range(self) -> tuple[int, int]:
        """The smallest and largest value that can be stored."""
        return (-(1 << (self.stored - 1)), (1 << (self.stored - 1)) - 1) if self.signed else (0, (1 << self.stored) - 1)


def grey8(dataset: Dataset, window: Window | None = None, frame: int = 0, limits: Limits = DEFAULT_LIMITS) -> Grey8:
    """The frame as uint8 (rows, columns), black 0, white 255, as a viewer would show it first.

    `window` replaces what the file says about its values of interest. Without either, grey images of more than 8 bits
    are spread from their smallest to their largest value, padding left out. Padding is black.
    Raises `InvalidDicom`: no-pixels, truncated, too-large, bad-tag, unsupported, undecodable.
    """
    form = _format(dataset, limits)
    if not 0 <= frame < form.frames:
        raise InvalidDicom("bad-tag", "has no such frame", place_of("NumberOfFrames"))
    values = _decoded(dataset, form, frame)
    if values.ndim == 3:
        grey = luma(values)
        return grey if window is None else _to_bytes(windowed(grey.astype(np.float64), window))
    return _displayed(values, dataset, form, window)


def render_png(
    dataset: Dataset,
    window: Window | None = None,
    *,
    invert: bool = False,
    max_side: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> bytes:
    """The first frame as a grey PNG, at most `max_side` pixels on its longer side. Raises as `grey8` does."""
    pixels = grey8(dataset, window, limits=limits)
    image = Image.fromarray(255 - pixels if invert else pixels)
    if max_side is not None and max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    # Level 1: a radiograph is noise to zlib; higher levels take thrice the time for a few percent.
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Geometry:
    """What an image says about its size and how it lies in the patient, and the window that it is first shown with.

    `spacing_mm` is (between rows, between columns), at the detector where only that is known; None where neither is.
    """

    rows: int
    columns: int
    orientation: tuple[str, ...]
    laterality: str
    spacing_mm: tuple[float, float] | None
    window: Window


def geometry(dataset: Dataset, limits: Limits = DEFAULT_LIMITS) -> Geometry:
    """The geometry of the first frame.

    Raises `InvalidDicom` as `grey8` does.
    """
    form = _format(dataset, limits)
    spacing = _floats(dataset, "PixelSpacing") or _floats(dataset, "ImagerPixelSpacing")
    whole = len(spacing) == 2 and all(np.isfinite(one) and one > 0 for one in spacing)
    return Geometry(
        form.rows,
        form.columns,
        tuple(str(one).strip().upper() for one in dataset.get("PatientOrientation") or () if str(one).strip()),
        str(dataset.get("ImageLaterality") or dataset.get("Laterality") or "").strip().upper(),
        (spacing[0], spacing[1]) if whole else None,
        _shown_window(dataset, form),
    )


def _shown_window(dataset: Dataset, form: _Format) -> Window:
    """The window that `grey8` shows without being told one; a lookup table has none, all values stand for it."""
    if form.samples > 1:
        return Window(128, 256)
    given = file_window(dataset)
    if given is not None:
        return given
    values = _decoded(dataset, form, 0)
    return _whole_range(values, _padding(values, dataset), _modality(dataset), form)


def file_window(dataset: Dataset, index: int = 0) -> Window | None:
    """The window that the file offers (the first of several, or by `index`), None without one. Raises bad-tag."""
    centers, widths = _floats(dataset, "WindowCenter"), _floats(dataset, "WindowWidth")
    if not centers and not widths:
        return None
    if len(centers) <= index or len(widths) <= index:
        missing = "WindowWidth" if len(widths) <= index else "WindowCenter"
        raise InvalidDicom("bad-tag", "missing, although its partner is present", place_of(missing))
    name = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if name not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise InvalidDicom("unsupported", "not a function of the standard", place_of("VOILUTFunction"))
    return Window(centers[index], widths[index], cast("Function", name))


def windowed(values: Floats, window: Window) -> Floats:
    """Values of any shape mapped to 0..1 (PS3.3 C.11.2.1.2.1, C.11.2.1.3). Raises bad-tag for a senseless width."""
    center, width = window.center, window.width
    if not np.isfinite(center) or not np.isfinite(width) or width < (1 if window.function == "LINEAR" else 1e-12):
        raise InvalidDicom("bad-tag", "too small or no number", place_of("WindowWidth"))
    if window.function == "SIGMOID":
        with np.errstate(over="ignore"):  # exp overflows to infinity far below the window: the result, 0, is right.
            return 1.0 / (1.0 + np.exp(-4.0 * (values - center) / width))
    if window.function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    if width == 0:  # LINEAR of width 1: a threshold.
        return np.where(values <= center, 0.0, 1.0)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def luma(colours: NDArray[np.uint8]) -> Grey8:
    """Grey (rows, columns) of red, green and blue (rows, columns, 3)."""
    return _to_bytes(colours.astype(np.float64) @ np.array(LUMA) / 255.0)


# ── the grey pipeline ────────────────────────────────────────────────────────────────────────────────────────────────


def _displayed(values: NDArray[Any], dataset: Dataset, form: _Format, window: Window | None) -> Grey8:
    padded = _padding(values, dataset)
    shade = _shade(values, padded, dataset, form, window)
    low, high = form.value_range()
    if high - low < _TABLE_VALUES:
        low, high = min(low, int(values.min())), max(high, int(values.max()))
        grey = _to_bytes(shade(np.arange(low, high + 1, dtype=np.float64)))[values.astype(np.int64) - low]
    else:
        grey = _to_bytes(shade(values.astype(np.float64)))
    if form.photometric == "MONOCHROME1":
        grey = 255 - grey
    if padded is not None:
        grey[padded] = 0
    return grey


def _shade(
    values: NDArray[Any], padded: NDArray[np.bool_] | None, dataset: Dataset, form: _Format, window: Window | None
) -> Callable[[Floats], Floats]:
    """The function from stored values to 0..1, before polarity."""
    modality = _modality(dataset)
    lut = None if window is not None else _lut(dataset, "VOILUTSequence")
    if lut is not None:
        return lambda stored: lut(modality(stored))
    chosen = window or file_window(dataset) or _whole_range(values, padded, modality, form)
    return lambda stored: windowed(modality(stored), chosen)


def _modality(dataset: Dataset) -> Callable[[Floats], Floats]:
    """Modality LUT, or rescale slope and intercept, or nothing (PS3.3 C.11.1)."""
    lut = _lut(dataset, "ModalityLUTSequence", scaled=False)
    if lut is not None:
        return lut
    slopes, intercepts = _floats(dataset, "RescaleSlope"), _floats(dataset, "RescaleIntercept")
    slope, intercept = (slopes or (1.0,))[0], (intercepts or (0.0,))[0]
    if slope == 0 or not np.isfinite(slope):
        raise InvalidDicom("bad-tag", "zero or no number", place_of("RescaleSlope"))
    return lambda stored: stored * slope + intercept


def _whole_range(
    values: NDArray[Any], padded: NDArray[np.bool_] | None, modality: Callable[[Floats], Floats], form: _Format
) -> Window:
    """The window for a file that offers none: 8 bits as they are, more bits from the smallest value to the largest."""
    if form.stored <= 8:
        ends = np.array(form.value_range(), dtype=np.float64)
    else:
        shown = values if padded is None else values[~padded]
        ends = np.array([shown.min(), shown.max()] if shown.size else [0, 1], dtype=np.float64)
    low, high = sorted(modality(ends).tolist())
    return Window((low + high) / 2, max(high - low, 1e-9), "LINEAR_EXACT")


def _lut(dataset: Dataset, keyword: str, *, scaled: bool = True) -> Callable[[Floats], Floats] | None:
    """The first lookup table of a sequence as a function, to 0..1 where `scaled` (PS3.3 C.11.1.1, C.11.2.1.1)."""
    sequence = _get(dataset, keyword)
    if not sequence:
        return None
    place = place_of("LUTDescriptor")
    try:
        item: Dataset = sequence[0]
        count, first, bits = (int(value) for value in item.LUTDescriptor)
        table = _lut_data(item, (count or 1 << 16), bits, little=dataset.original_encoding[1] is not False)
    except InvalidDicom:
        raise
    except Exception:  # noqa: BLE001 - the item comes from outside and may hold anything, or nothing.
        raise InvalidDicom("bad-tag", "the lookup table cannot be read", place) from None
    if not 8 <= bits <= 16 or not table.size:
        raise InvalidDicom("bad-tag", "a lookup table of this depth or length does not exist", place)
    # The second value is signed or not as the values that go in are, whatever its VR says: seen both ways round.
    first = first - (1 << 16) if first >= 1 << 15 and _signed_input(dataset, keyword) else first
    top = float((1 << bits) - 1) if scaled else 1.0

    def look_up(values: Floats) -> Floats:
        index = np.clip(np.rint(values) - first, 0, table.size - 1).astype(np.int64)
        return cast("Floats", np.minimum(table[index] / top, 1.0) if scaled else table[index])

    return look_up


def _lut_data(item: Dataset, count: int, bits: int, *, little: bool) -> Floats:
    data = item.LUTData
    if not isinstance(data, bytes):
        return np.array(list(data), dtype=np.float64)[:count]
    if bits == 8 and len(data) in (count, count + 1):  # One byte per entry, padded to an even length.
        return np.frombuffer(data, dtype=np.uint8)[:count].astype(np.float64)
    words = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2" if little else ">u2")
    if words.size < count:
        raise InvalidDicom("bad-tag", "shorter than its descriptor says", place_of("LUTData"))
    return words[:count].astype(np.float64)


def _signed_input(dataset: Dataset, keyword: str) -> bool:
    """Whether what goes into a lookup table may be negative: stored values, or for the VOI LUT rescaled ones."""
    if keyword == "VOILUTSequence":
        if _get(dataset, "ModalityLUTSequence"):
            return False
        if (_floats(dataset, "RescaleIntercept") or (0.0,))[0] < 0:
            return True
    return _int(dataset, "PixelRepresentation") == 1


def _padding(values: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_] | None:
    """Where the picture is background added to make it rectangular (PS3.3 C.7.5.1.1.2), None where nothing says so."""
    ends = [_int(dataset, key) for key in ("PixelPaddingValue", "PixelPaddingRangeLimit") if key in dataset]
    known = [end for end in ends if end is not None]
    if not known or "PixelPaddingValue" not in dataset:
        return None
    mask: NDArray[np.bool_] = (values >= min(known)) & (values <= max(known))
    return mask


def _to_bytes(shares: Floats) -> Grey8:
    return cast("Grey8", np.floor(np.nan_to_num(shares) * 255.0 + 0.5).astype(np.uint8))


# ── decoding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _format(dataset: Dataset, limits: Limits) -> _Format:
    if "PixelData" not in dataset:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise InvalidDicom("unsupported", "floating-point pixels are not supported", place_of("FloatPixelData"))
        raise InvalidDicom("no-pixels", "missing", place_of("PixelData"))
    form = _Format(
        rows=_positive(dataset, "Rows"),
        columns=_positive(dataset, "Columns"),
        samples=_positive(dataset, "SamplesPerPixel"),
        allocated=_positive(dataset, "BitsAllocated"),
        stored=_positive(dataset, "BitsStored"),
        signed=_int(dataset, "PixelRepresentation") == 1,
        photometric=str(_get(dataset, "PhotometricInterpretation") or "").strip().upper(),
        frames=_int(dataset, "NumberOfFrames") or 1,
        syntax=str(dataset.file_meta.get("TransferSyntaxUID", "")) if hasattr(dataset, "file_meta") else "",
    )
    _refuse_strange(form, limits)
    return form


def _refuse_strange(form: _Format, limits: Limits) -> None:
    if form.rows * form.columns > limits.pixels:
        raise InvalidDicom("too-large", f"more than {limits.pixels} pixels", place_of("Rows"))
    if form.syntax in JPEG_XL:
        raise InvalidDicom("unsupported", "JPEG XL cannot be decoded", place_of("TransferSyntaxUID"))
    if form.syntax not in SUPPORTED_TRANSFER_SYNTAXES:
        raise InvalidDicom("unsupported", "no decoder for this transfer syntax", place_of("TransferSyntaxUID"))
    if form.photometric not in GREY | COLOUR:
        raise InvalidDicom("unsupported", "missing or not supported", place_of("PhotometricInterpretation"))
    if form.allocated not in (8, 16, 32):
        raise InvalidDicom("unsupported", "not 8, 16 or 32", place_of("BitsAllocated"))
    if form.stored > form.allocated:
        raise InvalidDicom("bad-tag", "larger than Bits Allocated", place_of("BitsStored"))
    if form.samples != (3 if form.photometric in COLOUR - {"PALETTE COLOR"} else 1):
        raise InvalidDicom("bad-tag", "does not fit the photometric interpretation", place_of("SamplesPerPixel"))
    if form.frames < 1:
        raise InvalidDicom("bad-tag", "less than one", place_of("NumberOfFrames"))
    if form.syntax == JPEGExtended12Bit and form.stored != 8:
        raise InvalidDicom("unsupported", "12-bit JPEG Extended cannot be decoded", place_of("TransferSyntaxUID"))


def _decoded(dataset: Dataset, form: _Format, frame: int) -> NDArray[Any]:
    """Stored values (rows, columns), or uint8 red, green and blue (rows, columns, 3)."""
    if form.syntax in NATIVE:
        _refuse_short(dataset, form)
    elif form.syntax != RLELossless:
        _refuse_other_size(_frame(dataset, form, frame), form)
    try:
        values = _decode(dataset, form, frame)
    except Exception as problem:  # noqa: BLE001 - decoders raise almost anything on broken data.
        message = f"the pixels cannot be decoded ({type(problem).__name__})"
        raise InvalidDicom("undecodable", message, place_of("PixelData")) from None
    if values.shape[:2] != (form.rows, form.columns) or values.ndim not in (2, 3):
        raise InvalidDicom("undecodable", "the picture has another size than the header says", place_of("PixelData"))
    if values.ndim == 3:
        return _eight_bits(values, form)
    return _stored_bits(values, dataset, form) if form.syntax in NATIVE else values


def _decode(dataset: Dataset, form: _Format, frame: int) -> NDArray[Any]:
    if form.syntax in LOSSLESS_JPEG:
        return lossless_jpeg.decode(
            _frame(dataset, form, frame),
            rows=form.rows,
            columns=form.columns,
            samples=form.samples,
            allocated=form.allocated,
            stored=form.stored,
            signed=form.signed,
            first_order=form.syntax == JPEGLosslessSV1,
        )
    # pydicom takes the lowest bits of a cell, whatever High Bit says; `_stored_bits` looks at it.
    options: Any = {"decoding_plugin": DECODERS.get(form.syntax, ""), "correct_unused_bits": form.syntax not in NATIVE}
    values, _ = get_decoder(UID(form.syntax)).as_array(dataset, index=frame, raw=False, **options)
    return apply_color_lut(values, dataset) if form.photometric == "PALETTE COLOR" else values


def _stored_bits(values: NDArray[Any], dataset: Dataset, form: _Format) -> NDArray[Any]:
    """Only the stored bits of each cell: old modalities keep overlays in the bits above (PS3.5 8.1.1)."""
    if form.stored == form.allocated:
        return values
    high = _int(dataset, "HighBit")
    shift = max((form.stored - 1 if high is None else high) - (form.stored - 1), 0)
    if shift + form.stored > form.allocated:
        raise InvalidDicom("bad-tag", "does not fit Bits Stored and Bits Allocated", place_of("HighBit"))
    bits = (values.astype(np.int64) >> shift) & ((1 << form.stored) - 1)
    if form.signed:
        sign = 1 << (form.stored - 1)
        bits = (bits ^ sign) - sign
    return bits


def _eight_bits(colours: NDArray[Any], form: _Format) -> NDArray[np.uint8]:
    """Colour samples of any depth as 8 bits. Palettes hold 16-bit entries whatever the index needs."""
    depth = colours.dtype.itemsize * 8 if form.photometric == "PALETTE COLOR" else form.stored
    if depth < 8 or form.signed or colours.shape[2] != 3:
        raise InvalidDicom("unsupported", "colour of this form is not supported", place_of("BitsStored"))
    return cast("NDArray[np.uint8]", (colours >> (depth - 8)).astype(np.uint8))


def _refuse_short(dataset: Dataset, form: _Format) -> None:
    bits = form.rows * form.columns * form.frames * form.allocated * form.samples
    if form.photometric == "YBR_FULL_422":
        bits = bits * 2 // 3
    if len(_pixel_bytes(dataset)) < bits // 8:
        raise InvalidDicom("truncated", "shorter than rows, columns and depth require", place_of("PixelData"))


def _refuse_other_size(encoded: bytes, form: _Format) -> None:
    size = codestream.size(encoded)
    if size is None:
        raise InvalidDicom("undecodable", "no header of the compressed picture", place_of("PixelData"))
    if size != (form.rows, form.columns):
        raise InvalidDicom("bad-tag", "differs from the size of the compressed picture", place_of("Rows"))


def _frame(dataset: Dataset, form: _Format, frame: int) -> bytes:
    try:
        return get_frame(_pixel_bytes(dataset), frame, number_of_frames=form.frames)
    except Exception:  # noqa: BLE001 - broken fragments raise almost anything.
        raise InvalidDicom("truncated", "the fragments cannot be read", place_of("PixelData")) from None


def _pixel_bytes(dataset: Dataset) -> bytes:
    data = _get(dataset, "PixelData")
    return data if isinstance(data, bytes) else b""


# ── values of attributes ─────────────────────────────────────────────────────────────────────────────────────────────


def _get(dataset: Dataset, keyword: str) -> Any:
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001 - a value is converted when it is first looked at, and may be anything.
        raise InvalidDicom("bad-tag", "cannot be read", place_of(keyword)) from None


def _floats(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    value = _get(dataset, keyword)
    if value is None or value == "":
        return ()
    try:
        return (float(value),) if isinstance(value, (int, float, str)) else tuple(float(one) for one in value)
    except (TypeError, ValueError):
        raise InvalidDicom("bad-tag", "no number", place_of(keyword)) from None


def _int(dataset: Dataset, keyword: str) -> int | None:
    values = _floats(dataset, keyword)
    if not values:
        return None
    if not np.isfinite(values[0]):
        raise InvalidDicom("bad-tag", "no number", place_of(keyword))
    return int(values[0])


def _positive(dataset: Dataset, keyword: str) -> int:
    value = _int(dataset, keyword)
    if value is None or value < 1:
        raise InvalidDicom("bad-tag", "missing or not positive", place_of(keyword))
    return value
