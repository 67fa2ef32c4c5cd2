from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_dicom.choose import View, in_order, skip_reason, view_of
from inlay_dicom.dataset import Header, header_of
from inlay_testkit.dicom import PHANTOM_TAGS, radiograph

PIXEL = np.zeros((2, 2), np.uint8)


def header(**tags: Any) -> Header:
    """The header of a radiograph with these attributes."""
    return header_of(radiograph(PIXEL, **tags))


@pytest.mark.parametrize(
    ("tags", "view"),
    [
        ({"ViewPosition": "PA"}, View.PA),
        ({"ViewPosition": "AP"}, View.AP),
        ({"ViewPosition": "LL"}, View.LATERAL),
        ({"ViewPosition": "RL"}, View.LATERAL),
        ({"ViewPosition": "LLO"}, View.OTHER),
        ({"ViewPosition": ""}, View.UNKNOWN),
        ({"ViewPosition": None, "PatientOrientation": ["L", "F"]}, View.FRONTAL),
        ({"ViewPosition": None, "PatientOrientation": ["LF", "FR"]}, View.FRONTAL),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, View.LATERAL),
        ({"ViewPosition": None, "PatientOrientation": ["L", "P"]}, View.OTHER),
        ({"ViewPosition": "LL", "PatientOrientation": ["L", "F"]}, View.LATERAL),
    ],
)
def test_view_is_taken_from_position_then_orientation(tags: dict[str, Any], view: View) -> None:
    """View Position decides; without it the directions of rows and columns in the patient do."""
    assert view_of(header(**tags)) is view


def test_view_code_stands_in_for_the_position() -> None:
    """Systems that fill only the view code sequence are understood, in both SNOMED spellings."""
    for code, view in (("R-10214", View.PA), ("399348003", View.AP), ("399173006", View.LATERAL)):
        dataset = radiograph(PIXEL, ViewPosition=None)
        item = type(dataset)()
        item.CodeValue = code
        dataset.ViewCodeSequence = [item]
        assert view_of(header_of(dataset)) is view


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({}, None),
        ({"ImageType": None}, None),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, None),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "secondary"),
        ({"ImageType": ["ORIGINAL", "SECONDARY"]}, "secondary"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ({"QualityControlImage": "YES"}, "quality control image"),
        ({"Modality": "SR"}, "no image"),
        ({"Modality": "PR"}, "no image"),
        (PHANTOM_TAGS, None),
    ],
)
def test_what_is_skipped(tags: dict[str, Any], reason: str | None) -> None:
    """Localisers, derived secondary images and quality controls are skipped; phantoms, derived as they are, are not."""
    assert skip_reason(header(**tags)) == reason


def test_object_without_pixels_is_skipped() -> None:
    """A header without pixel data is no image."""
    dataset = radiograph(PIXEL)
    del dataset.PixelData
    assert skip_reason(header_of(dataset)) == "no image"


def test_rejected_image_is_skipped_wherever_its_note_stands() -> None:
    """An image that a rejection note of the study names is not drafted from; the repeated exposure is."""
    bad, good = header(SOPInstanceUID="1.1"), header(SOPInstanceUID="1.2", ViewPosition="AP")
    note = header_of(radiograph(PIXEL, Modality="KO", SOPInstanceUID="1.3"))
    note = Header(**{name: getattr(note, name) for name in Header.__slots__} | {"rejects": ("1.1",)})
    assert in_order([bad, note, good]) == [good]


def test_frontal_comes_before_lateral() -> None:
    """PA before AP before unknown before lateral before oblique."""
    views = ["LLO", "LL", "", "AP", "PA"]
    assert [h.view_position for h in in_order(header(ViewPosition=v) for v in views)] == ["PA", "AP", "", "LL", "LLO"]


def test_image_for_presentation_comes_before_raw_data() -> None:
    """A lateral that was prepared for reading is a better start than the detector's raw frontal."""
    raw = header(PresentationIntentType="FOR PROCESSING")
    lateral = header(ViewPosition="LL", PresentationIntentType="FOR PRESENTATION")
    assert in_order([raw, lateral]) == [lateral, raw]


def test_original_comes_before_derived() -> None:
    """The original comes before a bone-suppressed or otherwise derived copy of the same view."""
    derived = header(ImageType=["DERIVED", "PRIMARY"], InstanceNumber=9)
    original = header(InstanceNumber=1)
    assert in_order([derived, original]) == [original, derived]


def test_of_two_exposures_the_later_wins() -> None:
    """An exposure is repeated because the first was not good enough."""
    first = header(AcquisitionDate="20260101", AcquisitionTime="101500")
    second = header(AcquisitionDate="20260101", AcquisitionTime="101630")
    assert in_order([second, first]) == in_order([first, second]) == [second, first]


@given(
    st.permutations(
        [
            header(ViewPosition=view, InstanceNumber=number, SOPInstanceUID=f"1.{index}")
            for index, (view, number) in enumerate([("PA", 1), ("PA", 1), ("LL", 2), ("", 3), ("AP", 1), ("AP", 1)])
        ]
    )
)
def test_order_never_depends_on_the_disk(headers: list[Header]) -> None:
    """The same study gives the same order however its files are listed."""
    assert in_order(headers) == in_order(sorted(headers, key=lambda h: h.sop_instance_uid))
