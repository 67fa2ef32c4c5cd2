"""Jobs: where one stands, cancelling it, and its canvases as they are denoised."""

from __future__ import annotations

from flask import Blueprint, Response, request

from inlay_api import events
from inlay_api.answers import json_answer, json_bytes, not_modified, tagged_answer
from inlay_api.conditions import check_tag, content_tag, is_known
from inlay_api.present import Body, job_detail
from inlay_api.routes import Call, Query, Route, Routes
from inlay_core.application import drafting, queries
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Permission
from inlay_core.domain.job import Job, JobState

routes = Routes(Blueprint("jobs", __name__))


@routes.add(
    Route(
        "GET",
        "/jobs/{job_id}",
        "readJob",
        "A job; once it is done with its run record, alternatives per gap (best first) and a digest per locked span.",
        (200, "JobDetail"),
        Permission.READ_JOBS,
        tagged=True,
        errors=(404,),
    )
)
def read_job(call: Call, job_id: str) -> Response:
    """Where the job stands. 304 only for one that does not wait: others move before it."""
    job = queries.read_job(call.desk.services.reader(), call.actor, job_id)
    body = detail_of(call, job)
    tag = _tag(body)
    if body["queue_position"] is None and is_known(request, tag):
        return not_modified(tag)
    call.record(Tag.READER_JOB_READ, (Kind.JOB, job.id), job.report_id)
    return json_answer(body, tag=tag)


@routes.add(
    Route(
        "DELETE",
        "/jobs/{job_id}",
        "cancelJob",
        "Cancel an open job; a running one stops between two denoising steps.",
        (200, "JobDetail"),
        Permission.CANCEL_JOBS,
        writes=True,
        errors=(404, 409),
    )
)
def cancel_job(call: Call, job_id: str) -> Response:
    """Cancel, whatever it is doing (`If-Match: *`), or only while it is as the caller saw it."""
    job = queries.read_job(call.desk.services.reader(), call.actor, job_id)
    check_tag(request, _tag(detail_of(call, job)))
    after = detail_of(call, drafting.cancel_job(*call.desk.act, call.actor, job_id))
    return json_answer(after, tag=_tag(after))


@routes.add(
    Route(
        "GET",
        "/jobs/{job_id}/events",
        "followJob",
        "Server-sent events: `state` with the place in the queue, `step` with each denoising step's canvas, and at the "
        "end `result`.",
        (200, "text/event-stream"),
        Permission.READ_JOBS,
        query=(Query("last_event_id", "As the header Last-Event-ID.", {"type": "string"}),),
        errors=(404, 503),
    )
)
def follow_job(call: Call, job_id: str) -> Response:
    """The canvases of the job. A client that was cut off goes on after the last event that it saw."""
    reader = call.desk.services.reader
    job = queries.read_job(reader(), call.actor, job_id)
    last = request.headers.get("Last-Event-ID", request.args.get("last_event_id", ""))
    if last == events.END:
        # The one answer that keeps EventSource from coming back.
        return Response(status=204)
    call.record(Tag.READER_JOB_READ, (Kind.JOB, job.id), job.report_id)

    def look() -> tuple[JobState, Body]:
        now = queries.read_job(reader(), call.actor, job_id)
        return now.state, detail_of(call, now)

    return events.stream(call.desk, job_id, look, after=events.sequence_of(last))


@routes.add(
    Route(
        "GET",
        "/jobs/{job_id}/canvases",
        "readCanvases",
        "What was shown while the job ran, canvas by canvas: kept for jobs whose result was taken in.",
        (200, "CanvasList"),
        Permission.READ_JOBS,
        tagged=True,
        errors=(404,),
    )
)
def read_canvases(call: Call, job_id: str) -> Response:
    """The run once more, as it was shown; empty where nothing was kept."""
    job = queries.read_job(call.desk.services.reader(), call.actor, job_id)
    canvases = queries.canvases_of_job(call.desk.services.reader(), call.actor, job_id)
    answer = tagged_answer({"canvases": [events.step_body(canvas) for canvas in canvases]})
    if answer.status_code == 200:
        call.record(Tag.READER_JOB_READ, (Kind.JOB, job.id), job.report_id)
    return answer


def detail_of(call: Call, job: Job) -> Body:
    """The job with its outcome."""
    versions = []
    if job.state is JobState.SUCCEEDED:
        versions = list(queries.report_versions(call.desk.services.reader(), call.actor, job.report_id))
    position = queries.queue_position(call.desk.services.reader(), call.desk.services.clock, call.actor, job)
    return job_detail(job, versions, position)


def _tag(body: Body) -> str:
    # The place in the queue is other jobs' doing: it makes nobody's cancelling stale.
    return content_tag(json_bytes(body | {"queue_position": None}))
