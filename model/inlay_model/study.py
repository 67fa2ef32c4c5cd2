"""Pictures for the command line: an image file, or a DICOM file made 8 bits by its modality and VOI LUT.

The worker has its own, complete image path; this one is for trying the model on a file, and keeps the same rule that
the demonstration checkpoint sees phantoms only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from inlay_model.errors import BadImage, NotAPhantom
from inlay_model.pixels import DEEP

PHANTOM_MODEL_NAME = "Inlay Phantom"
_DICOM_MAGIC = (128, b"DICM")


@dataclass(frozen=True, slots=True)
class Picture:
    """An 8-bit picture, and whether its DICOM header says that it shows a synthetic phantom."""

    image: Image.Image
    is_phantom: bool


def read_picture(path: Path) -> Picture:
    """Read a DICOM or image file; raises `BadImage` where there is none, it is damaged, or it holds no picture.

    More than 8 bits are spread over the image's own range, as those of a DICOM file without a window are.
    """
    try:
        dicom = is_dicom(path)
    except OSError as problem:
        raise BadImage(f"{path} cannot be read ({type(problem).__name__}). Name a DICOM file or picture.") from problem
    try:
        return _read_dicom(path) if dicom else _read_plain(path)
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError as problem:
        raise BadImage(f"{path} is neither a DICOM file nor a picture. Convert it to DICOM or PNG.") from problem
    except Exception as problem:
        # pydicom, Pillow and numpy raise whatever a damaged header leads them to.
        what = "has no pixels that can be read" if dicom else "is no picture that can be read"
        remedy = "not compressed or by a syntax for which pydicom has a decoder here" if dicom else "as PNG"
        raise BadImage(
            f"{path} {what} ({type(problem).__name__}). Copy it again if it is damaged, or export one image, {remedy}."
        ) from problem


def refuse_foreign(pictures: list[Picture], *, demonstration: bool, allowed: bool) -> None:
    """Raise `NotAPhantom` where the demonstration checkpoint would see anything but phantoms."""
    if demonstration and not allowed and not all(picture.is_phantom for picture in pictures):
        raise NotAPhantom(
            "The demonstration checkpoint knows synthetic phantoms only, and this is none (no DICOM header says so). "
            "--demo-model-on-any-study overrides this; what it writes then means nothing."
        )


def is_dicom(path: Path) -> bool:
    """Whether the file has the DICOM preamble."""
    offset, magic = _DICOM_MAGIC
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(len(magic)) == magic


def _read_plain(path: Path) -> Picture:
    with Image.open(path) as image:
        if image.mode in DEEP:
            values = np.asarray(image, np.float32)
            shown = Image.fromarray(_spread(values, float(values.min()), float(values.max())))
        else:
            shown = image.convert("L" if image.mode in {"1", "L"} else "RGB")
        return Picture(shown, is_phantom=False)


def _read_dicom(path: Path) -> Picture:
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut

    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array
    if stored.ndim != 2:
        raise BadImage(f"{path} has {stored.ndim} dimensions; one grey frame is needed. Export a single one.")
    grey = _grey(np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32), dataset)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        grey = 255 - grey
    return Picture(Image.fromarray(grey), is_phantom=says_phantom(dataset))


def says_phantom(dataset: Any) -> bool:
    """Whether the header marks an image of Inlay's own phantom generator."""
    kinds = dataset.get("ImageType") or ()
    return dataset.get("ManufacturerModelName") == PHANTOM_MODEL_NAME and "PHANTOM" in kinds


def _grey(values: np.ndarray, dataset: Any) -> np.ndarray:
    """Eight bits by VOI LUT, else by the first window (PS3.3 C.11.2.1.2.1), else over the image's own range."""
    if "VOILUTSequence" in dataset:
        from pydicom.pixels.processing import apply_voi_lut

        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return _spread(np.asarray(apply_voi_lut(values.astype(np.int64), dataset), np.float32), 0, 2**bits - 1)
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        centre, width = (float(_first(dataset[name].value)) for name in ("WindowCenter", "WindowWidth"))
        return _spread(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    return _spread(values, float(values.min()), float(values.max()))


def _first(value: Any) -> Any:
    return value[0] if hasattr(value, "__getitem__") else value


def _spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scale = 255.0 / max(high - low, 1e-6)
    return np.clip(np.rint((values - low) * scale), 0, 255).astype(np.uint8)
