"""Reports: the worklist, one report and its versions, and what a clinician does to it.

Every change names the version that its author saw; the use cases compare it inside their transaction.
"""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, request

from inlay_api.answers import json_answer, not_modified, tagged_answer
from inlay_api.bodies import MAX_REASON, only_keys, read_json, section_edits, text_list, text_of, whole_number
from inlay_api.conditions import expected_version, is_known, version_tag
from inlay_api.pictures import PICTURE_QUERY, StudyNumbers, descriptions, picture
from inlay_api.present import check_body, event_body, is_settled, job_body, page_body, report_body, version_body
from inlay_api.problems import bad_request
from inlay_api.routes import PREFIX, Call, Query, Route, Routes
from inlay_core.application import drafting, editing, queries, signing
from inlay_core.application.ports import ReportRow, ReportSearch, Sort
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.checks import check_report
from inlay_core.domain.identity import Permission
from inlay_core.domain.infill import InfillRequest
from inlay_core.domain.job import Job
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.domain.report import Report

routes = Routes(Blueprint("reports", __name__))

MAX_PAGE: Final = 200
DEFAULT_PAGE: Final = 50
MAX_OFFSET: Final = 1_000_000
_OFFSET: Final = Query("offset", "How many to leave out.", {"type": "integer", "minimum": 0, "default": 0})
_LIMIT: Final = Query(
    "limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE}
)
_SORT: Final = Query("sort", "STAT first and then age, or newest change first.", {"enum": [str(sort) for sort in Sort]})
_STATUS: Final = Query(
    "status",
    "Statuses, separated by commas or repeated.",
    {"type": "array", "items": {"enum": [str(status) for status in Status]}},
)
_SEARCH_KEYS: Final = frozenset(
    {
        "ids",
        "accession_number",
        "accession_assigner",
        "patient_identifier",
        "patient_assigner",
        "study_instance_uid",
        "status",
        "sort",
        "offset",
        "limit",
    }
)
_CHANGED: Final = (200, "Report")


@routes.add(
    Route(
        "GET",
        "/reports",
        "listReports",
        "The worklist.",
        (200, "ReportPage"),
        Permission.READ_REPORTS,
        query=(_STATUS, _SORT, _OFFSET, _LIMIT),
        tagged=True,
    )
)
def list_reports(call: Call) -> Response:
    """The worklist: STAT first, then the oldest order."""
    words = [word for value in request.args.getlist("status") for word in value.split(",")]
    search = ReportSearch(statuses=_statuses(words) if words else None)
    return _found(call, search, dict(request.args))


@routes.add(
    Route(
        "POST",
        "/reports/search",
        "searchReports",
        "Reports by identifiers, which travel in the body.",
        (200, "ReportPage"),
        Permission.READ_REPORTS,
        body="ReportSearch",
        tagged=True,
    )
)
def search_reports(call: Call) -> Response:
    """Reports that fit all of the given criteria; several values of one are alternatives."""
    body = read_json(request)
    only_keys(body, _SEARCH_KEYS)
    status = text_list(body, "status")
    accession_assigner = text_of(body, "accession_assigner", 256) or None
    patient_assigner = text_of(body, "patient_assigner", 256) or None
    search = ReportSearch(
        ids=text_list(body, "ids"),
        accessions=tuple((accession_assigner, number) for number in text_list(body, "accession_number")),
        patient_identifiers=tuple((patient_assigner, number) for number in text_list(body, "patient_identifier")),
        study_instance_uids=text_list(body, "study_instance_uid"),
        statuses=_statuses(status) if "status" in body else None,
    )
    return _found(call, search, body)


@routes.add(
    Route(
        "GET",
        "/reports/{report_id}",
        "readReport",
        "A report: its newest version with text, order, jobs and run records.",
        _CHANGED,
        Permission.READ_REPORTS,
        tagged=True,
        errors=(404,),
    )
)
def read_report(call: Call, report_id: str) -> Response:
    """The newest version. Its ETag is the version; 304 only while nothing around the version has moved either."""
    row, jobs = _row(call, report_id)
    tag = version_tag(row.report.version)
    if is_settled(row, jobs) and is_known(request, tag):
        return not_modified(tag)
    call.record(Tag.READER_REPORT_READ, (Kind.REPORT, report_id), report_id, row.report.version)
    return json_answer(report_body(row, jobs), tag=tag)


@routes.add(
    Route(
        "GET",
        "/reports/{report_id}/versions",
        "listVersions",
        "All versions, the first one first, without their text.",
        (200, "VersionList"),
        Permission.READ_REPORTS,
        tagged=True,
        errors=(404,),
    )
)
def list_versions(call: Call, report_id: str) -> Response:
    """What made each version."""
    versions = queries.report_versions(call.desk.services.reader(), call.actor, report_id)
    answer = tagged_answer({"versions": [version_body(version) for version in versions]})
    if answer.status_code == 200:
        call.record(Tag.READER_REPORT_READ, (Kind.REPORT, report_id), report_id)
    return answer


@routes.add(
    Route(
        "GET",
        "/reports/{report_id}/versions/{version}",
        "readVersion",
        "One version, as it was.",
        _CHANGED,
        Permission.READ_REPORTS,
        tagged=True,
        errors=(404,),
    )
)
def read_version(call: Call, report_id: str, version: int) -> Response:
    """One version with its text. The order and the jobs are as they are now."""
    row, jobs = _row(call, report_id, version)
    answer = tagged_answer(report_body(row, jobs))
    if answer.status_code == 200:
        call.record(Tag.READER_REPORT_READ, (Kind.REPORT, report_id), report_id, version)
    return answer


@routes.add(
    Route(
        "POST",
        "/reports/{report_id}/open",
        "openReport",
        "A clinician begins to read a draft.",
        _CHANGED,
        Permission.EDIT_REPORTS,
        body="Empty",
        writes=True,
        errors=(404, 409),
    )
)
def open_report(call: Call, report_id: str) -> Response:
    """The draft is in review from now on."""
    version = expected_version(request)
    only_keys(read_json(request, optional=True), ())
    return _changed(call, editing.open_report(*call.desk.act, call.actor, report_id, expected_version=version))


@routes.add(
    Route(
        "PUT",
        "/reports/{report_id}/fragments",
        "putFragments",
        "The clinician's text and locks: the whole ordered list of each section that is named.",
        _CHANGED,
        Permission.EDIT_REPORTS,
        body="Edits",
        writes=True,
        errors=(404, 409, 423),
    )
)
def put_fragments(call: Call, report_id: str) -> Response:
    """Text that did not change keeps its origin; changed text becomes the clinician's."""
    version = expected_version(request)
    body = read_json(request)
    only_keys(body, ("sections",))
    edits = section_edits(body)
    site = call.desk.services.site
    after = editing.put_fragments(
        *call.desk.act, call.actor, report_id, expected_version=version, edits=edits, site=site
    )
    return _changed(call, after)


@routes.add(
    Route(
        "POST",
        "/reports/{report_id}/infill",
        "requestInfill",
        "Have the model fill the gaps between locked text.",
        (202, "Job"),
        Permission.REQUEST_GENERATION,
        body="InfillRequest",
        writes=True,
        location=True,
        errors=(404, 409, 423, 503),
    )
)
def request_infill(call: Call, report_id: str) -> Response:
    """A job; an older open one of this report is superseded."""
    version = expected_version(request)
    body = read_json(request)
    only_keys(body, ("sections", "seed", "steps", "alternatives", "rewrite", "warm_start"))
    asked = InfillRequest.from_json(body)
    job = drafting.request_infill(
        *call.desk.act,
        call.actor,
        report_id,
        expected_version=version,
        request=asked,
        site=call.desk.services.site,
    )
    return _accepted(call, job)


@routes.add(
    Route(
        "POST",
        "/reports/{report_id}/retry",
        "retryDraft",
        "Ask again for a draft that failed.",
        (202, "Job"),
        Permission.REQUEST_GENERATION,
        body="Empty",
        writes=True,
        location=True,
        errors=(404, 409),
    )
)
def retry_draft(call: Call, report_id: str) -> Response:
    """A new job for a report that failed."""
    version = expected_version(request)
    only_keys(read_json(request, optional=True), ())
    job = drafting.retry_draft(*call.desk.act, call.actor, report_id, expected_version=version)
    return _accepted(call, job)


@routes.add(
    Route(
        "POST",
        "/reports/{report_id}/sign",
        "signReport",
        "A named clinician makes the version that they saw final.",
        _CHANGED,
        Permission.SIGN_REPORTS,
        body="Empty",
        writes=True,
        errors=(404, 409),
    )
)
def sign(call: Call, report_id: str) -> Response:
    """Sign-off."""
    version = expected_version(request)
    only_keys(read_json(request, optional=True), ())
    signed = signing.sign(
        *call.desk.act,
        call.actor,
        report_id,
        expected_version=version,
        site=call.desk.services.site,
    )
    return _changed(call, signed)


@routes.add(
    Route(
        "POST",
        "/reports/{report_id}/amend",
        "amendReport",
        "New text after sign-off, signed in the same act.",
        _CHANGED,
        Permission.SIGN_REPORTS,
        body="Amendment",
        writes=True,
        errors=(404, 409, 423),
    )
)
def amend(call: Call, report_id: str) -> Response:
    """An amendment, a correction or an addendum, with its reason."""
    version = expected_version(request)
    body = read_json(request)
    only_keys(body, ("kind", "reason", "sections"))
    kinds = {str(kind): kind for kind in (Event.AMEND, Event.CORRECT, Event.APPEND)}
    kind = kinds.get(text_of(body, "kind", 20) or "amend")
    if kind is None:
        raise bad_request(f"An amendment is one of {', '.join(kinds)}.", "kind", "unknown-amendment")
    amended = signing.amend(
        *call.desk.act,
        call.actor,
        report_id,
        expected_version=version,
        kind=kind,
        edits=section_edits(body),
        reason=text_of(body, "reason", MAX_REASON),
        site=call.desk.services.site,
    )
    return _changed(call, amended)


@routes.add(
    Route(
        "POST",
        "/reports/{report_id}/retract",
        "retractReport",
        "Withdraw a signed report: it was entered in error.",
        _CHANGED,
        Permission.SIGN_REPORTS,
        body="Retraction",
        writes=True,
        errors=(404, 409),
    )
)
def retract(call: Call, report_id: str) -> Response:
    """Withdrawal, with its reason."""
    version = expected_version(request)
    body = read_json(request)
    only_keys(body, ("reason",))
    withdrawn = signing.retract(
        *call.desk.act,
        call.actor,
        report_id,
        expected_version=version,
        reason=text_of(body, "reason", MAX_REASON),
        site=call.desk.services.site,
    )
    return _changed(call, withdrawn)


@routes.add(
    Route(
        "GET",
        "/reports/{report_id}/audit",
        "readAudit",
        "What happened to the report, the oldest first.",
        (200, "Trail"),
        Permission.READ_AUDIT,
        query=(_OFFSET, _LIMIT),
        errors=(404,),
    )
)
def read_audit(call: Call, report_id: str) -> Response:
    """The report's trail, a page at a time. Reading it is an event of its own, which the next reading shows."""
    offset, limit = _window(dict(request.args))
    events = queries.trail_of_report(call.desk.services.reader(), call.actor, report_id, offset=offset, limit=limit)
    call.record(Tag.READER_AUDIT_READ, (Kind.REPORT, report_id), report_id)
    return json_answer({"events": [event_body(event) for event in events], "offset": offset, "limit": limit})


@routes.add(
    Route(
        "GET",
        "/reports/{report_id}/checks",
        "checkReport",
        "What to look at before signing: contradictions in the text and with the order, sizes without unit.",
        (200, "CheckList"),
        Permission.READ_REPORTS,
        tagged=True,
        errors=(404,),
    )
)
def check(call: Call, report_id: str) -> Response:
    """What plain rules notice about the newest version; nothing is changed, and signing does not depend on it."""
    row = queries.read_report(call.desk.services.reader(), call.actor, report_id)
    found = [check_body(one) for one in check_report(row.report.sections, row.order)]
    answer = tagged_answer({"version": row.report.version, "checks": found})
    if answer.status_code == 200:
        call.record(Tag.READER_REPORT_READ, (Kind.REPORT, report_id), report_id, row.report.version)
    return answer


@routes.add(
    Route(
        "GET",
        "/reports/{report_id}/images",
        "listImages",
        "The images of the study: views, orientation, size, and the window that the file offers.",
        (200, "ImageList"),
        Permission.READ_REPORTS,
        tagged=True,
        errors=(404, 409, 503),
    )
)
def list_images(call: Call, report_id: str) -> Response:
    """What each image says about itself, the frontal one first; none while they have not arrived."""
    row = queries.read_report(call.desk.services.reader(), call.actor, report_id)
    answer = tagged_answer({"images": descriptions(call.desk, StudyNumbers.of(row.order))})
    if answer.status_code == 200:
        call.record(Tag.READER_REPORT_READ, (Kind.REPORT, report_id), report_id)
    return answer


@routes.add(
    Route(
        "GET",
        "/reports/{report_id}/image",
        "readImage",
        "The study's image as a grey PNG.",
        (200, "image/png"),
        Permission.READ_REPORTS,
        query=PICTURE_QUERY,
        tagged=True,
        errors=(404, 409, 503),
    )
)
def read_image(call: Call, report_id: str) -> Response:
    """The image, windowed as the file says or as the query asks."""
    row = queries.read_report(call.desk.services.reader(), call.actor, report_id)
    answer = picture(call.desk, StudyNumbers.of(row.order), dict(request.args))
    if answer.status_code == 200:
        call.record(Tag.READER_REPORT_READ, (Kind.REPORT, report_id), report_id)
    return answer


def _row(call: Call, report_id: str, version: int | None = None) -> tuple[ReportRow, list[Job]]:
    reader = call.desk.services.reader()
    row = queries.read_report(reader, call.actor, report_id, version)
    return row, list(queries.jobs_of_report(reader, call.actor, report_id))


def _changed(call: Call, report: Report) -> Response:
    """The version that the change made, as a later reading would show it."""
    row, jobs = _row(call, report.id, report.version)
    return json_answer(report_body(row, jobs), tag=version_tag(report.version))


def _accepted(call: Call, job: Job) -> Response:
    call.desk.wakeups.tell(job.id)
    return json_answer(job_body(job), status=202, location=f"{PREFIX}/jobs/{job.id}")


def _found(call: Call, search: ReportSearch, asked: dict[str, Any]) -> Response:
    offset, limit = _window(asked)
    sort = _sort(asked.get("sort"))
    reader = call.desk.services.reader()
    page = queries.search_reports(reader, call.actor, search, sort=sort, offset=offset, limit=limit)
    answer = tagged_answer(page_body(page, queries.attendance(reader, call.actor, page)))
    # A worklist that is polled shows nothing new with 304, and fills no trail.
    if answer.status_code == 200:
        call.record(Tag.READER_REPORT_SEARCHED, (Kind.ACCESS, "worklist"))
    return answer


def _window(asked: dict[str, Any]) -> tuple[int, int]:
    offset = whole_number(asked.get("offset"), "offset", 0, MAX_OFFSET, 0)
    return offset, whole_number(asked.get("limit"), "limit", 1, MAX_PAGE, DEFAULT_PAGE)


def _sort(word: Any) -> Sort:
    if word is not None and word not in [str(sort) for sort in Sort]:
        raise bad_request(f"Expected one of {', '.join(Sort)}.", "sort")
    return Sort.WORKLIST if word is None else Sort(word)


def _statuses(words: list[str] | tuple[str, ...]) -> tuple[Status, ...]:
    known = {str(status): status for status in Status}
    if not all(word in known for word in words):
        raise bad_request(f"A status is one of {', '.join(known)}.", "status", "unknown-status")
    return tuple(known[word] for word in words)
