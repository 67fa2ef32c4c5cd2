"""The pages at / and /reports: the worklist and one report, rendered by the server so that they can be read at once.

Scripts of this origin take over from there, and speak with the workstation API as anybody else does. The embedded mode
(loopback only) shows the pages to whoever sits at the machine, as an identity that can only read until they choose
another one.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from flask import Blueprint, Response, render_template, request

from inlay_api.bodies import whole_number
from inlay_api.desk import desk
from inlay_api.pictures import StudyNumbers, picture
from inlay_api.present import page_body, report_body
from inlay_api.routes import Call
from inlay_api.visitors import visitor
from inlay_core.application import queries
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Permission, may
from inlay_core.domain.ids import check_id
from inlay_core.domain.order import Order

blueprint: Final = Blueprint("pages", __name__)

PAGE_SIZE: Final = 50


@blueprint.get("/")
def worklist() -> Response:
    """The worklist."""
    call = _reader()
    offset = whole_number(request.args.get("offset"), "offset", 0, 1_000_000, 0)
    reader = call.desk.services.reader()
    found = queries.worklist(reader, call.actor, offset=offset, limit=PAGE_SIZE)
    call.record(Tag.READER_REPORT_SEARCHED, (Kind.ACCESS, "worklist"))
    return _html("worklist.html", **page_body(found, queries.attendance(reader, call.actor, found)))


@blueprint.get("/reports/<report_id>")
def report(report_id: str) -> Response:
    """One report with its notice, and who wrote each fragment."""
    call = _reader()
    reader = call.desk.services.reader()
    row = queries.read_report(reader, call.actor, check_id(report_id, "report_id"))
    jobs = queries.jobs_of_report(reader, call.actor, report_id)
    call.record(Tag.READER_REPORT_READ, (Kind.REPORT, report_id), report_id, row.report.version)
    return _html(
        "report.html",
        report=report_body(row, jobs),
        external=viewer_link(call.desk.settings.viewer_url, row.order),
        may_edit=may(call.actor, Permission.EDIT_REPORTS),
        may_sign=may(call.actor, Permission.SIGN_REPORTS),
    )


@blueprint.get("/reports/<report_id>/image")
def image(report_id: str) -> Response:
    """The study's image beside the report."""
    call = _reader()
    row = queries.read_report(call.desk.services.reader(), call.actor, check_id(report_id, "report_id"))
    return picture(call.desk, StudyNumbers.of(row.order), dict(request.args))


def viewer_link(template: str, order: Order) -> str:
    """The address of the study in the site's own viewer; empty without a viewer or without what it asks for."""
    known = {"study_instance_uid": order.study_instance_uid, "accession_number": order.accession_number}
    for name, value in known.items():
        if "{" + name + "}" in template and not value:
            return ""
        template = template.replace("{" + name + "}", quote(value or "", safe=""))
    return template


def _reader() -> Call:
    """Who looks: whoever is logged in or has a token, else the demonstration's reader in the embedded mode."""
    return Call(desk(), visitor(Permission.READ_REPORTS, "page"))


def _html(template: str, **values: object) -> Response:
    return Response(render_template(template, **values), content_type="text/html; charset=utf-8")
