"""Whether the patient of an image is the patient of its order."""

from __future__ import annotations

from datetime import date

import pytest

from inlay_core.domain.matching import PatientCheck, PatientShown, contradictions, same_name
from inlay_core.domain.patient import Patient, PersonName

ANNA = Patient("p1", "HOSP", "4711", PersonName("Müller", "Anna", "Maria"), date(1970, 1, 2), "female")


def name(text: str) -> PersonName:
    """A name written as in DICOM, family name first; without a caret it is all family name."""
    return PersonName(*text.split("^"))


SHOWN = PatientShown((("4711", "HOSP"),), (name("Mueller^Anna"),), date(1970, 1, 2), "female")


def found(shown: PatientShown, *records: Patient, check: PatientCheck = PatientCheck.PERSON) -> tuple[str, ...]:
    """The contradictions to these records, Anna's unless they are given."""
    return contradictions(shown, records or (ANNA,), check)


def test_same_person_is_no_contradiction() -> None:
    """A header that says the same of a person contradicts nothing, however strict the site is."""
    assert all(found(SHOWN, check=check) == () for check in PatientCheck)


def test_header_that_says_nothing_contradicts_nothing() -> None:
    """Missing tags are no contradiction, nor are facts that the order does not have."""
    assert all(found(PatientShown(), check=check) == () for check in PatientCheck)
    assert found(SHOWN, Patient("p1", "HOSP", "4711"), check=PatientCheck.STRICT) == ()


@pytest.mark.parametrize(
    ("shown", "facts"),
    [
        (PatientShown((("4712", "HOSP"),)), ("identifier",)),
        (PatientShown((("4712", ""),)), ("identifier",)),
        (PatientShown((("4712", "hosp"),)), ("identifier",)),
        (PatientShown((("04711", ""),)), ("identifier",)),
        (PatientShown(names=(name("Huber^Anna"),)), ("name",)),
        (PatientShown(names=(name("Müller^Anton"),)), ("name",)),
        (PatientShown(birth_date=date(1970, 2, 1)), ("birth-date",)),
        (PatientShown(sex="male"), ("sex",)),
        (
            PatientShown((("9", ""),), (name("Huber^Otto"),), date(1950, 1, 1), "male"),
            ("identifier", "name", "birth-date", "sex"),
        ),
    ],
)
def test_contradictions_are_named_by_fact(shown: PatientShown, facts: tuple[str, ...]) -> None:
    """What is found are names of facts."""
    assert found(shown) == facts


def test_site_decides_what_counts() -> None:
    """Off counts nothing, identifier the number only, strict another assigner as well."""
    somebody = PatientShown((("9", ""),), (name("Huber^Otto"),), date(1950, 1, 1), "male")
    assert found(somebody, check=PatientCheck.OFF) == ()
    assert found(somebody, check=PatientCheck.IDENTIFIER) == ("identifier",)
    elsewhere = PatientShown((("9", "CLINIC"),))
    assert found(elsewhere) == ()
    assert found(elsewhere, check=PatientCheck.STRICT) == ("assigner",)


def test_another_number_of_the_same_patient_counts() -> None:
    """Of several numbers in a header one is enough; numbers of other assigners are left out of it."""
    assert found(PatientShown((("9", "HOSP"), ("4711", "HOSP")))) == ()
    assert found(PatientShown((("9", "CLINIC"), ("4711", "HOSP"))), check=PatientCheck.STRICT) == ()


def test_number_of_a_merged_record_is_the_patients() -> None:
    """An image that was made before a merge carries the number that has gone."""
    gone = Patient("p0", "HOSP", "1234", merged_into="p1")
    assert found(PatientShown((("1234", "HOSP"),)), ANNA, gone) == ()
    assert found(PatientShown((("1234", "HOSP"),)), ANNA) == ("identifier",)


def test_only_definite_sexes_contradict() -> None:
    """Other and unknown say nothing against male or female."""
    assert found(PatientShown(sex="other")) == ()
    assert found(PatientShown(sex="male"), Patient("p", "HOSP", "1", sex="unknown")) == ()


@pytest.mark.parametrize(
    "spelled",
    [
        "MUELLER^ANNA",
        "Muller Anna",
        "Anna Müller",
        "Müller^A",
        "Müller-Huber^Anna",
        "Müller",
        "MU\u0308LLER ANNA MARIA",
    ],
)
def test_spellings_of_one_name(spelled: str) -> None:
    """Case, accents, order, initials, double names and missing parts make no other person."""
    assert same_name(name(spelled), name("Müller^Anna^Maria"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("Vanderberg^Anna", "van der Berg^Anna"), ("Strauß^Jo", "STRAUSS^JO"), ("Łukasz^Ødegård", "Lukasz Odegard")],
)
def test_joined_and_folded_spellings(one: str, other: str) -> None:
    """Prefixes that are written apart, and letters that ASCII does not have."""
    assert same_name(name(one), name(other))


@pytest.mark.parametrize(
    ("one", "other"), [("Smith^Joan", "Smith^Joanna"), ("Li", "Lindner^Anna"), ("Huber^A", "Maier^A")]
)
def test_other_names(one: str, other: str) -> None:
    """A beginning alone makes no name."""
    assert not same_name(name(one), name(other))


def test_names_are_compared_within_a_script() -> None:
    """Of a name in three scripts the one that the order is written in counts; another script says nothing."""
    yamada = Patient("p", "HOSP", "1", PersonName("山田", "太郎"))
    assert found(PatientShown(names=(name("Yamada^Tarou"),)), yamada) == ()
    assert found(PatientShown(names=(name("Yamada^Tarou"), name("山田^太郎"), name("やまだ^たろう"))), yamada) == ()
    assert found(PatientShown(names=(name("Yamada^Tarou"), name("鈴木^花子"))), yamada) == ("name",)
