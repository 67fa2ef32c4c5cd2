"""What a caller gives as an image, as an 8-bit picture: what is no radiograph-like array is refused by name."""

import numpy as np
from PIL import Image

from inlay_model.errors import BadImage

RadiographLike = Image.Image | np.ndarray
# Modes of Pillow that it would cut off at 255 instead of scaling them.
DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
_ROWS_COLUMNS = 2
# One patch of the image encoder: what is smaller is a single colour to it.
_SMALLEST = 16
_WINDOW = "Window the pixels to 8 bits, as rows x columns of uint8."


def as_picture(image: RadiographLike) -> Image.Image:
    """A grey or RGB picture of 8 bits; raises `BadImage` for anything else, for what is too small or shows nothing."""
    if isinstance(image, Image.Image):
        if image.mode in DEEP:
            raise BadImage(f"The picture has more than 8 bits a pixel (mode {image.mode}). {_WINDOW}")
        picture = _converted(image)
    elif not isinstance(image, np.ndarray):
        raise BadImage(f"An image is an array or a picture, and not {type(image).__name__}. {_WINDOW}")
    elif image.dtype != np.uint8 or image.ndim != _ROWS_COLUMNS:
        raise BadImage(
            f"An image must be rows x columns of 8 bits; this one is {image.shape} of {image.dtype}. {_WINDOW}"
        )
    else:
        picture = Image.fromarray(image) if image.size else Image.new("L", (0, 0))
    if min(picture.size) < _SMALLEST:
        raise BadImage(
            f"An image needs at least {_SMALLEST} rows and columns; this one has {picture.height} x {picture.width}."
        )
    # Of each band the least and the largest value.
    if all(low == high for low, high in np.reshape(picture.getextrema(), (-1, 2))):
        raise BadImage(
            "An image needs contrast; this one has the same value everywhere. It was not exposed, or its window lies "
            "beside its values. Send the image itself, or mend its window."
        )
    return picture


def _converted(image: Image.Image) -> Image.Image:
    try:
        # Pictures are read from their files only now.
        image.load()
        return image if image.mode in {"L", "RGB"} else image.convert("RGB")
    except (OSError, SyntaxError) as problem:
        raise BadImage(f"The picture cannot be decoded ({type(problem).__name__}): is its file cut short?") from None
