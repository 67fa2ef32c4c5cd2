"""Who an image says it shows."""

import io
from datetime import date
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from inlay_dicom.patient import PatientTags, patient_of
from inlay_testkit.dicom import file_bytes, radiograph

PIXELS = np.zeros((4, 4), np.uint8)


def tags(**attributes: Any) -> PatientTags:
    """What is read of a file with these attributes."""
    return patient_of(dcmread(io.BytesIO(file_bytes(radiograph(PIXELS, **attributes)))))


def test_all_facts_are_read() -> None:
    """Number, issuer, family, given and middle name, birth date and sex."""
    assert tags(
        PatientID="4711",
        IssuerOfPatientID="HOSP",
        PatientName="Müller^Anna^Maria^Dr.",
        SpecificCharacterSet="ISO_IR 100",
        PatientBirthDate="19700102",
        PatientSex="F",
    ) == PatientTags((("4711", "HOSP"),), (("Müller", "Anna", "Maria"),), date(1970, 1, 2), "female")


def test_absent_facts_are_absent() -> None:
    """A header without a patient says nothing."""
    assert tags() == PatientTags((), (), None, None)
    assert tags(PatientID="", PatientName="", PatientBirthDate="", PatientSex="") == PatientTags((), (), None, None)


def test_names_in_several_scripts() -> None:
    """Each component group is a name, decoded by its character set."""
    read = tags(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert read.names == (("Yamada", "Tarou", ""), ("山田", "太郎", ""), ("やまだ", "たろう", ""))


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        ("Müller^Anna".encode(), (("Müller", "Anna", ""),)),
        ("Müller^Anna".encode("latin-1"), ()),
        (b"Mueller^Anna", (("Mueller", "Anna", ""),)),
    ],
)
def test_undeclared_character_set(raw: bytes, names: tuple[tuple[str, str, str], ...]) -> None:
    """Without Specific Character Set UTF-8 is recognised; other bytes beyond ASCII are not guessed at."""
    file = file_bytes(radiograph(PIXELS, PatientName="X" * len(raw), PatientID="1")).replace(b"X" * len(raw), raw)
    assert patient_of(dcmread(io.BytesIO(file))).names == names


def test_undecodable_name_is_not_said() -> None:
    """Bytes that its own character set does not have leave the name out."""
    raw = b"M\xfcller^Anna"
    whole = file_bytes(radiograph(PIXELS, SpecificCharacterSet="ISO_IR 192", PatientName="X" * 12, PatientID="1"))
    file = whole.replace(b"X" * 12, raw + b" " * (12 - len(raw)))
    assert patient_of(dcmread(io.BytesIO(file))).names == ()


def test_other_patient_ids() -> None:
    """Further numbers of the patient come after the first."""
    dataset = radiograph(PIXELS, PatientID="1", IssuerOfPatientID="A")
    other = type(dataset)()
    other.PatientID, other.IssuerOfPatientID = "4711", "HOSP"
    dataset.OtherPatientIDsSequence = [other]
    assert patient_of(dataset).identifiers == (("1", "A"), ("4711", "HOSP"))
