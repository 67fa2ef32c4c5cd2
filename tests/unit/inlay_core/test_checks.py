from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.domain.checks import FINDINGS, Check, check_report
from inlay_core.domain.fragment import Fragment, Origin, Section
from inlay_core.domain.order import Order, Procedure
from inlay_core.domain.patient import Patient

PATIENT = Patient("p", "HOSP", "1", sex="female")
ORDER = Order("o", "RIS", PATIENT, procedure=Procedure(text="Chest X-ray"))


def checks(
    findings: str, impression: str = "Nothing else.", procedure: str | None = "Chest X-ray", sex: str | None = "female"
) -> list[tuple[str, str]]:
    """Code and the words pointed at, for a report with these two sections."""
    texts = {"f": findings, "i": impression}
    sections = (
        Section("findings", (Fragment("f", findings, Origin.MODEL),) if findings else ()),
        Section("impression", (Fragment("i", impression, Origin.CLINICIAN),) if impression else ()),
    )
    order = replace(ORDER, procedure=Procedure(text=procedure), patient=replace(PATIENT, sex=sex))
    return [
        (one.code, texts[one.fragment_id][one.start : one.end] if one.fragment_id else "")
        for one in check_report(sections, order)
    ]


@pytest.mark.parametrize(
    ("findings", "impression", "expected"),
    [
        ("Small right pleural effusion. Lungs clear.", "Left pleural effusion.", [("laterality", "pleural effusion")]),
        ("Small right pleural effusion.", "Right-sided effusion.", []),
        ("Bilateral pleural effusions.", "Left pleural effusion.", []),
        ("Left effusion, right lung clear.", "Left effusion.", []),
        ("There is no pneumothorax.", "Right pneumothorax.", [("negation", "pneumothorax")]),
        ("Right pneumothorax.", "No pneumothorax.", [("negation", "pneumothorax")]),
        ("Right pneumothorax.", "No left pneumothorax.", []),
        ("No effusion, consolidation or pneumothorax.", "Consolidation.", [("negation", "Consolidation")]),
        ("No effusion, but a right consolidation. ", "Right consolidation.", []),
        ("No left effusion. Right effusion is small.", "Right effusion.", []),
        ("Pneumothorax is not seen.", "Pneumothorax.", [("negation", "Pneumothorax")]),
        ("No fracture.", "Possible fracture of the rib.", []),
        ("The heart is enlarged. The lungs are clear.", "No acute findings.", []),
        ("Left pacemaker in the chest.", "Right pacemaker.", [("laterality", "pacemaker")]),
    ],
)
def test_impression_and_findings_agree(findings: str, impression: str, expected: list[tuple[str, str]]) -> None:
    """A finding that changes its side or its presence between the sections is pointed at, and nothing else is."""
    assert checks(findings, impression, procedure=None) == expected


@pytest.mark.parametrize(
    ("text", "procedure", "sex", "expected"),
    [
        ("The prostate is enlarged.", None, "female", [("sex", "prostate")]),
        ("The prostate is enlarged.", None, "male", []),
        ("The uterus is normal.", None, "male", [("sex", "uterus")]),
        ("The uterus is normal.", None, None, []),
        ("Fracture of the left patella.", "XR knee right", "male", [("order-side", "left")]),
        ("The right knee, compared with the left one.", "XR knee right", "male", []),
        ("Left effusion, lungs clear.", "Chest X-ray right decubitus", "male", []),
        ("The knee joint is normal.", "Chest X-ray", "male", [("order-part", "knee")]),
        ("Lungs clear. Old fracture of the humerus.", "Chest X-ray", "male", []),
        ("The bowel is dilated.", "CT chest and abdomen", "male", []),
        ("Normal.", "Chest X-ray", "male", []),
    ],
)
def test_the_text_fits_its_order(
    text: str, procedure: str | None, sex: str | None, expected: list[tuple[str, str]]
) -> None:
    """Side, part of the body and sex are compared with what was ordered, where the order says them."""
    assert checks(text, procedure=procedure, sex=sex) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A nodule measuring 12 in the lung.", [("no-unit", "12")]),
        ("A nodule measuring 12 mm in the lung.", []),
        ("A nodule of 1.5 x 2.0 in the lung.", [("no-unit", "1.5 x 2.0")]),
        ("A nodule of 1.5 x 2.0 cm in the lung.", []),
        ("A nodule of 3 mm x 4 mm in the lung.", []),
        ("A nodule of up to 4-5 mm in the lung.", []),
        ("A 5-mm nodule at T12, grade 2, seen on 2026-01-03. Lungs clear.", []),
        ("Measuring approximately 3,5cm. Lungs clear.", []),
    ],
)
def test_measurements_have_a_unit(text: str, expected: list[tuple[str, str]]) -> None:
    """A size without a unit is pointed at; levels, grades and dates are no sizes."""
    assert checks(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The heart is normal. No effusion a", [("breaks-off", "No effusion a")]),
        ("The heart is normal. No effusion (as before).", []),
        ('The heart is normal. Called "normal."', []),
        ("The heart is normal", []),
        ("Heart normal\nNo effusion\n", []),
        ("As follows.\n- Heart normal\n- No effusion", []),
    ],
)
def test_a_section_does_not_stop_within_a_sentence(text: str, expected: list[tuple[str, str]]) -> None:
    """What a full canvas or a hurried hand cut off is pointed at; text without points at all is a style."""
    assert checks(text) == expected


def test_a_report_needs_findings_and_an_impression() -> None:
    """Empty sections are named as a whole."""
    assert checks("", "  ") == [("empty-section", ""), ("empty-section", "")]


def test_imported_text_is_not_judged() -> None:
    """The order's own words (a question, an indication) are no statement of this report."""
    sections = (
        Section("indication", (Fragment("n", "Right pneumothorax? Prostate cancer.", Origin.IMPORTED),)),
        Section("findings", (Fragment("f", "No pneumothorax. ", Origin.MODEL),)),
        Section("impression", (Fragment("i", "No pneumothorax.", Origin.MODEL),)),
    )
    assert check_report(sections, ORDER) == ()


@given(st.lists(st.text(max_size=60), max_size=4), st.text(max_size=30))
def test_every_place_is_inside_its_fragment(texts: list[str], procedure: str) -> None:
    """Whatever the text, the checks end, and point at characters that are there."""
    fragments = {f"f{n}": Fragment(f"f{n}", text.replace("\x00", ""), Origin.MODEL) for n, text in enumerate(texts)}
    half = len(texts) // 2
    parts = list(fragments.values())
    sections = (Section("findings", tuple(parts[:half])), Section("impression", tuple(parts[half:])))
    for check in check_report(sections, replace(ORDER, procedure=Procedure(text=procedure))):
        assert isinstance(check, Check)
        assert check.fragment_id is None or 0 <= check.start < check.end <= len(fragments[check.fragment_id].text)


@pytest.mark.parametrize("name", FINDINGS)
def test_every_finding_goes_by_its_name(name: str) -> None:
    """The name that a message uses is a word that is recognised."""
    word = {"stone": "stone", "thrombosis": "thrombosis"}.get(name, name)
    assert [code for code, _ in checks(f"Left {word}.", f"Right {word}.", procedure=None)] == ["laterality"]
