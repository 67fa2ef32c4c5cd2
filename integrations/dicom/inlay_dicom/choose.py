"""Which image of a study a report is drafted from: the frontal view of the patient, as it was meant to be read.

Pure functions of headers. What is skipped, and why, is one function; what comes first is one key.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from inlay_dicom.dataset import Header

# PS3.3 C.8.7.1.1.1 and C.8.11.7.1.1: posterior to anterior and back; LL, RL, LLD.. are laterals; the rest is oblique.
_PA: Final = frozenset({"PA"})
_AP: Final = frozenset({"AP"})
_LATERAL: Final = frozenset({"LATERAL", "LAT", "LL", "RL", "LLD", "RLD"})
# PS3.16 CID 4010, SNOMED-RT as older systems write it and SNOMED CT.
_VIEW_CODES: Final = {
    "R-10214": "PA",
    "272479007": "PA",
    "R-10206": "AP",
    "399348003": "AP",
    "R-10228": "LATERAL",
    "399067008": "LATERAL",
    "R-10236": "LATERAL",
    "399173006": "LATERAL",
    "R-10232": "LATERAL",
    "399198007": "LATERAL",
}
# What stands in for an image in a study: reports, presentation states, key objects, encapsulated documents.
NO_IMAGES: Final = frozenset({"SR", "PR", "KO", "DOC", "REG", "SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "AU", "ECG"})
_FOR_PROCESSING: Final = "FOR PROCESSING"


class View(StrEnum):
    """How the beam passed through the patient, as far as drafting cares."""

    PA = "pa"
    AP = "ap"
    FRONTAL = "frontal"
    UNKNOWN = "unknown"
    LATERAL = "lateral"
    OTHER = "other"

    @property
    def is_frontal(self) -> bool:
        """Whether heart and both lungs are seen side by side."""
        return self in (View.PA, View.AP, View.FRONTAL)

    @property
    def side(self) -> str:
        """From where the patient is seen: exposures of one side show the same. Empty where nobody said."""
        if self is View.UNKNOWN:
            return ""
        return "frontal" if self.is_frontal else str(self)


# PA first: the heart is seen in its true size. A view nobody stated is more often frontal than not.
_VIEW_ORDER: Final = (View.PA, View.AP, View.FRONTAL, View.UNKNOWN, View.LATERAL, View.OTHER)


def view_of(header: Header) -> View:
    """The view by View Position, else by its code, else by which way rows and columns point in the patient."""
    stated = header.view_position or next((_VIEW_CODES[c] for c in header.view_codes if c in _VIEW_CODES), "")
    if stated in _PA:
        return View.PA
    if stated in _AP:
        return View.AP
    if stated in _LATERAL:
        return View.LATERAL
    if stated:
        return View.OTHER
    if len(header.patient_orientation) != 2:
        return View.UNKNOWN
    return _view_by_orientation(header.patient_orientation[0], header.patient_orientation[1])


def _view_by_orientation(along_row: str, along_column: str) -> View:
    # Only the first letter: "LF" is left with a little towards the feet (PS3.3 C.7.6.1.1.1).
    ends = {along_row[:1], along_column[:1]}
    if ends <= {"L", "R", "H", "F"} and ends & {"L", "R"} and ends & {"H", "F"}:
        return View.FRONTAL
    if ends <= {"A", "P", "H", "F"} and ends & {"A", "P"} and ends & {"H", "F"}:
        return View.LATERAL
    return View.OTHER


def skip_reason(header: Header, rejected: frozenset[str] = frozenset()) -> str | None:
    r"""Why an object of the study is not drafted from, None where it may be.

    `rejected` are the SOP Instance UIDs named by rejection notes. A phantom is computed, hence DERIVED, and is kept.
    DERIVED\PRIMARY is kept as well: every film that was compressed with loss, or cropped, must call itself so.
    """
    if not header.has_pixels or header.modality in NO_IMAGES:
        return "no image"
    if header.sop_instance_uid in rejected:
        return "rejected"
    if header.quality_control:
        return "quality control image"
    if "LOCALIZER" in header.image_type:
        return "localiser"
    if header.is_phantom:
        return None
    # PS3.3 C.7.6.1.1.2: made after the examination, for instance a screen shot, a dose page, a film with arrows on it.
    if header.image_type[1:2] == ("SECONDARY",):
        return "secondary"
    return None


def in_order(headers: Iterable[Header]) -> list[Header]:
    """The images of one study that may be drafted from, the best first. Of two exposures of one view the later wins."""
    known = list(headers)
    rejected = frozenset(uid for header in known for uid in header.rejects)
    kept = [header for header in known if skip_reason(header, rejected) is None]
    kept.sort(key=lambda header: header.sop_instance_uid)  # The last word, so that the order never depends on the disk.
    kept.sort(key=lambda header: (header.acquired, header.series_number, header.instance_number), reverse=True)
    kept.sort(key=_preference)
    return kept


def _preference(header: Header) -> tuple[bool, int, bool]:
    # Raw detector data is for machines that prepare it; a prepared image of any view says more.
    return (
        header.presentation_intent == _FOR_PROCESSING,
        _VIEW_ORDER.index(view_of(header)),
        header.image_type[:1] != ("ORIGINAL",),
    )
