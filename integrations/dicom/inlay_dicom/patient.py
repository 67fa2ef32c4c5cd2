"""Who an image says it shows: the patient's tags as plain values, of whichever character set they are in.

What cannot be read for certain counts as not said: a wrong letter would make another person of somebody.
Reference: PS3.3 C.7.1.1 (Patient Module), PS3.5 6.1 (character sets) and 6.2.1 (names).
"""

from dataclasses import dataclass
from datetime import date
from typing import Final

from pydicom.dataset import Dataset

from inlay_dicom.dataset import items_of, text_of, texts_of
from inlay_dicom.times import parse_date

_SEXES: Final = {"M": "male", "F": "female", "O": "other"}
_REPLACED: Final = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class PatientTags:
    """The patient of a dataset: (id, issuer) pairs, (family, given, middle) per script, birth date and sex."""

    identifiers: tuple[tuple[str, str], ...]
    names: tuple[tuple[str, str, str], ...]
    birth_date: date | None
    sex: str | None


def patient_of(dataset: Dataset) -> PatientTags:
    """The patient that the header names."""
    holders = (dataset, *items_of(dataset, "OtherPatientIDsSequence"))
    pairs = ((text_of(one, "PatientID"), text_of(one, "IssuerOfPatientID")) for one in holders)
    return PatientTags(
        identifiers=tuple(pair for pair in pairs if pair[0]),
        names=_names(dataset),
        birth_date=parse_date(text_of(dataset, "PatientBirthDate")),
        sex=_SEXES.get(text_of(dataset, "PatientSex").upper()),
    )


def _names(dataset: Dataset) -> tuple[tuple[str, str, str], ...]:
    """Family, given and middle name of each component group that can be read; titles are no part of it."""
    text = text_of(dataset, "PatientName")
    if not any(texts_of(dataset, "SpecificCharacterSet")) and not text.isascii():
        text = _undeclared(text)
    groups = [[part.strip() for part in f"{group}^^".split("^")[:3]] for group in text.split("=")]
    return tuple((f, g, m) for f, g, m in groups if (f or g or m) and _REPLACED not in f + g + m)


def _undeclared(text: str) -> str:
    """A name beyond ASCII whose character set nobody declared: UTF-8 shows itself, anything else could be anything."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return ""
