from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from inlay_core.application import comparing, drafting, signing
from inlay_core.application.ports import GenerationPolicy, PatientFields, Site
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.fragment import Origin
from inlay_core.domain.infill import Gap, InfillRequest, InfillSection, KeptText, LockRef
from inlay_core.domain.order import Order, PriorStudy
from inlay_core.domain.prior import Comparison, PriorReport, PriorSection, PriorStatus
from inlay_dicom.archive import ArchiveProblem, StudyFound, Wanted
from inlay_dicom.mapping import priors_of
from inlay_gateway.delivery import Books
from inlay_gateway.sweepers import compare
from inlay_testkit.core import RADIOLOGIST, WORKER, Ward
from inlay_testkit.memory import Memory

VIENNA = ZoneInfo("Europe/Vienna")
LAST_YEAR = datetime(2025, 1, 2, 8, tzinfo=UTC)


class Archive:
    """An archive with these studies."""

    def __init__(self, *found: StudyFound | ArchiveProblem) -> None:
        self.found = found
        self.asked: list[Wanted] = []

    def studies(self, wanted: Wanted) -> list[StudyFound]:
        """All of them, or the problem."""
        self.asked.append(wanted)
        if any(isinstance(one, ArchiveProblem) for one in self.found):
            raise next(one for one in self.found if isinstance(one, ArchiveProblem))
        return [one for one in self.found if isinstance(one, StudyFound)]

    def bring(self, _study: str) -> int:
        """Not asked for here."""
        raise AssertionError


def study(uid: str = "1.9", at: datetime | None = LAST_YEAR, description: str = "Thorax", **more: object) -> StudyFound:
    """An earlier study of the patient."""
    return StudyFound(uid, at, description, ("DX",), "A0", "MRN1", **({"issuer": "HOSP"} | more))  # type: ignore[arg-type]


@pytest.fixture
def memory() -> Memory:
    """An empty database in memory."""
    return Memory()


@pytest.fixture
def ward(memory: Memory) -> Ward:
    """A ward on it."""
    return Ward(memory(), site=Site(zone=VIENNA))


def order_of(ward: Ward, report_id: str) -> Order:
    """The order of a report."""
    with ward.uow as uow:
        report = uow.reports.get(report_id)
        assert report is not None
        order = uow.orders.get(report.order_id)
    assert order is not None
    return order


def swept(memory: Memory, ward: Ward, archive: Archive) -> int:
    """One round of the relay's duty."""
    return compare(Books(memory, ward.clock, ward.new_id), archive, VIENNA)


def comparison(ward: Ward, report_id: str) -> list[tuple[str, Origin]]:
    """The Comparison section of a report."""
    section = ward.report(report_id).section("comparison")
    return [(f.text, f.origin) for f in section.fragments] if section else []


def test_earlier_studies_stand_in_the_drafts_comparison(memory: Memory, ward: Ward) -> None:
    """The archive is asked once per order, by the patient's id; the draft shows what and when, as imported text."""
    report = ward.order("1")
    late = study("1.8", datetime(2025, 6, 30, 22, 30, tzinfo=UTC), "Thorax\x00 pa\n2E")
    archive = Archive(study(), late)
    assert [swept(memory, ward, archive), swept(memory, ward, archive)] == [1, 0]
    assert archive.asked == [Wanted(patient_id="MRN1")]
    ward.draft()
    assert comparison(ward, report.id) == [
        ("Thorax pa 2E, 2025-07-01. ", Origin.IMPORTED),
        ("Thorax, 2025-01-02. ", Origin.IMPORTED),
    ]
    assert "relay:order:compared" in ward.tags(report.id)


def test_the_impression_of_our_own_signed_report_comes_along(memory: Memory, ward: Ward) -> None:
    """Where the earlier study was reported here and signed, its impression follows its date; a draft's does not."""
    patient = PatientFields("HOSP", "MRN1")
    earlier = ward.drafted("7", patient=patient)
    report = ward.order("1", patient=patient)
    swept(memory, ward, Archive(study("1.2.826.0.1.7")))
    order = order_of(ward, report.id)
    with ward.uow as uow:
        assert [each.impression for each in comparing.comparisons(uow, order)] == [""]
    signing.sign(*ward.trio, RADIOLOGIST, earlier.id, expected_version=earlier.version)
    ward.draft()
    assert comparison(ward, report.id)[1] == ("Its impression: No acute findings. ", Origin.IMPORTED)


@pytest.mark.parametrize(
    ("status", "accession", "shown"),
    [
        (PriorStatus.FINAL, "A0", True),
        (PriorStatus.PRELIMINARY, "A0", False),
        (PriorStatus.WITHDRAWN, "A0", False),
        (PriorStatus.FINAL, "A5", False),
    ],
)
def test_the_impression_of_another_systems_report(
    memory: Memory, ward: Ward, status: PriorStatus, accession: str, shown: bool
) -> None:
    """A final report of the RIS about the study's accession number lends its impression; others stand by themselves."""
    report = ward.order("1")
    prior = PriorReport(
        "p1",
        order_of(ward, report.id).patient,
        "RIS",
        "N1",
        status,
        (PriorSection("59776-5", "Findings", "Much."), PriorSection("19005-8", "Impression", "Old scar. ")),
        accession_number=accession,
        reported_at=LAST_YEAR,
    )
    memory.world.priors[prior.id] = prior
    swept(memory, ward, Archive(study()))
    ward.draft()
    texts = [text for text, _ in comparison(ward, report.id)]
    apart = ["Study, 2025-01-02. ", "Its impression: Old scar. "] if accession == "A5" else []
    assert texts == ["Thorax, 2025-01-02. "] + ["Its impression: Old scar. "] * shown + apart


@pytest.mark.parametrize(
    "other",
    [
        study(issuer="OTHER-HOSPITAL"),
        study(birth_date=date(1971, 1, 2)),
        study(uid="1.2.826.0.1.1"),
        study(at=None),
    ],
    ids=["assigner", "birth date", "own study", "no date"],
)
def test_what_may_be_another_patients_is_left_out(ward: Ward, other: StudyFound) -> None:
    """Another assigner's patient of the same number, another birth date, and the study itself are no priors."""
    report = ward.order("1")
    assert priors_of(order_of(ward, report.id), Archive(other), VIENNA) == []
    fine = study(issuer="", birth_date=date(1970, 1, 2))
    assert len(priors_of(order_of(ward, report.id), Archive(fine, other), VIENNA)) == 1


def test_an_archive_that_is_away_is_asked_again(memory: Memory, ward: Ward) -> None:
    """Away is no answer: the order still wants one. An answer that makes no sense is one, with nothing in it."""
    report = ward.order("1")
    with pytest.raises(Unavailable):
        swept(memory, ward, Archive(ArchiveProblem("away", "x")))
    assert order_of(ward, report.id).priors is None
    assert swept(memory, ward, Archive(ArchiveProblem("answer", "x"))) == 1
    assert order_of(ward, report.id).priors == ()
    ward.draft()
    assert comparison(ward, report.id) == []


def test_only_the_newest_are_kept(ward: Ward) -> None:
    """Three studies, the newest first."""
    report = ward.order("1")
    order = order_of(ward, report.id)
    priors = [PriorStudy(f"1.{year}", datetime(year, 1, 1, tzinfo=UTC)) for year in (2019, 2024, 2020, 2023)]
    comparing.keep_priors(*ward.trio, WORKER, order.id, priors)
    kept = order_of(ward, report.id).priors
    assert kept is not None
    assert [prior.studied_at.year for prior in kept] == [2024, 2023, 2020]


@pytest.mark.parametrize("allowed", [False, True])
def test_a_draft_is_offered_them_only_where_the_site_allows_it(memory: Memory, allowed: bool) -> None:
    """The job of a draft carries the day on the spot, the description and the impression, or nothing at all."""
    ward = Ward(memory(), site=Site(zone=VIENNA, generation=GenerationPolicy(imported_text_allowed=allowed)))
    patient = PatientFields("HOSP", "MRN1")
    earlier = ward.drafted("7", patient=patient)
    signing.sign(*ward.trio, RADIOLOGIST, earlier.id, expected_version=earlier.version)
    ward.order("1", patient=patient)
    late = datetime(2025, 6, 30, 22, 30, tzinfo=UTC)
    swept(memory, ward, Archive(study("1.2.826.0.1.7", late)))
    claimed = drafting.claim_next(*ward.trio, WORKER, site=ward.site)
    assert claimed is not None
    offered = Comparison(date(2025, 7, 1), "Chest X-ray", "No acute findings.", late)
    assert claimed.comparisons == ((offered,) if allowed else ())
    assert "acute" not in repr(claimed)


@pytest.mark.parametrize("allowed", [False, True])
def test_the_model_sees_them_only_where_the_site_allows_it(memory: Memory, allowed: bool) -> None:
    """By default no word of an earlier study reaches the prompt of an infill."""
    ward = Ward(memory(), site=Site(generation=GenerationPolicy(imported_text_allowed=allowed)))
    report = ward.order("1")
    swept(memory, ward, Archive(study(description="Planted-Thorax")))
    drafted = ward.draft()
    findings = drafted.section("findings")
    assert findings is not None
    request = InfillRequest((InfillSection("findings", (LockRef(findings.fragments[0].id), Gap())),))
    drafting.request_infill(
        *ward.trio, RADIOLOGIST, report.id, expected_version=drafted.version, request=request, site=ward.site
    )
    claimed = drafting.claim_next(*ward.trio, WORKER, site=ward.site)
    assert claimed is not None
    # An infill is told by the report's own Comparison section.
    assert claimed.comparisons == ()
    shown = [item.text for part in claimed.sections for item in part.items if isinstance(item, KeptText)]
    assert any("Planted" in text for text in shown) is allowed
