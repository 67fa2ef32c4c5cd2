"""What every place that shows a report has to say of machine-made words, in one wording."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from inlay_core.domain.fragment import Origin
from inlay_core.domain.job import Job
from inlay_core.domain.report import Report

AI_DRAFT: Final = "AI draft, not verified by a clinician."
PHANTOMS_ONLY: Final = "Synthetic phantom images only; not for clinical use."


def banner(report: Report, jobs: Iterable[Job]) -> str:
    """The notice above the text of this version; empty where nothing is to be said.

    Words of the model are a draft until somebody signs. Words of the demonstration model are about phantoms, and a
    signature does not change that. `jobs` are those of the report: their run records say which model it was.
    """
    makers = {
        fragment.job_id
        for section in report.sections
        for fragment in section.fragments
        if fragment.origin is Origin.MODEL
    }
    if not makers:
        return ""
    records = [job.run_record for job in jobs if job.id in makers]
    demonstration = any(record is not None and record.get("demonstration") for record in records)
    notices = ([] if report.is_signed else [AI_DRAFT]) + ([PHANTOMS_ONLY] if demonstration else [])
    return " ".join(notices)
