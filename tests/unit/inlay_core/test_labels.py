from __future__ import annotations

from datetime import UTC, datetime

import pytest

from inlay_core.domain.fragment import Fragment, Origin, Section
from inlay_core.domain.identity import ActorKind
from inlay_core.domain.job import Job, JobKind
from inlay_core.domain.labels import AI_DRAFT, PHANTOMS_ONLY, WITHDRAWN, banner
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Priority
from inlay_core.domain.report import Author, Report

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def report(status: Status, origin: Origin) -> Report:
    """A report of one fragment, made by job j1."""
    section = Section("findings", (Fragment("f", "Lungs clear.", origin, job_id="j1"),))
    return Report("r", "o", 1, status, (section,), NOW, NOW, Author("a", "a", ActorKind.SYSTEM))


def job(job_id: str, *, demonstration: bool) -> Job:
    """A finished job of that kind of model."""
    record = {"demonstration": demonstration}
    return Job(job_id, "r", JobKind.DRAFT, 1, Priority.ROUTINE, NOW, run_record=record)


@pytest.mark.parametrize(
    ("status", "demonstration", "says"),
    [
        (Status.DRAFTED, False, AI_DRAFT),
        (Status.IN_REVIEW, True, f"{AI_DRAFT} {PHANTOMS_ONLY}"),
        (Status.SIGNED, False, ""),
        (Status.SIGNED, True, PHANTOMS_ONLY),
        (Status.ENTERED_IN_ERROR, True, f"{WITHDRAWN} {PHANTOMS_ONLY}"),
    ],
)
def test_the_banner_of_machine_made_text(status: Status, demonstration: bool, says: str) -> None:
    """Unsigned words of the model are called a draft, and a signature does not end what is said of phantoms."""
    jobs = [job("j1", demonstration=demonstration), job("j2", demonstration=True)]
    assert banner(report(status, Origin.MODEL), jobs) == says


def test_words_of_people_need_no_banner() -> None:
    """A report without words of the model has no banner, whatever jobs it had."""
    assert banner(report(Status.IN_REVIEW, Origin.CLINICIAN), [job("j1", demonstration=True)]) == ""


def test_what_was_withdrawn_says_so_whoever_wrote_it() -> None:
    """A person's words are no more to be used than the model's."""
    assert banner(report(Status.ENTERED_IN_ERROR, Origin.CLINICIAN), []) == WITHDRAWN


def test_a_job_without_record_still_made_a_draft() -> None:
    """Missing run records take nothing away from the first notice."""
    assert banner(report(Status.DRAFTED, Origin.MODEL), []) == AI_DRAFT
