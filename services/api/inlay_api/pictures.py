"""The image of a study as a PNG, windowed by the server, so that a browser needs no DICOM."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flask import Response, request

from inlay_api.answers import not_modified
from inlay_api.bodies import whole_number
from inlay_api.conditions import content_tag, is_known
from inlay_api.desk import Desk
from inlay_api.problems import bad_request
from inlay_api.routes import Query
from inlay_core.application.ports import ImageRef
from inlay_core.domain.errors import Conflict, NotFound, Unavailable
from inlay_core.domain.order import Order

if TYPE_CHECKING:
    from inlay_dicom.pixels import Window

# A screen shows no more, and a film of 4000 pixels takes a second to send.
DEFAULT_SIDE: Final = 1024
MAX_VIEWS: Final = 100
PICTURE_QUERY: Final = (
    Query("view", "Which image of the study, the frontal one is 0.", {"type": "integer", "minimum": 0}),
    Query("center", "Centre of the window, with width.", {"type": "number"}),
    Query("width", "Width of the window, at least 1.", {"type": "number", "minimum": 1}),
    Query("invert", "Black for white.", {"type": "boolean"}),
    Query("max_side", "Longest side in pixels.", {"type": "integer", "minimum": 16, "maximum": 4096}),
)
# Rendering takes a fraction of a second; whoever waits longer asks again.
_PATIENCE_SECONDS: Final = 5.0


class StudyNumbers(NamedTuple):
    """What the images of a study are found by."""

    study_instance_uid: str | None
    accession_number: str | None

    @classmethod
    def of(cls, order: Order) -> StudyNumbers:
        """The study of an order."""
        return cls(order.study_instance_uid, order.accession_number)


def picture(desk: Desk, study: StudyNumbers, asked: Mapping[str, str]) -> Response:
    """The PNG, or 304. Raises NotFound while there is no image, Conflict for one that cannot be shown."""
    view = whole_number(asked.get("view"), "view", 0, MAX_VIEWS, 0)
    side = whole_number(asked.get("max_side"), "max_side", 16, 4096, DEFAULT_SIDE)
    window, invert = _window(asked), _flag(asked.get("invert"))
    refs = desk.images().find(*study)
    if len(refs) <= view:
        raise NotFound("no-image", "The study has no such image (yet).", "view")
    # Other pixels have another SOP instance UID (PS3.3 C.12.1.1).
    tag = content_tag(repr((refs[view].sop_instance_uid, side, window, invert)).encode())
    if is_known(request, tag):
        return not_modified(tag)
    png = _rendered(desk, refs[view], window, side, invert=invert)
    answer = Response(png, content_type="image/png")
    answer.headers["ETag"] = tag
    return answer


def descriptions(desk: Desk, study: StudyNumbers) -> list[dict[str, Any]]:
    """What each image of the study says about itself. Raises Conflict for one that cannot be read."""
    refs = desk.images().find(*study)
    return [_description(desk, number, ref) for number, ref in enumerate(refs[:MAX_VIEWS])]


def _description(desk: Desk, number: int, ref: ImageRef) -> dict[str, Any]:
    from inlay_dicom.dataset import read
    from inlay_dicom.errors import InvalidDicom
    from inlay_dicom.pixels import geometry

    with _rendering(desk):
        try:
            shape = geometry(read(desk.images().load(ref)))
        except InvalidDicom as problem:
            raise Conflict(f"image-{problem.code}", "The image of the study cannot be shown.", problem.place) from None
    return {
        "view": number,
        "modality": ref.modality or None,
        "view_position": ref.view_position or None,
        "laterality": shape.laterality or None,
        "rows": shape.rows,
        "columns": shape.columns,
        "orientation": list(shape.orientation),
        "spacing_mm": None if shape.spacing_mm is None else list(shape.spacing_mm),
        "window": {"center": shape.window.center, "width": shape.window.width},
    }


@contextmanager
def _rendering(desk: Desk) -> Iterator[None]:
    if not desk.renderings.acquire(timeout=_PATIENCE_SECONDS):
        raise Unavailable("busy", "Too many images are being rendered.")
    try:
        yield
    finally:
        desk.renderings.release()


def _rendered(desk: Desk, ref: ImageRef, window: tuple[float, float] | None, side: int, *, invert: bool) -> bytes:
    # These take a third of a second to import, and only pictures need them.
    from inlay_dicom.dataset import read
    from inlay_dicom.errors import InvalidDicom
    from inlay_dicom.pixels import Window, render_png

    chosen: Window | None = Window(*window) if window else None
    with _rendering(desk):
        try:
            return render_png(read(desk.images().load(ref)), chosen, invert=invert, max_side=side)
        except InvalidDicom as problem:
            # The request is right; what the study holds cannot be shown.
            raise Conflict(f"image-{problem.code}", "The image of the study cannot be shown.", problem.place) from None


def _window(asked: Mapping[str, str]) -> tuple[float, float] | None:
    if "center" not in asked and "width" not in asked:
        return None
    center, width = _number(asked.get("center"), "center"), _number(asked.get("width"), "width")
    if width < 1:
        raise bad_request("A window is at least 1 wide.", "width", "bad-number")
    return center, width


def _number(text: str | None, place: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) > 1e9:
        raise bad_request("A window has a centre and a width, both numbers.", place, "bad-number")
    return number


def _flag(text: str | None) -> bool:
    if text not in (None, "true", "false", "1", "0"):
        raise bad_request("Expected true or false.", "invert")
    return text in ("true", "1")
