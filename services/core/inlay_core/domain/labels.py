"""What every place that shows a report has to say of machine-made words, in one wording."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from inlay_core.domain.fragment import Origin
from inlay_core.domain.job import Job
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.report import Report

AI_DRAFT: Final = "AI draft, not verified by a clinician."
WITHDRAWN: Final = "Withdrawn as entered in error: not to be used."
PHANTOMS_ONLY: Final = "Synthetic phantom images only; not for clinical use."


def banner(report: Report, jobs: Iterable[Job]) -> str:
    """The notice above the text of this version; empty where nothing is to be said.

    What was withdrawn says so, whoever wrote it. Words of the model are a draft until somebody signs. Words of the
    demonstration model are about phantoms, and a signature does not change that. `jobs` are those of the report: their
    run records say which model it was.
    """
    notices = [WITHDRAWN] if report.status is Status.ENTERED_IN_ERROR else []
    makers = {
        fragment.job_id
        for section in report.sections
        for fragment in section.fragments
        if fragment.origin is Origin.MODEL
    }
    if makers and not notices and not report.is_signed:
        notices.append(AI_DRAFT)
    records = [job.run_record for job in jobs if job.id in makers]
    if any(record is not None and record.get("demonstration") for record in records):
        notices.append(PHANTOMS_ONLY)
    return " ".join(notices)
