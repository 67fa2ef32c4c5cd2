"""The page at /: the worklist and one report, rendered by the server, without scripts and without other origins.

The embedded mode (loopback only) shows it to whoever sits at the machine, as an identity that can only read until they
choose another one.
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, render_template, request

from inlay_api.bodies import whole_number
from inlay_api.desk import desk
from inlay_api.pictures import picture
from inlay_api.present import page_body, report_body
from inlay_api.routes import Call
from inlay_api.visitors import visitor
from inlay_core.application import queries
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Permission
from inlay_core.domain.ids import check_id

blueprint: Final = Blueprint("pages", __name__)

PAGE_SIZE: Final = 50


@blueprint.get("/")
def worklist() -> Response:
    """The worklist."""
    call = _reader()
    offset = whole_number(request.args.get("offset"), "offset", 0, 1_000_000, 0)
    found = queries.worklist(call.desk.services.reader(), call.actor, offset=offset, limit=PAGE_SIZE)
    call.record(Tag.READER_REPORT_SEARCHED, (Kind.ACCESS, "worklist"))
    return _html("worklist.html", **page_body(found))


@blueprint.get("/reports/<report_id>")
def report(report_id: str) -> Response:
    """One report with its notice, and who wrote each fragment."""
    call = _reader()
    reader = call.desk.services.reader()
    row = queries.read_report(reader, call.actor, check_id(report_id, "report_id"))
    jobs = queries.jobs_of_report(reader, call.actor, report_id)
    call.record(Tag.READER_REPORT_READ, (Kind.REPORT, report_id), report_id, row.report.version)
    return _html("report.html", report=report_body(row, jobs))


@blueprint.get("/reports/<report_id>/image")
def image(report_id: str) -> Response:
    """The study's image beside the report."""
    call = _reader()
    row = queries.read_report(call.desk.services.reader(), call.actor, check_id(report_id, "report_id"))
    return picture(call.desk, row.order, dict(request.args))


def _reader() -> Call:
    """Who looks: whoever is logged in or has a token, else the demonstration's reader in the embedded mode."""
    return Call(desk(), visitor(Permission.READ_REPORTS, "page"))


def _html(template: str, **values: object) -> Response:
    return Response(render_template(template, **values), content_type="text/html; charset=utf-8")
