"""How drafts are used: figures per draft and per model over time, computed from the versions that are stored."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any, Final

from inlay_core.application.ports import UnitOfWork
from inlay_core.application.queries import record_access
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.errors import Invalid
from inlay_core.domain.fragment import SECTION_NAMES
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.usage import Disputes, Spread, Summary, Usage, usage_of

# A report has about ten versions of some kilobytes: a batch stays below some tens of megabytes.
_BATCH: Final = 200


def usages(uow: UnitOfWork, actor: Actor, since: datetime, until: datetime) -> Iterator[Usage]:
    """What became of each draft that came in [since, until), the oldest first, read in batches."""
    require(actor, Permission.READ_USAGE)
    return _read(uow, since, until)


def _read(uow: UnitOfWork, since: datetime, until: datetime) -> Iterator[Usage]:
    after: tuple[datetime, str] | None = None
    while True:
        with uow:
            found = uow.reports.drafted(since, until, _BATCH, after)
            batch = _batch(uow, [report_id for _, report_id in found])
        yield from batch
        if len(found) < _BATCH:
            return
        after = found[-1]


def _batch(uow: UnitOfWork, ids: list[str]) -> list[Usage]:
    if not ids:
        return []
    versions = uow.reports.versions_of(ids)
    orders = uow.orders.by_ids([versions[report_id][0].order_id for report_id in ids])
    jobs = uow.jobs.of_reports(ids)
    made = (
        usage_of(
            versions[report_id],
            [job for job in jobs if job.report_id == report_id],
            orders[versions[report_id][0].order_id],
        )
        for report_id in ids
    )
    return [usage for usage in made if usage is not None]


def record_reading(
    uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, since: datetime, until: datetime
) -> None:
    """Record that somebody read the figures, and of which days."""
    days = {"since": since.date().isoformat(), "until": until.date().isoformat()}
    record_access(uow, clock, new_id, actor, Tag.READER_ACCESS_USAGE, subject=(Kind.ACCESS, "usage"), detail=days)


# ---------------------------------------------------------------------------------------------- rows


def summary_row(summary: Summary) -> dict[str, Any]:
    """A summary as a flat row: counts, shares of drafted sentences, mean edit distances, times in seconds."""
    row: dict[str, Any] = {
        "step": summary.step,
        "model": summary.model,
        "model_digest": summary.model_digest,
        "adapter_digest": summary.adapter_digest,
        "drafts": summary.drafts,
        "signed": summary.signed,
        "dropped": summary.dropped,
        "signed_untouched": summary.untouched,
        "infills": summary.infills,
        "sentences_kept": summary.kept,
        "sentences_edited": summary.edited,
        "sentences_deleted": summary.deleted,
        "sentences_added": summary.added,
    }
    for name in ("kept", "edited", "deleted"):
        row[f"share_{name}"] = _rounded(summary.share(getattr(summary, name)))
    for section in SECTION_NAMES:
        row[f"distance_{section}"] = _rounded(summary.distances.get(section))
    for name in ("order_to_draft", "draft_to_open", "open_to_sign"):
        times: Spread | None = getattr(summary, name)
        row[f"{name}_median"] = _rounded(times.median if times else None)
        row[f"{name}_p90"] = _rounded(times.ninth_tenth if times else None)
    return row | _disputes(summary.disputes)


def usage_row(usage: Usage) -> dict[str, Any]:
    """One draft as a flat row; its report is named by its id here, and nothing else leads to a patient."""
    return {
        "report_id": usage.report_id,
        "drafted_at": usage.drafted_at.isoformat(timespec="seconds"),
        "model": usage.model,
        "model_digest": usage.model_digest,
        "adapter_digest": usage.adapter_digest,
        "site": usage.site,
        "modality": usage.modality,
        "outcome": str(usage.outcome),
        "untouched": usage.is_untouched,
        "infills": usage.infills,
        "sentences_kept": sum(section.kept for section in usage.sections),
        "sentences_edited": sum(section.edited for section in usage.sections),
        "sentences_deleted": sum(section.deleted for section in usage.sections),
        "sentences_added": sum(section.added for section in usage.sections),
        **{
            f"distance_{name}": _rounded(next((s.distance for s in usage.sections if s.name == name), None))
            for name in SECTION_NAMES
        },
        "order_to_draft": _rounded(usage.order_to_draft),
        "draft_to_open": _rounded(usage.draft_to_open),
        "open_to_sign": _rounded(usage.open_to_sign),
        **_disputes(usage.disputes),
    }


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV (RFC 4180), with a head; empty where there are none."""
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(str(one or "-") for one in value)
    # Spreadsheets take such a text for a formula.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _disputes(disputes: Disputes) -> dict[str, int]:
    return {
        "disputes": disputes.raised,
        "disputes_kept": disputes.kept,
        "disputes_changed": disputes.changed,
        "disputes_removed": disputes.removed,
        "disputes_open": disputes.open,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def span_of(since: str | None, until: str | None, now: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """The span from the beginning of one day to the end of another (YYYY-MM-DD in the site's zone).

    Without days: the 90 days up to now. Raises Invalid, naming the one that is no day.
    """
    end = _day(until, "until", zone) + timedelta(days=1) if until else now
    start = _day(since, "since", zone) if since else end - timedelta(days=90)
    if start >= end:
        raise Invalid("bad-span", "The first day comes after the last one.", "since")
    return start, end


def _day(text: str, place: str, zone: tzinfo) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(text), time(), zone)
    except ValueError:
        raise Invalid("bad-day", "Expected a day as YYYY-MM-DD.", place) from None
