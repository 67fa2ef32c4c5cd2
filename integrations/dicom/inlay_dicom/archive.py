"""What an archive (PACS) is asked for, whichever protocol it speaks, and what can go wrong with it.

An archive brings images into the store of received files; nothing reads images from it directly.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import Final, Protocol

from pydicom.dataset import Dataset

from inlay_dicom.dataset import text_of, texts_of
from inlay_dicom.times import parse_date, study_time

# A report is about a handful of films. What a study of thousands of slices would cost is not spent.
IMAGES_PER_STUDY: Final = 8
MOST_INSTANCES: Final = 2000
MOST_STUDIES: Final = 100
# What C-FIND and QIDO-RS ask back about studies.
STUDY_KEYS: Final = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "TimezoneOffsetFromUTC",
    "StudyDescription",
    "ModalitiesInStudy",
    "AccessionNumber",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
)


class ArchiveProblem(Exception):
    """The archive did not give what was asked. `code` says why.

    away: it may be asked again. refused: somebody has to change something, here or there. answer: it cannot be
    understood. rejected: the object that was sent will not be taken.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Wanted:
    """What studies are looked for by: exactly one of the three."""

    study_instance_uid: str = ""
    accession_number: str = ""
    patient_id: str = ""

    def matching(self) -> tuple[str, str]:
        """Keyword and value of the matching key."""
        if self.study_instance_uid:
            return "StudyInstanceUID", self.study_instance_uid
        if self.accession_number:
            return "AccessionNumber", self.accession_number
        return "PatientID", self.patient_id


@dataclass(frozen=True, slots=True)
class StudyFound:
    """A study that the archive has, as its answer tells."""

    study_instance_uid: str
    studied_at: datetime | None
    description: str
    modalities: tuple[str, ...]
    accession_number: str
    patient_id: str
    issuer: str
    birth_date: date | None = None


class Archive(Protocol):
    """A PACS. Every call ends within the archive's deadline; raises `ArchiveProblem`."""

    def studies(self, wanted: Wanted) -> list[StudyFound]:
        """The studies that match exactly, at most `MOST_STUDIES`."""
        ...

    def bring(self, study_instance_uid: str) -> int:
        """Have the images of a study that may be drafted from put into the store; return how many there are now."""
        ...


def studies_of(answers: Iterable[Dataset], wanted: Wanted, zone: tzinfo) -> list[StudyFound]:
    """The studies of an archive's answers.

    An archive that does not know a key ignores it and answers with everything, and some match wildcards or other cases:
    whatever does not match exactly is left out.
    """
    keyword, value = wanted.matching()
    found = [_study(answer, zone) for answer in answers if text_of(answer, keyword) == value]
    return [study for study in found if study.study_instance_uid][:MOST_STUDIES]


def _study(answer: Dataset, zone: tzinfo) -> StudyFound:
    modalities = texts_of(answer, "ModalitiesInStudy")
    return StudyFound(
        text_of(answer, "StudyInstanceUID"),
        study_time(answer, zone),
        text_of(answer, "StudyDescription"),
        tuple(one for one in modalities if one),
        text_of(answer, "AccessionNumber"),
        text_of(answer, "PatientID"),
        text_of(answer, "IssuerOfPatientID"),
        parse_date(text_of(answer, "PatientBirthDate")),
    )
