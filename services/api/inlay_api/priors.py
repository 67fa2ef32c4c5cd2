"""Earlier examinations of a report's patient: reports and images, to read beside the new one."""

from __future__ import annotations

import hashlib

from flask import Blueprint, Response, request

from inlay_api.answers import tagged_answer
from inlay_api.pictures import PICTURE_QUERY, StudyNumbers, descriptions, picture
from inlay_api.present import prior_body
from inlay_api.routes import Call, Route, Routes
from inlay_core.application.priors import priors_of_report
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.errors import NotFound
from inlay_core.domain.identity import Permission
from inlay_core.domain.prior import Examination

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
    answer = tagged_answer({"priors": [prior_body(prior) | {"key": key_of(report_id, prior)} for prior in priors]})
    return _recorded(call, report_id, answer)


@routes.add(
    Route(
        "GET",
        "/reports/{report_id}/priors/{prior_key}/images",
        "listPriorImages",
        "The images of an earlier examination, as far as they are here; `prior_key` is its `key` in the list.",
        (200, "ImageList"),
        Permission.READ_REPORTS,
        tagged=True,
        errors=(404, 409, 503),
    )
)
def list_prior_images(call: Call, report_id: str, prior_key: str) -> Response:
    """What each image says about itself; none where the study is not in the folder."""
    study = _study(call, report_id, prior_key)
    return _recorded(call, report_id, tagged_answer({"images": descriptions(call.desk, study)}))


@routes.add(
    Route(
        "GET",
        "/reports/{report_id}/priors/{prior_key}/image",
        "readPriorImage",
        "An image of an earlier examination as a grey PNG.",
        (200, "image/png"),
        Permission.READ_REPORTS,
        query=PICTURE_QUERY,
        tagged=True,
        errors=(404, 409, 503),
    )
)
def read_prior_image(call: Call, report_id: str, prior_key: str) -> Response:
    """The image, windowed as the file says or as the query asks."""
    study = _study(call, report_id, prior_key)
    return _recorded(call, report_id, picture(call.desk, study, dict(request.args)))


def key_of(report_id: str, prior: Examination) -> str | None:
    """What names the examination in addresses: a digest, as its numbers identify a patient. None without numbers."""
    if not prior.study_instance_uid and not prior.accession_number:
        return None
    named = f"{report_id}\n{prior.study_instance_uid}\n{prior.accession_number}"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _study(call: Call, report_id: str, prior_key: str) -> StudyNumbers:
    for prior in priors_of_report(call.desk.services.reader(), call.actor, report_id):
        if key_of(report_id, prior) == prior_key:
            return StudyNumbers(prior.study_instance_uid or None, prior.accession_number or None)
    raise NotFound("unknown-prior", "No such earlier examination of the patient.", "prior.key")


def _recorded(call: Call, report_id: str, answer: Response) -> Response:
    if answer.status_code == 200:
        call.record(Tag.READER_PRIOR_READ, (Kind.REPORT, report_id), report_id)
    return answer
