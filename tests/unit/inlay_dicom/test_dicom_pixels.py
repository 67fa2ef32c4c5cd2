import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
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

from inlay_dicom.dataset import Limits, read
from inlay_dicom.errors import InvalidDicom
from inlay_dicom.pixels import (
    SUPPORTED_TRANSFER_SYNTAXES,
    Window,
    file_window,
    grey8,
    render_png,
    windowed,
)
from inlay_testkit.dicom import file_bytes, in_htj2k, in_syntax, radiograph

LOSSLESS = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    RLELossless,
)
RAMP8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
HTJ2K_SYNTAXES = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
# 40 x 48 is the least that OpenJPEG's default six resolutions take; noise makes every wrong bit visible.
NOISE = np.random.default_rng(7).integers(0, 1 << 16, (40, 48), dtype=np.uint16)


def smooth(size: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture without noise, which lossy codecs keep within a few grey values."""
    x = np.linspace(0, 3, size)
    return (127 + 100 * np.outer(np.sin(x), np.cos(x))).astype(np.uint8)


def shown(dataset: Dataset, **options: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The picture of a dataset that has been written and read again."""
    return grey8(read(file_bytes(dataset)), **options)


def refused(code: str, dataset: Dataset, place: str | None = None, **options: Any) -> None:
    """Showing `dataset` must fail with that code and place."""
    with pytest.raises(InvalidDicom) as caught:
        grey8(dataset, **options)
    assert (caught.value.code, caught.value.place) == (code, place)


def lut(values: list[int], first: int, bits: int) -> Dataset:
    """An item of a LUT sequence, its data as words."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(values), first, bits])
    item.add_new("LUTData", "OW", np.array(values, "<u2").tobytes())
    return item


# ── windows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_eight_bits_without_window_are_shown_as_they_are() -> None:
    """An 8-bit image that says nothing more is its own picture."""
    assert (shown(radiograph(RAMP8)) == RAMP8).all()


def test_linear_window_over_all_of_eight_bits_is_identity() -> None:
    """Centre 128, width 256 shows 8-bit values as they are: the formula's halves are where the standard has them."""
    assert (shown(radiograph(RAMP8, WindowCenter=128, WindowWidth=256)) == RAMP8).all()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-1024.0, 0.0), (-160.0, 0.0), (239.0, 1.0), (240.0, 1.0), (39.5, 0.5), (0.0, 39.5 / 399 * -1 + 0.5)],
)
def test_linear_window_is_the_standards_formula(value: float, expected: float) -> None:
    """C.11.2.1.2.1: x <= c-0.5-(w-1)/2 is 0, x > c-0.5+(w-1)/2 is 1, in between ((x-(c-0.5))/(w-1)+0.5)."""
    assert windowed(np.array([value]), Window(40, 400))[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("value", "expected"), [(-160.0, 0.0), (240.0, 1.0), (40.0, 0.5), (140.0, 0.75)])
def test_linear_exact_has_no_halves(value: float, expected: float) -> None:
    """C.11.2.1.3.2: LINEAR_EXACT maps centre to the middle and centre ± width/2 to the ends."""
    assert windowed(np.array([value]), Window(40, 400, "LINEAR_EXACT"))[0] == pytest.approx(expected)


def test_sigmoid_is_the_standards_formula() -> None:
    """C.11.2.1.3.1: 1 / (1 + exp(-4 (x-c)/w)); far from the window it is 0 and 1 without a warning of overflow."""
    got = windowed(np.array([40.0, 140.0, -1e6, 1e6]), Window(40, 400, "SIGMOID"))
    assert got == pytest.approx([0.5, 1 / (1 + np.exp(-1)), 0.0, 1.0])


def test_linear_window_of_width_one_is_a_threshold() -> None:
    """The smallest width that LINEAR allows divides by nothing: below the centre 0, from it 1."""
    assert windowed(np.array([99.0, 100.0]), Window(100, 1)).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    "window", [Window(0, 0), Window(0, 0.5), Window(0, 0, "SIGMOID"), Window(0, -1, "LINEAR_EXACT"), Window(0, np.nan)]
)
def test_window_without_width_is_refused(window: Window) -> None:
    """A width without meaning is an error with its place, not a division by zero."""
    refused("bad-tag", radiograph(RAMP8), "(0028,1051) WindowWidth", window=window)


def test_first_of_several_windows_counts() -> None:
    """Several windows are alternatives; the first is what a viewer shows first."""
    dataset = radiograph(NOISE, WindowCenter=[1000, 30000], WindowWidth=[500, 60000])
    assert file_window(dataset) == Window(1000.0, 500.0)
    assert (shown(dataset) == shown(radiograph(NOISE, WindowCenter=1000, WindowWidth=500))).all()


def test_windows_function_is_taken_from_the_file() -> None:
    """VOI LUT Function chooses the formula."""
    dataset = radiograph(NOISE, WindowCenter=30000, WindowWidth=20000, VOILUTFunction="SIGMOID")
    assert file_window(dataset) == Window(30000.0, 20000.0, "SIGMOID")
    linear = radiograph(NOISE, WindowCenter=30000, WindowWidth=20000)
    assert (shown(dataset) != shown(linear)).any()


def test_center_without_width_is_an_error_with_its_place() -> None:
    """Half a window is not guessed to be none."""
    refused("bad-tag", radiograph(RAMP8, WindowCenter=5), "(0028,1051) WindowWidth")
    refused("bad-tag", radiograph(RAMP8, WindowWidth=5), "(0028,1050) WindowCenter")


def test_unknown_function_is_refused() -> None:
    """A VOI LUT Function that the standard does not know is not taken for LINEAR."""
    dataset = radiograph(RAMP8, WindowCenter=5, WindowWidth=5, VOILUTFunction="CUBIC")
    refused("unsupported", dataset, "(0028,1056) VOILUTFunction")


def test_callers_window_replaces_the_files() -> None:
    """The window of the request wins over window and LUT of the file."""
    dataset = radiograph(NOISE, WindowCenter=1000, WindowWidth=500)
    dataset.VOILUTSequence = [lut([0, 4095], 0, 12)]
    got = shown(dataset, window=Window(32768, 65536))
    assert (got == shown(radiograph(NOISE, WindowCenter=32768, WindowWidth=65536))).all()


def test_without_window_sixteen_bits_use_the_whole_scale() -> None:
    """An image of more than 8 bits without a window is spread from its smallest to its largest value."""
    pixels = np.array([[1000, 1500], [1750, 2000]], np.uint16)
    assert shown(radiograph(pixels)).tolist() == [[0, 128], [191, 255]]


def test_even_image_without_window_is_shown() -> None:
    """An image of one value is black or white somewhere in the range, not a division by zero."""
    assert shown(radiograph(np.full((4, 4), 900, np.uint16))).shape == (4, 4)


# ── modality and lookup tables ───────────────────────────────────────────────────────────────────────────────────────


def test_rescale_comes_before_the_window() -> None:
    """The window is in units after slope and intercept: hounsfield units of a signed image, say."""
    pixels = np.array([[-1000, 0], [40, 1000]], np.int16)
    dataset = radiograph(pixels, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=0, WindowWidth=4001)
    expected = np.floor((np.array([[-2100, -100], [-20, 1900]]) + 0.5).clip(-2000, 2000) / 4000 * 255 + 127.5 + 0.5)
    assert np.abs(shown(dataset).astype(int) - expected).max() <= 1


def test_intercept_alone_counts() -> None:
    """A file with an intercept and no slope is shifted: the missing slope is 1."""
    alone = radiograph(NOISE, RescaleIntercept=-1000, WindowCenter=0, WindowWidth=500)
    both = radiograph(NOISE, RescaleIntercept=-1000, RescaleSlope=1, WindowCenter=0, WindowWidth=500)
    assert (shown(alone) == shown(both)).all()


def test_negative_slope_inverts() -> None:
    """A negative slope turns the grey scale round also where no window is given."""
    pixels = np.array([[0, 100]], np.uint16)
    assert shown(radiograph(pixels, RescaleSlope=-1, RescaleIntercept=0)).tolist() == [[255, 0]]


def test_slope_of_zero_is_refused() -> None:
    """A slope of zero would make every picture even grey: it is an error."""
    refused("bad-tag", radiograph(NOISE, RescaleSlope=0, RescaleIntercept=0), "(0028,1053) RescaleSlope")


def test_modality_lut_replaces_rescale() -> None:
    """Values go through the modality LUT; those beyond its ends take its first and last entry."""
    dataset = radiograph(np.array([[0, 10], [11, 12], [13, 99]], np.uint16), WindowCenter=150, WindowWidth=300)
    dataset.ModalityLUTSequence = [lut([0, 100, 200, 299], 10, 16)]
    out = shown(dataset, window=Window(149.5, 299, "LINEAR_EXACT"))
    assert out.tolist() == [[0, 0], [85, 171], [255, 255]]


def test_voi_lut_is_preferred_to_the_window() -> None:
    """Where a file offers both, the LUT is shown: it is what the maker prepared for this image."""
    dataset = radiograph(np.array([[0, 1], [2, 3]], np.uint16), WindowCenter=5, WindowWidth=5)
    dataset.VOILUTSequence = [lut([0, 1023, 2047, 4095], 0, 12)]
    assert shown(dataset).tolist() == [[0, 64], [127, 255]]


def test_voi_lut_of_bytes() -> None:
    """A LUT of 8 bits may have one byte per entry."""
    dataset = radiograph(np.array([[0, 1], [2, 9]], np.uint16))
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [3, 0, 8])
    item.add_new("LUTData", "OW", b"\x05\x80\xff\x00")
    dataset.VOILUTSequence = [item]
    assert shown(dataset).tolist() == [[5, 128], [255, 255]]


@pytest.mark.parametrize("first", [-2, 65534])
def test_first_mapped_value_of_signed_input_is_signed(first: int) -> None:
    """The second value of a LUT descriptor is signed when the input is, whichever VR the file gives it."""
    dataset = radiograph(np.array([[-3, -2], [-1, 0]], np.int16))
    dataset.VOILUTSequence = [lut([0, 100, 255], first, 8)]
    assert shown(dataset).tolist() == [[0, 0], [100, 255]]


def test_descriptor_of_zero_entries_means_65536() -> None:
    """A LUT of 65,536 entries says 0, because the number does not fit."""
    dataset = radiograph(np.array([[0, 65535]], np.uint16))
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [0, 0, 16])
    item.add_new("LUTData", "OW", np.arange(65536, dtype="<u2").tobytes())
    dataset.VOILUTSequence = [item]
    assert shown(dataset).tolist() == [[0, 255]]


def test_short_lut_is_refused() -> None:
    """A LUT with fewer entries than it says is an error with its place."""
    dataset = radiograph(RAMP8)
    item = lut([0, 1], 0, 8)
    item.LUTDescriptor = [300, 0, 12]
    dataset.VOILUTSequence = [item]
    refused("bad-tag", dataset, "(0028,3006) LUTData")


def test_empty_lut_item_is_refused() -> None:
    """A LUT without descriptor is an error, whatever else the item holds."""
    dataset = radiograph(RAMP8)
    dataset.VOILUTSequence = [Dataset()]
    refused("bad-tag", dataset, "(0028,3002) LUTDescriptor")


# ── polarity, depth, padding ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", [None, "INVERSE", "IDENTITY"])
def test_monochrome1_is_inverted_once(shape: str | None) -> None:
    """MONOCHROME1 is inverted; the presentation LUT shape INVERSE, which goes with it, does not invert again."""
    dataset = radiograph(RAMP8, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape=shape)
    assert (shown(dataset) == 255 - RAMP8).all()


def test_signed_values_keep_their_order() -> None:
    """Negative stored values are darker than positive ones."""
    pixels = np.array([[-32768, -1], [0, 32767]], np.int16)
    assert shown(radiograph(pixels)).tolist() == [[0, 127], [128, 255]]


def test_signed_twelve_bits_are_sign_extended() -> None:
    """A signed value of 12 stored bits in 16 is negative when its own highest bit is set, whatever stands above."""
    cells = np.array([[0x0FFF, 0x0000], [0x07FF, 0x0800]], np.uint16)
    dataset = radiograph(cells, bits_stored=12, PixelRepresentation=1, WindowCenter=0, WindowWidth=4096)
    assert shown(dataset).tolist() == [[127, 128], [255, 0]]


def test_bits_above_the_stored_ones_are_no_part_of_the_value() -> None:
    """Old overlays in the high bits do not become bright pixels."""
    cells = np.array([[0x8000 | 100, 100], [0, 4095]], np.uint16)
    got = shown(radiograph(cells, bits_stored=12))
    assert got[0, 0] == got[0, 1]


def test_values_that_sit_high_in_their_cell_are_shifted() -> None:
    """High Bit 15 with 12 bits stored: the value is the upper 12 bits."""
    cells = (np.array([[0, 2048], [4095, 1024]], np.uint16) << 4) | 7
    dataset = radiograph(cells, bits_stored=12, HighBit=15, WindowCenter=2048, WindowWidth=4096)
    assert shown(dataset).tolist() == [[0, 128], [255, 64]]


def test_thirty_two_bits_are_shown() -> None:
    """32-bit values are computed without a table of all values."""
    pixels = np.array([[0, 1 << 30], [1 << 31, (1 << 32) - 1]], np.uint32)
    assert shown(radiograph(pixels)).tolist() == [[0, 64], [128, 255]]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_stretch_the_scale(photometric: str) -> None:
    """Padding is black in either polarity, and the automatic range leaves it out."""
    pixels = np.array([[0, 1000], [1500, 2000]], np.uint16)
    got = shown(radiograph(pixels, PhotometricInterpretation=photometric, PixelPaddingValue=0))
    assert got[0, 0] == 0
    assert sorted(got.ravel()[1:].tolist()) in ([0, 127, 255], [0, 128, 255])


def test_padding_range_is_padding_altogether() -> None:
    """With a range limit all values between the two are padding, in whichever order they are given."""
    pixels = np.array([[65000, 65535], [1000, 2000]], np.uint16)
    dataset = radiograph(pixels, PixelPaddingValue=65535, PixelPaddingRangeLimit=64000)
    assert shown(dataset).tolist() == [[0, 0], [0, 255]]


# ── colour ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_colour_becomes_luma() -> None:
    """Red, green and blue weigh 0.299, 0.587, 0.114."""
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    assert shown(radiograph(pixels)).tolist() == [[76, 150], [29, 255]]


def test_ybr_gives_the_picture_of_rgb() -> None:
    """Subsampled YBR and RGB of one picture agree within the loss of subsampling."""
    ybr, rgb = (shown_file(name) for name in ("SC_ybr_full_422_uncompressed.dcm", "SC_rgb_rle.dcm"))
    assert np.abs(ybr.astype(int) - rgb).mean() < 2


def test_palette_is_applied() -> None:
    """A palette image is shown by its colours, not by its indexes."""
    assert shown_file("examples_palette.dcm").shape == (350, 800)
    red = np.array([[0, 1], [2, 1]], np.uint8)
    dataset = radiograph(red, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [3, 0, 16])
        words = np.array([0, 0x8000, 0xFFFF], "<u2").tobytes()
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", words)
    assert shown(dataset).tolist() == [[0, 128], [255, 128]]


# ── transfer syntaxes ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_syntaxes_give_the_same_picture(syntax: UID, bits: int) -> None:
    """What was encoded without loss is shown as the uncompressed image is, in every depth."""
    dataset = radiograph((NOISE >> (16 - bits)).astype(np.uint8 if bits == 8 else np.uint16), bits_stored=bits)
    assert (shown(in_syntax(dataset, syntax)) == shown(dataset)).all()


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_lossless_syntaxes_keep_the_sign(syntax: UID) -> None:
    """Signed 16-bit values come back signed from every decoder."""
    dataset = radiograph(NOISE.astype(np.int16), WindowCenter=0, WindowWidth=65536)
    assert (shown(in_syntax(dataset, syntax)) == shown(dataset)).all()


@pytest.mark.parametrize(
    ("syntax", "options"),
    [
        (JPEGBaseline8Bit, {}),
        (JPEGExtended12Bit, {}),
        (JPEGLSNearLossless, {"jls_error": 2}),
        (JPEG2000, {"j2k_psnr": [60]}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_lossy_syntaxes_give_nearly_the_same_picture(syntax: UID, options: dict[str, Any]) -> None:
    """What was encoded with loss differs by little grey values."""
    dataset = radiograph(smooth())
    coded = in_syntax(dataset, JPEGBaseline8Bit if syntax == JPEGExtended12Bit else syntax, **options)
    coded.file_meta.TransferSyntaxUID = syntax  # A baseline stream is a valid 8-bit Extended one.
    assert np.abs(shown(coded).astype(int) - shown(dataset)).max() <= 4


@pytest.mark.parametrize("syntax", HTJ2K_SYNTAXES)
@pytest.mark.parametrize("pixels", [NOISE, (np.arange(40 * 48) % 251).astype(np.uint8).reshape(40, 48)])
def test_htj2k_gives_the_same_picture(syntax: UID, pixels: np.ndarray[Any, Any]) -> None:
    """A frame of OpenJPH, another maker's encoder, is shown as the native image is."""
    dataset = radiograph(pixels)
    assert (shown(in_htj2k(dataset, syntax)) == shown(dataset)).all()


def test_htj2k_of_another_size_is_refused_before_decoding() -> None:
    """Its codestream says its size as any JPEG 2000 does."""
    dataset = in_htj2k(radiograph(NOISE), HTJ2K)
    dataset.Columns = 47
    refused("bad-tag", dataset, "(0028,0010) Rows")


def test_every_supported_syntax_is_tested() -> None:
    """The tests above cover what the package claims to support, no less."""
    lossy = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000}
    assert set(LOSSLESS) | lossy | set(HTJ2K_SYNTAXES) == SUPPORTED_TRANSFER_SYNTAXES


@pytest.mark.parametrize("number", [110, 111, 112])
def test_jpeg_xl_is_refused_by_name(number: int) -> None:
    """Lossless, recompressed and lossy JPEG XL have no decoder here, and say so."""
    dataset = radiograph(RAMP8)
    dataset.file_meta.TransferSyntaxUID = UID(f"1.2.840.10008.1.2.4.{number}")
    refused("unsupported", dataset, "(0002,0010) TransferSyntaxUID")
    with pytest.raises(InvalidDicom, match="JPEG XL"):
        grey8(dataset)


def test_unsupported_syntax_is_named_by_its_place() -> None:
    """A syntax without decoder (here: MPEG-4) is an error, before anything is decoded."""
    dataset = radiograph(RAMP8)
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")
    refused("unsupported", dataset, "(0002,0010) TransferSyntaxUID")


def test_twelve_bit_jpeg_is_refused() -> None:
    """12-bit JPEG Extended has no free decoder here, and says so instead of showing noise."""
    refused("unsupported", read(shipped("JPGExtended.dcm")), "(0002,0010) TransferSyntaxUID")


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLossless, JPEGLSLossless, JPEG2000Lossless])
def test_picture_of_another_size_is_refused_before_decoding(syntax: UID) -> None:
    """A codestream that says another size than the header is an error, so that no decoder reserves memory for it."""
    dataset = in_syntax(radiograph(smooth()), syntax)
    dataset.Rows = 63
    refused("bad-tag", dataset, "(0028,0010) Rows")


# ── broken files ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_missing_pixels_are_said() -> None:
    """A structured report has no pixels, and the error is exactly that."""
    refused("no-pixels", read(shipped("test-SR.dcm")), "(7FE0,0010) PixelData")


def test_short_pixels_are_truncated() -> None:
    """Pixel data shorter than the header requires is truncated, not padded."""
    refused("truncated", read(shipped("MR_truncated.dcm")), "(7FE0,0010) PixelData")


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel"])
@pytest.mark.parametrize("value", [None, 0])
def test_missing_or_zero_attribute_is_named(keyword: str, value: int | None) -> None:
    """Each attribute that the pixels cannot be understood without is named when it is missing or 0."""
    dataset = radiograph(RAMP8)
    dataset.pop(keyword)
    if value is not None:
        setattr(dataset, keyword, value)
    with pytest.raises(InvalidDicom) as caught:
        grey8(dataset)
    assert caught.value.code == "bad-tag"
    assert caught.value.place is not None
    assert caught.value.place.endswith(keyword)


@pytest.mark.parametrize(
    ("tags", "code", "place"),
    [
        ({"PhotometricInterpretation": None}, "unsupported", "(0028,0004) PhotometricInterpretation"),
        ({"PhotometricInterpretation": "ARGB"}, "unsupported", "(0028,0004) PhotometricInterpretation"),
        ({"SamplesPerPixel": 3}, "bad-tag", "(0028,0002) SamplesPerPixel"),
        ({"BitsStored": 12}, "bad-tag", "(0028,0101) BitsStored"),
        ({"BitsAllocated": 12}, "unsupported", "(0028,0100) BitsAllocated"),
        ({"NumberOfFrames": -1}, "bad-tag", "(0028,0008) NumberOfFrames"),
        ({"Rows": 60000, "Columns": 60000}, "too-large", "(0028,0010) Rows"),
    ],
)
def test_wrong_attributes_are_named(tags: dict[str, Any], code: str, place: str) -> None:
    """Attributes that contradict each other, or the limits, are errors with their place."""
    refused(code, radiograph(RAMP8, **tags), place)


def test_frame_that_is_not_there_is_refused() -> None:
    """Asking for a frame beyond the last is an error."""
    refused("bad-tag", radiograph(RAMP8), "(0028,0008) NumberOfFrames", frame=1)


def test_second_frame_is_the_second() -> None:
    """Frames are counted from 0 in the order of the file."""
    pixels = np.stack([RAMP8, 255 - RAMP8])
    dataset = radiograph(RAMP8, NumberOfFrames=2)
    dataset.PixelData = pixels.tobytes()
    assert (grey8(dataset, frame=1) == 255 - RAMP8).all()


def test_pixel_limit_holds() -> None:
    """More pixels than the limit are refused although they are all there."""
    refused("too-large", radiograph(RAMP8), "(0028,0010) Rows", limits=Limits(pixels=255))


# ── PNG ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_png_is_the_picture() -> None:
    """The PNG holds exactly the 8-bit picture."""
    image = Image.open(io.BytesIO(render_png(radiograph(RAMP8))))
    assert image.mode == "L"
    assert (np.asarray(image) == RAMP8).all()


def test_png_is_windowed_inverted_and_small() -> None:
    """Window, inversion and size of the request take effect; the proportions stay."""
    dataset = radiograph(np.tile(RAMP8, (2, 4)))
    image = Image.open(io.BytesIO(render_png(dataset, Window(64, 128), max_side=32)))
    assert image.size == (32, 16)
    plain, inverted = (
        np.asarray(Image.open(io.BytesIO(render_png(dataset, Window(64, 128), invert=flag)))) for flag in (False, True)
    )
    assert (plain + inverted == 255).all()
    assert (plain[-1] == 255).all()


# ── files of others ──────────────────────────────────────────────────────────────────────────────────────────────────


def shipped(name: str) -> Path:
    """One of the files that pydicom ships."""
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path)


def shown_file(name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The picture of one of the files that pydicom ships."""
    return grey8(read(shipped(name)))


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ],
)
def test_one_scan_in_several_syntaxes_is_one_picture(name: str) -> None:
    """Pydicom ships one scan in several encodings; all are shown alike."""
    assert (shown_file(name) == shown_file("MR_small.dcm")).all()


@pytest.mark.skipif("INLAY_TEST_DATA" not in os.environ, reason="INLAY_TEST_DATA is not set")
def test_chest_films_of_many_makers_have_dark_lungs_or_say_why_not() -> None:
    """Films in either polarity come out with bright mediastinum beside dark lungs; the broken one is undecodable."""
    folder = Path(os.environ["INLAY_TEST_DATA"]) / "dicom"
    for path in sorted(folder.glob("*.dcm")):
        if path.name == "pylibjpeg-data__966.dcm":
            refused("undecodable", read(path), "(7FE0,0010) PixelData")
            continue
        picture = grey8(read(path))
        assert picture.std() > 20
        if "highdicom" not in path.name:  # That one is a dog from the side.
            rows = picture[picture.shape[0] // 4 : picture.shape[0] // 3]
            width = picture.shape[1]
            middle = rows[:, width * 9 // 20 : width * 11 // 20].mean()
            right_lung = rows[:, width * 5 // 20 : width * 7 // 20].mean()
            assert middle > right_lung + 20
