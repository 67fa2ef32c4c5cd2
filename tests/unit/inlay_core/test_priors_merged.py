"""One list of what archive, RIS and Inlay know of earlier examinations."""

from __future__ import annotations

from datetime import UTC, datetime

from inlay_core.application import comparing, signing
from inlay_core.application.ports import PatientFields
from inlay_core.application.priors import priors_of_report
from inlay_core.domain.order import PriorStudy
from inlay_core.domain.prior import Examination, PriorReport, PriorSection, PriorStatus, Source, merged
from inlay_testkit.core import RADIOLOGIST, WORKER, Ward
from inlay_testkit.memory import Memory

OLD, NEW = datetime(2024, 5, 1, 8, tzinfo=UTC), datetime(2025, 5, 1, 8, tzinfo=UTC)


def test_one_examination_of_three_sources_is_one_entry() -> None:
    """What names study and accession number leads the archive's study and the RIS's report together."""
    own = Examination(
        (Source.INLAY,), "1.9", "A9", "Chest", performed_at=None, reported_at=NEW, status=PriorStatus.FINAL
    )
    archive = Examination((Source.ARCHIVE,), "1.9", "", "THORAX PA", ("DX",), OLD)
    ris = Examination((Source.RIS,), "", "A9", "Chest X-ray", (), NEW, NEW, PriorStatus.FINAL, prior_id="p1")
    (one,) = merged([own, archive, ris])
    assert one.sources == (Source.ARCHIVE, Source.RIS, Source.INLAY)
    assert (one.study_instance_uid, one.accession_number, one.description) == ("1.9", "A9", "Chest")
    assert (one.modalities, one.performed_at) == (("DX",), OLD)
    assert one.prior_id is None


def test_two_studies_of_one_accession_number_stay_apart() -> None:
    """Another StudyInstanceUID is another examination; a report without one joins the first."""
    first, second = (
        Examination((Source.ARCHIVE,), uid, "A9", performed_at=at) for uid, at in (("1.8", NEW), ("1.9", OLD))
    )
    ris = Examination((Source.RIS,), "", "A9", status=PriorStatus.FINAL, prior_id="p1")
    assert [(e.study_instance_uid, e.status) for e in merged([first, second, ris])] == [
        ("1.8", PriorStatus.FINAL),
        ("1.9", None),
    ]


def test_the_answered_report_counts() -> None:
    """Of several reports on one examination the one that somebody answers for is shown, of those the newest."""
    preliminary, final, corrected = (
        Examination((Source.RIS,), "", "A9", status=status, reported_at=at, prior_id=status)
        for status, at in ((PriorStatus.PRELIMINARY, NEW), (PriorStatus.FINAL, OLD), (PriorStatus.CORRECTED, NEW))
    )
    assert [one.prior_id for one in merged([preliminary, final])] == [PriorStatus.FINAL]
    assert [one.prior_id for one in merged([final, corrected, preliminary])] == [PriorStatus.CORRECTED]


def test_newest_first_and_undated_last() -> None:
    """The list is in the order in which one compares."""
    entries = [
        Examination((Source.RIS,), "", number, performed_at=at) for number, at in (("1", None), ("2", OLD), ("3", NEW))
    ]
    assert [one.accession_number for one in merged(entries)] == ["3", "2", "1"]


def test_list_beside_a_report() -> None:
    """Beside a report stand its patient's studies of the archive, reports of the RIS, and what was signed here."""
    memory = Memory()
    ward = Ward(memory())
    patient = PatientFields("HOSP", "MRN1")
    earlier = ward.drafted("7", patient=patient)
    signing.sign(*ward.trio, RADIOLOGIST, earlier.id, expected_version=earlier.version)
    report = ward.order("1", patient=patient)
    with ward.uow as uow:
        order = uow.orders.get(report.order_id)
    assert order is not None
    studies = [PriorStudy("1.2.826.0.1.7", OLD, "THORAX", ("DX",)), PriorStudy("1.5", NEW, "HAND", ("CR",), "A5")]
    comparing.keep_priors(*ward.trio, WORKER, order.id, studies)
    texts = (PriorSection("19005-8", "Impression", "No fracture."),)
    for number, accession in (("N1", "A5"), ("N2", "A7"), ("N3", "A1")):
        memory.world.priors[number] = PriorReport(
            number, order.patient, "RIS", number, PriorStatus.FINAL, texts, accession_number=accession, reported_at=OLD
        )
    listed = priors_of_report(ward.uow, RADIOLOGIST, report.id)
    assert [(one.study_instance_uid, one.sources, one.report_id, one.prior_id, one.impression) for one in listed] == [
        ("1.5", (Source.ARCHIVE, Source.RIS), None, "N1", "No fracture."),
        ("1.2.826.0.1.7", (Source.ARCHIVE, Source.RIS, Source.INLAY), earlier.id, None, "No acute findings."),
    ]
    ward.draft()
    section = ward.report(report.id).section("comparison")
    assert section is not None
    assert section.text == (
        "HAND, 2025-05-01. Its impression: No fracture. Chest X-ray, 2024-05-01. Its impression: No acute findings. "
    )


def test_a_report_is_not_its_own_prior() -> None:
    """Also without study and accession number the report itself is not in its list."""
    ward = Ward(Memory()())
    report = ward.drafted("1", study_instance_uid=None, accession_number=None)
    signing.sign(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version)
    assert priors_of_report(ward.uow, RADIOLOGIST, report.id) == []


def test_a_draft_compares_with_what_came_before() -> None:
    """An examination that was made after the study of the report is listed, and is not compared with."""
    ward = Ward(Memory()())
    report = ward.order("1")
    with ward.uow as uow:
        order = uow.orders.get(report.order_id)
    assert order is not None
    studies = [PriorStudy("1.5", NEW, "HAND"), PriorStudy("1.6", OLD, "THORAX")]
    comparing.keep_priors(*ward.trio, WORKER, order.id, studies)
    assert len(priors_of_report(ward.uow, RADIOLOGIST, report.id)) == 2
    ward.draft(studied_at=datetime(2025, 1, 1, tzinfo=UTC))
    section = ward.report(report.id).section("comparison")
    assert section is not None
    assert section.text == "THORAX, 2024-05-01. "
