"""Reading DICOM Part 10 files within limits: whole datasets, and headers without pixels.

Whatever the bytes are, the answer is a dataset or an `InvalidDicom` that names the place, and no other exception.
Reference: DICOM PS3.10 section 7 (file format), PS3.5 sections 7 (data elements) and A.4 (encapsulated pixel data).
"""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import pydicom
from pydicom.datadict import dictionary_keyword, tag_for_keyword
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pydicom.valuerep import PersonName

from inlay_dicom.errors import InvalidDicom

# pydicom quotes values (a patient's name, say) in what it logs and warns of. Our own errors name the place instead.
_PYDICOM_LOG = logging.getLogger("pydicom")
_PYDICOM_LOG.addHandler(logging.NullHandler())
_PYDICOM_LOG.propagate = False
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
ITEM: Final = (0xFFFE, 0xE000)
# These value representations have two reserved bytes and a length of four (PS3.5 7.1.2).
LONG_VRS: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SEQUENCE_END: Final = (0xFFFE, 0xE0DD)
PIXEL_DATA: Final = (0x7FE0, 0x0010)
FLOAT_PIXEL_DATA: Final = frozenset({(0x7FE0, 0x0008), (0x7FE0, 0x0009)})
# IHE IOCM marks images as rejected by a Key Object Selection whose title is one of these codes (PS3.16 CID 7011).
KEY_OBJECT_SELECTION: Final = "1.2.840.10008.5.1.4.1.1.88.59"
REJECTION_TITLES: Final = frozenset({"113001", "113037", "113038", "113039"})
PHANTOM_MODEL_NAME: Final = "Inlay Phantom"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may cost. The largest radiographs (digitised film, 2 bytes, 5,000 x 6,000) are about 60 MB."""

    file_bytes: int = 256 * 1024 * 1024
    pixels: int = 64 * 1024 * 1024


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Header:
    """The facts of one file that choosing an image and recognising a phantom need.

    Texts are stripped, upper-case where the standard defines terms, empty where the file has none; numbers are 0 then.
    `complete` is false while the file ends before its pixel data does (it is still being written, or broken off).
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    accession_number: str
    modality: str
    view_position: str
    view_codes: tuple[str, ...]
    patient_orientation: tuple[str, ...]
    photometric: str
    body_part: str
    laterality: str
    image_type: tuple[str, ...]
    model_name: str
    presentation_intent: str
    quality_control: bool
    acquired: str
    series_number: int
    instance_number: int
    rows: int
    columns: int
    frames: int
    transfer_syntax: str
    rejects: tuple[str, ...]
    has_pixels: bool
    complete: bool

    @property
    def is_phantom(self) -> bool:
        """Whether the header says that a phantom of Inlay's own renderer is shown, and no person."""
        return self.model_name == PHANTOM_MODEL_NAME and "PHANTOM" in self.image_type


def place_of(keyword: str) -> str:
    """An attribute as "(gggg,eeee) Keyword", the way errors name it."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        return keyword
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {dictionary_keyword(tag)}"


def read(source: bytes | Path, limits: Limits = DEFAULT_LIMITS) -> Dataset:
    """The whole dataset of a Part 10 file, pixel data included but not decoded.

    Raises `InvalidDicom`: not-dicom, truncated, too-large.
    """
    if isinstance(source, Path):
        if _size(source) > limits.file_bytes:
            raise _too_large(limits)
        source = source.read_bytes()
    if len(source) > limits.file_bytes:
        raise _too_large(limits)
    refuse_unless_part10(source[:132], len(source))
    file = io.BytesIO(source)
    _refuse_bomb(file, limits)
    return _parse(file, stop_before_pixels=False)


def read_header(path: Path, limits: Limits = DEFAULT_LIMITS) -> Header:
    """The facts of one file, without reading its pixels. Raises `InvalidDicom` as `read` does, and `OSError`."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        if size > limits.file_bytes:
            raise _too_large(limits)
        file.seek(0)
        refuse_unless_part10(file.read(132), size)
        file.seek(0)
        return header_from(file, limits)


def header_from(file: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> Header:
    """As `read_header`, of an open file that stands at its beginning."""
    try:
        _refuse_bomb(file, limits)
    except InvalidDicom as problem:
        if problem.code != "truncated":
            raise
        return header_of(Dataset(), has_pixels=False, complete=False)
    dataset = _parse(file, stop_before_pixels=True)
    if _transfer_syntax(dataset) == DeflatedExplicitVRLittleEndian:
        # The inflated stream had an end; whether pixels were in it is found out when they are asked for.
        return header_of(dataset, has_pixels=number_of(dataset, "Rows") > 0)
    has_pixels, complete = _pixel_extent(file, dataset)
    return header_of(dataset, has_pixels=has_pixels, complete=complete)


def header_of(dataset: Dataset, *, has_pixels: bool | None = None, complete: bool = True) -> Header:
    """The facts of a dataset that has been read. A value that cannot be read counts as absent."""
    return Header(
        sop_class_uid=text_of(dataset, "SOPClassUID"),
        sop_instance_uid=text_of(dataset, "SOPInstanceUID"),
        study_instance_uid=text_of(dataset, "StudyInstanceUID"),
        series_instance_uid=text_of(dataset, "SeriesInstanceUID"),
        accession_number=text_of(dataset, "AccessionNumber"),
        modality=text_of(dataset, "Modality").upper(),
        view_position=text_of(dataset, "ViewPosition").upper(),
        view_codes=tuple(text_of(item, "CodeValue") for item in items_of(dataset, "ViewCodeSequence")),
        patient_orientation=tuple(value.upper() for value in texts_of(dataset, "PatientOrientation")),
        photometric=text_of(dataset, "PhotometricInterpretation").upper(),
        body_part=text_of(dataset, "BodyPartExamined").upper(),
        laterality=(text_of(dataset, "ImageLaterality") or text_of(dataset, "Laterality")).upper(),
        image_type=tuple(value.upper() for value in texts_of(dataset, "ImageType")),
        model_name=text_of(dataset, "ManufacturerModelName"),
        presentation_intent=text_of(dataset, "PresentationIntentType").upper(),
        quality_control=text_of(dataset, "QualityControlImage").upper() == "YES",
        acquired=_acquired(dataset),
        series_number=number_of(dataset, "SeriesNumber"),
        instance_number=number_of(dataset, "InstanceNumber"),
        rows=number_of(dataset, "Rows"),
        columns=number_of(dataset, "Columns"),
        frames=number_of(dataset, "NumberOfFrames") or 1,
        transfer_syntax=_transfer_syntax(dataset),
        rejects=rejected_by(dataset),
        has_pixels="PixelData" in dataset if has_pixels is None else has_pixels,
        complete=complete,
    )


def rejected_by(dataset: Dataset) -> tuple[str, ...]:
    """SOP Instance UIDs that this dataset, a rejection note (IHE IOCM), takes out of use; empty for anything else."""
    if text_of(dataset, "SOPClassUID") != KEY_OBJECT_SELECTION:
        return ()
    titles = {text_of(item, "CodeValue") for item in items_of(dataset, "ConceptNameCodeSequence")}
    if not titles & REJECTION_TITLES:
        return ()
    return tuple(
        text_of(instance, "ReferencedSOPInstanceUID")
        for study in items_of(dataset, "CurrentRequestedProcedureEvidenceSequence")
        for series in items_of(study, "ReferencedSeriesSequence")
        for instance in items_of(series, "ReferencedSOPSequence")
    )


def body_of(data: bytes) -> tuple[str, bytes]:
    """Transfer syntax and encoded dataset of a Part 10 file, without the file meta information."""
    syntax, offset = _meta(io.BytesIO(data))
    return syntax, data[offset:]


# ── parsing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parse(file: BinaryIO, *, stop_before_pixels: bool) -> FileDataset:
    try:
        dataset = pydicom.dcmread(file, stop_before_pixels=stop_before_pixels)
        # Values are converted when they are first looked at: a length that reaches beyond the file shows itself here.
        _ = dataset.file_meta.get("TransferSyntaxUID")
    except InvalidDicom:
        raise
    except Exception as problem:  # noqa: BLE001 - on garbage pydicom raises almost anything, RecursionError included.
        raise InvalidDicom("truncated", f"the data elements cannot be read ({type(problem).__name__})") from None
    if not _transfer_syntax(dataset):
        raise InvalidDicom("bad-tag", "missing, so the rest cannot be understood", place_of("TransferSyntaxUID"))
    return dataset


def refuse_unless_part10(start: bytes, size: int) -> None:
    """Raise `InvalidDicom` unless the first 132 bytes of a file of `size` bytes are those of PS3.10 section 7.1."""
    if size == 0:
        raise InvalidDicom("truncated", "the file is empty")
    if start[128:132] != b"DICM":
        raise InvalidDicom("not-dicom", "no DICM mark at offset 128: this is no DICOM Part 10 file")


def _refuse_bomb(file: BinaryIO, limits: Limits) -> None:
    """Raise unless a deflated dataset ends, and within the limit; other syntaxes pass. Leaves the file at its start."""
    syntax, offset = _meta(file)
    file.seek(0)
    if syntax != DeflatedExplicitVRLittleEndian:
        return
    file.seek(offset)
    deflated = file.read()
    file.seek(0)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflater.decompress(deflated, limits.file_bytes)
    except zlib.error:
        raise InvalidDicom("truncated", "the deflated dataset cannot be inflated") from None
    if inflater.unconsumed_tail:
        raise _too_large(limits)
    if not inflater.eof:
        raise InvalidDicom("truncated", "the deflated dataset breaks off")


def _meta(file: BinaryIO) -> tuple[str, int]:
    """Transfer syntax, and the offset of the dataset behind the file meta information (PS3.10 7.1: explicit little)."""
    file.seek(132)
    syntax, at = "", 132
    while len(head := file.read(8)) == 8 and head[:2] == b"\x02\x00":
        element, length = struct.unpack("<HxxH", head[2:])
        start = at + 8
        if head[4:6] in LONG_VRS:
            length, start = int.from_bytes(file.read(4), "little"), at + 12
        if element == 0x0010:
            syntax = file.read(min(length, 64)).decode("ascii", "replace").strip("\0 ")
        at = start + length
        file.seek(at)
    return syntax, at


def _pixel_extent(file: BinaryIO, dataset: Dataset) -> tuple[bool, bool]:
    """Whether the open file, which stands where parsing stopped, has pixel data, and has all of it."""
    start = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(start)
    implicit, little = dataset.original_encoding
    order = "<" if little is not False else ">"
    head = file.read(12 if not implicit else 8)
    if len(head) < 8:
        # Parsing came to the end. An image that says its size and has no pixels has been cut before them.
        return False, not number_of(dataset, "Rows")
    tag = struct.unpack(order + "HH", head[:4])
    if tag != PIXEL_DATA and tag not in FLOAT_PIXEL_DATA:
        return False, False
    if len(head) < (12 if not implicit else 8):
        return True, False
    length = struct.unpack(order + "L", head[4:] if implicit else head[8:])[0]
    if length != UNDEFINED_LENGTH:
        return True, file.tell() + length <= size
    return True, _fragments_end(file, order)


def _fragments_end(file: BinaryIO, order: str) -> bool:
    """Whether the encapsulated fragments that begin here (PS3.5 A.4) are followed by their delimiter."""
    while len(head := file.read(8)) == 8:
        group, element, length = struct.unpack(order + "HHL", head)
        if (group, element) == SEQUENCE_END:
            return True
        if (group, element) != ITEM or length == UNDEFINED_LENGTH:
            return False
        file.seek(length, io.SEEK_CUR)
    return False


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _value(dataset: Dataset, keyword: str) -> object:
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001 - a value is converted here for the first time; see `header_of`.
        return None


def texts_of(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of an attribute as stripped texts; none for one that is absent or cannot be read."""
    value = _value(dataset, keyword)
    # A file may say of any attribute that it is a sequence; the items of one are no texts, and may be unreadable.
    if value is None or isinstance(value, (bytes, Sequence)):
        return ()
    # A name is made of letters as a text is, and may be walked through like one.
    if isinstance(value, (str, PersonName)) or not isinstance(value, (MultiValue, Iterable)):
        return (str(value).strip(),)
    return tuple(str(one).strip() for one in value)


def text_of(dataset: Dataset, keyword: str) -> str:
    """The first value of an attribute, empty for one that is absent or cannot be read."""
    return next(iter(texts_of(dataset, keyword)), "")


def number_of(dataset: Dataset, keyword: str) -> int:
    """The first value of an attribute as a whole number, 0 for one that is absent or is none."""
    try:
        return int(float(text_of(dataset, keyword) or 0))
    except (ValueError, OverflowError):
        return 0


def items_of(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence; none where it is absent or cannot be read."""
    value = _value(dataset, keyword)
    if value is None or isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return ()
    return tuple(item for item in value if isinstance(item, Dataset))


def _acquired(dataset: Dataset) -> str:
    """Date and time of the exposure as sortable digits, from the first of the attributes that has one."""
    for date, time in (
        ("AcquisitionDate", "AcquisitionTime"),
        ("ContentDate", "ContentTime"),
        ("StudyDate", "StudyTime"),
    ):
        if day := text_of(dataset, date):
            return day + text_of(dataset, time)
    return ""


def _transfer_syntax(dataset: Dataset) -> str:
    meta = getattr(dataset, "file_meta", None)
    return text_of(meta, "TransferSyntaxUID") if isinstance(meta, Dataset) else ""


def _size(path: Path) -> int:
    return path.stat().st_size


def _too_large(limits: Limits) -> InvalidDicom:
    return InvalidDicom("too-large", f"more than {limits.file_bytes} bytes")
