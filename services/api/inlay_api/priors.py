"""Earlier examinations of a report's patient, with what was reported of them: to read beside the new one."""

from __future__ import annotations

from flask import Blueprint, Response

from inlay_api.answers import tagged_answer
from inlay_api.present import prior_body
from inlay_api.routes import Call, Route, Routes
from inlay_core.application.priors import priors_of_report
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Permission

routes = Routes(Blueprint("priors", __name__))


@routes.add(
    Route(
        "GET",
        "/reports/{report_id}/priors",
        "listPriors",
        "Earlier examinations of the patient, the newest first: what archive, RIS and Inlay know of them.",
        (200, "PriorList"),
        Permission.READ_REPORTS,
        tagged=True,
        errors=(404,),
    )
)
def list_priors(call: Call, report_id: str) -> Response:
    """The texts to compare with. They reach the model only where the site lets imported text reach it."""
    priors = priors_of_report(call.desk.services.reader(), call.actor, report_id)
    answer = tagged_answer({"priors": [prior_body(prior) for prior in priors]})
    if answer.status_code == 200:
        call.record(Tag.READER_PRIOR_READ, (Kind.REPORT, report_id), report_id)
    return answer
