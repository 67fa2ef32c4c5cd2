"""Made-up DICOM files for tests: small radiographs with the header, depth and transfer syntax that a test asks for."""

import copy
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    generate_uid,
)

NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
_FRAMES = Path(__file__).parents[2] / "data" / "dicom"
PHANTOM_TAGS: dict[str, Any] = {
    "Manufacturer": "Inlay",
    "ManufacturerModelName": "Inlay Phantom",
    "ImageType": ["DERIVED", "SECONDARY", "PHANTOM"],
}


def radiograph(pixels: NDArray[Any], *, bits_stored: int | None = None, **attributes: Any) -> Dataset:
    """A DX dataset of uint or int pixels (rows, columns) or uint8 colour (rows, columns, 3), explicit little endian.

    `attributes` are set by keyword; None leaves one out.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    colour = pixels.ndim == 3
    bits = pixels.dtype.itemsize * 8
    values: dict[str, Any] = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "AccessionNumber": "A1",
        "Modality": "DX",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "ViewPosition": "PA",
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits_stored or bits,
        "HighBit": (bits_stored or bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    } | attributes
    if colour:
        dataset.PlanarConfiguration = 0
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    return dataset


def file_bytes(dataset: Dataset) -> bytes:
    """The Part 10 file of a dataset, in its transfer syntax."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == ExplicitVRBigEndian and dataset.BitsAllocated > 8:
        dataset = copy.deepcopy(dataset)
        dataset.PixelData = np.frombuffer(dataset.PixelData, f"<u{dataset.BitsAllocated // 8}").byteswap().tobytes()
    out = io.BytesIO()
    little = syntax != ExplicitVRBigEndian
    dcmwrite(
        out,
        dataset,
        enforce_file_format=True,
        **({} if little else {"little_endian": False, "implicit_vr": False}),
    )
    return out.getvalue()


def in_syntax(dataset: Dataset, syntax: UID, **options: Any) -> Dataset:
    """The same image in another transfer syntax, by Pillow (JPEG), by hand (JPEG lossless) or pydicom's plugins."""
    dataset = copy.deepcopy(dataset)
    if syntax in NATIVE:
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax == JPEGBaseline8Bit:
        _with_frame(dataset, syntax, _jpeg(dataset))
    elif syntax in (JPEGLossless, JPEGLosslessSV1):
        _with_frame(dataset, syntax, _lossless_jpeg(dataset))
    else:
        dataset.compress(syntax, generate_instance_uid=False, **options)
    return dataset


def in_htj2k(dataset: Dataset, syntax: UID) -> Dataset:
    """An image of 40 by 48 in HTJ2K; its frame is one of tests/data/dicom, since nothing here can encode it."""
    dataset = copy.deepcopy(dataset)
    _with_frame(dataset, syntax, (_FRAMES / f"htj2k-{dataset.BitsAllocated}-bits.j2c").read_bytes())
    return dataset


def _with_frame(dataset: Dataset, syntax: UID, frame: bytes) -> None:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def _jpeg(dataset: Dataset) -> bytes:
    pixels = np.frombuffer(dataset.PixelData, np.uint8)[: dataset.Rows * dataset.Columns]
    out = io.BytesIO()
    Image.fromarray(pixels.reshape(dataset.Rows, dataset.Columns)).save(out, "JPEG", quality=95)
    return out.getvalue()


def _lossless_jpeg(dataset: Dataset) -> bytes:
    """JPEG lossless, first-order prediction (ISO 10918-1 annex H), every category with a code of five bits.

    Written out here because GDCM's encoder, called from Python, ends the process now and then.
    """
    bits = dataset.BitsStored
    kind = np.uint16 if dataset.BitsAllocated == 16 else np.uint8
    rows, columns = dataset.Rows, dataset.Columns
    pixels = np.frombuffer(dataset.PixelData, kind)[: rows * columns].reshape(rows, columns).astype(np.int64)
    before = np.empty_like(pixels)
    before[:, 1:] = pixels[:, :-1]
    before[1:, 0] = pixels[:-1, 0]
    before[0, 0] = 1 << (bits - 1)
    scan = "".join(_difference(int(d)) for d in ((pixels - before + 32767) % 65536 - 32767).ravel())
    scan += "1" * (-len(scan) % 8)
    data = bytes(int(scan[i : i + 8], 2) for i in range(0, len(scan), 8)).replace(b"\xff", b"\xff\x00")
    frame = b"\xff\xc3" + struct.pack(">HBHHB3B", 11, bits, rows, columns, 1, 1, 0x11, 0)
    table = b"\xff\xc4" + struct.pack(">HB16B", 2 + 17 + 17, 0, 0, 0, 0, 0, 17, *[0] * 11) + bytes(range(17))
    start = b"\xff\xda" + struct.pack(">HB2B3B", 8, 1, 1, 0, 1, 0, 0)
    return b"\xff\xd8" + frame + table + start + data + b"\xff\xd9"


def _difference(value: int) -> str:
    category = abs(value).bit_length()
    code = f"{category:05b}"
    if category in (0, 16):
        return code
    extra = value if value > 0 else value + (1 << category) - 1
    return code + f"{extra:0{category}b}"
