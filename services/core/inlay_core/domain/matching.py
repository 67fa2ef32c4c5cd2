"""Whether an image shows the order's patient: what its header says of a person against what is known of the patient.

What a header does not say contradicts nothing. What is found are the names of facts, never their values.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from inlay_core.domain.patient import Patient, PersonName

# Letters that no normal form takes apart.
_LETTERS: Final = str.maketrans({"ø": "o", "æ": "a", "œ": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
# Müller, Mueller and MULLER are one name: modalities that know ASCII only write it in either way.
_DIGRAPHS: Final = re.compile(r"(?<=[aou])e")
_DEFINITE: Final = frozenset({"male", "female"})
# So long a part may have been cut by somebody's field; a shorter one is another name (Joan, Joanna).
_CUT: Final = 8


class PatientCheck(StrEnum):
    """How far an image's header is held against the order's patient before anything is written from the image.

    `identifier` compares the patient id where nothing says that another assigner gave it; `person` compares name, birth
    date and sex as well; `strict` takes another assigner for another patient, too.
    """

    OFF = "off"
    IDENTIFIER = "identifier"
    PERSON = "person"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class PatientShown:
    """The patient as an image's header says. `identifiers` are (id, assigner); `names` one per script."""

    identifiers: tuple[tuple[str, str], ...] = ()
    names: tuple[PersonName, ...] = ()
    birth_date: date | None = None
    sex: str | None = None


def contradictions(shown: PatientShown, records: Sequence[Patient], check: PatientCheck) -> tuple[str, ...]:
    """What of the header cannot be said of this patient.

    `records` are all that are one person, the one that counts first: an image that was made before a merge carries the
    number that has gone.
    """
    if check is PatientCheck.OFF or not records:
        return ()
    found = [_identifier_problem(shown, records, strict=check is PatientCheck.STRICT)]
    if check is not PatientCheck.IDENTIFIER:
        found += _person_problems(shown, records[0])
    return tuple(problem for problem in found if problem)


def _identifier_problem(shown: PatientShown, records: Sequence[Patient], *, strict: bool) -> str:
    """Numbers of two assigners cannot be compared: only a site whose modalities name the RIS's may be strict."""
    given = [(number, assigner) for number, assigner in shown.identifiers if number]
    comparable = [
        number == record.identifier
        for number, assigner in given
        for record in records
        if not assigner or not record.assigner or assigner.casefold() == record.assigner.casefold()
    ]
    if any(comparable) or not given:
        return ""
    if comparable:
        return "identifier"
    return "assigner" if strict else ""


def _person_problems(shown: PatientShown, patient: Patient) -> list[str]:
    problems = []
    known = patient.name
    script = _script(_words(known))
    comparable = [name for name in shown.names if script and _script(_words(name)) == script]
    if known and comparable and not any(same_name(name, known) for name in comparable):
        problems.append("name")
    if None not in (shown.birth_date, patient.birth_date) and shown.birth_date != patient.birth_date:
        problems.append("birth-date")
    if {shown.sex, patient.sex} == _DEFINITE:
        problems.append("sex")
    return problems


def same_name(one: PersonName, other: PersonName) -> bool:
    """Whether two spellings can be one person's name.

    Order, case, accents, hyphens, initials and parts that one of them leaves out do not matter.
    """
    families, givens = (one.family, other.family), (f"{one.given} {one.middle}", f"{other.given} {other.middle}")
    return _fits(_words(one), _words(other)) or (_fits(*families) and _fits(*givens))


def _fits(one: str, other: str) -> bool:
    """Whether each part of the text with fewer parts is a part of the other."""
    fewer, more = sorted((_parts(one), _parts(other)), key=len)
    if "".join(fewer) == "".join(more):
        return True  # Van der Berg, Vanderberg.
    left = list(more)
    for part in fewer:
        match = next((each for each in left if _same_part(part, each)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _words(name: PersonName | None) -> str:
    return f"{name.family} {name.given} {name.middle}" if name else ""


def _same_part(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    initial_or_cut = len(shorter) == 1 or len(shorter) >= _CUT
    return one == other or (initial_or_cut and longer.startswith(shorter))


def _parts(name: str) -> list[str]:
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold().translate(_LETTERS))
    plain = "".join(c for c in decomposed if not unicodedata.combining(c))
    parts = "".join(c if c.isalnum() else " " for c in plain).split()
    return [_DIGRAPHS.sub("", part) for part in parts]


def _script(name: str) -> str:
    """The script of the first letter, as Unicode names it; empty where there is no letter."""
    letter = next((c for c in unicodedata.normalize("NFKC", name) if c.isalpha()), "")
    return unicodedata.name(letter, "").split(" ")[0] if letter else ""
