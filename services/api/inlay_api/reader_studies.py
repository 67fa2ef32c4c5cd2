"""Blinded reader studies over the API and as pages: made by administrators, graded by radiologists, read out."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, request

from inlay_api import visitors
from inlay_api.answers import json_answer
from inlay_api.bodies import only_keys, read_json, whole_number
from inlay_api.desk import desk
from inlay_api.present import Body
from inlay_api.problems import bad_request
from inlay_api.routes import Call, Query, Route, Routes
from inlay_core.application import oversight, reader_studies
from inlay_core.application.reader_studies import Place, Results
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Permission, may
from inlay_core.domain.ids import check_id
from inlay_core.domain.paired import SignedRanks
from inlay_core.domain.reader_study import BEST_SCORE, Choice, Grade, Mark, ReaderStudy, Sentences

routes: Final = Routes(Blueprint("reader-studies", __name__))
blueprint: Final = Blueprint("reader-study-pages", __name__)


@routes.add(
    Route(
        "GET",
        "/reader-studies",
        "listReaderStudies",
        "The reader studies, newest first, with how many cases the caller has graded; no arms: readers are blinded.",
        (200, "ReaderStudyList"),
        Permission.READ_JOBS,
    )
)
def list_studies(call: Call) -> Response:
    """Names, sizes and the caller's own progress."""
    found = reader_studies.studies(call.desk.services.reader(), call.actor)
    call.record(Tag.READER_STUDY_READ, (Kind.ACCESS, "reader-studies"))
    return json_answer({"studies": [study_body(study, done) for study, done in found]})


@routes.add(
    Route(
        "POST",
        "/reader-studies",
        "createReaderStudy",
        "A study of pairs of drafts: a name, two arms, and per case one draft (text per section) for each arm.",
        (201, "ReaderStudy"),
        Permission.MANAGE_READER_STUDIES,
        body="ReaderStudyRequest",
        errors=(409,),
    )
)
def create_study(call: Call) -> Response:
    """From now on radiologists can grade it."""
    body = read_json(request)
    only_keys(body, ("name", "arms", "cases"))
    arms = body.get("arms")
    if not isinstance(body.get("name"), str) or not isinstance(arms, list) or not all(isinstance(a, str) for a in arms):
        raise bad_request("Expected a name and two arms.", "name")
    study = reader_studies.create_study(*call.desk.act, call.actor, body["name"], arms, body.get("cases"))
    return json_answer(study_body(study, 0), status=201)


@routes.add(
    Route(
        "POST",
        "/reader-studies/{study_id}/close",
        "closeReaderStudy",
        "Take no more grades.",
        (200, "ReaderStudy"),
        Permission.MANAGE_READER_STUDIES,
        body="Empty",
        errors=(404, 409),
    )
)
def close_study(call: Call, study_id: str) -> Response:
    """The study is over."""
    only_keys(read_json(request, optional=True), ())
    return json_answer(study_body(reader_studies.close_study(*call.desk.act, call.actor, study_id), 0))


@routes.add(
    Route(
        "GET",
        "/reader-studies/{study_id}/case",
        "readCase",
        "The caller's next case (or `number`), in the caller's own random order: two drafts without names.",
        (200, "ReaderCase"),
        Permission.GRADE_DRAFTS,
        query=(Query("number", "A case that was graded before.", {"type": "integer", "minimum": 1}),),
        errors=(404,),
    )
)
def read_case(call: Call, study_id: str) -> Response:
    """What to grade; null when everything is graded."""
    place = reader_studies.next_case(call.desk.services.reader(), call.actor, study_id, _number())
    call.record(Tag.READER_STUDY_READ, (Kind.READER_STUDY, study_id), place.case.report_id if place else None)
    return json_answer({"case": case_body(place) if place else None})


@routes.add(
    Route(
        "PUT",
        "/reader-studies/{study_id}/cases/{case_number}/grade",
        "putGrade",
        "What the caller says of a case, in place of what they said before. Null is not said yet.",
        (200, "Grade"),
        Permission.GRADE_DRAFTS,
        body="GradeRequest",
        errors=(404, 409),
    )
)
def put_grade(call: Call, study_id: str, case_number: str) -> Response:
    """Kept, complete or not."""
    body = read_json(request)
    only_keys(body, ("marks", "scores", "choice"))
    if not case_number.isascii() or not case_number.isdecimal() or len(case_number) > 4:
        raise bad_request("Expected the number of a case.", "case_number")
    grade = reader_studies.grade_case(*call.desk.act, call.actor, study_id, int(case_number), body)
    return json_answer(grade_body(grade))


@routes.add(
    Route(
        "GET",
        "/reader-studies/{study_id}/results",
        "readResults",
        "What the complete grades show: scores, marks and preferences per arm, with paired tests.",
        (200, "ReaderResults"),
        Permission.READ_USAGE,
        errors=(404,),
    )
)
def read_results(call: Call, study_id: str) -> Response:
    """Unblinded."""
    found = reader_studies.results(call.desk.services.reader(), call.actor, study_id)
    call.record(Tag.READER_STUDY_READ, (Kind.READER_STUDY, study_id))
    return json_answer(results_body(found))


@routes.add(
    Route(
        "GET",
        "/reader-studies/{study_id}/grades",
        "exportGrades",
        "Every grade, unblinded, without texts.",
        (200, "GradeExport"),
        Permission.READ_USAGE,
        errors=(404,),
    )
)
def export_grades(call: Call, study_id: str) -> Response:
    """For statistics of one's own."""
    study, rows = reader_studies.export(call.desk.services.reader(), call.actor, study_id)
    call.record(Tag.READER_STUDY_READ, (Kind.READER_STUDY, study_id))
    return json_answer({"study": study.name, "arms": list(study.arms), "rows": rows})


# ---------------------------------------------------------------------------------------------- bodies


def study_body(study: ReaderStudy, done: int) -> Body:
    """A study as its readers may know it."""
    return {
        "id": study.id,
        "name": study.name,
        "cases": len(study.cases),
        "graded_by_you": done,
        "created_at": study.created_at.isoformat(),
        "closed_at": study.closed_at.isoformat() if study.closed_at else None,
    }


def case_body(place: Place) -> Body:
    """A case as its reader sees it."""
    return {
        "number": place.number,
        "position": place.position,
        "of": len(place.study.cases),
        "done": place.done,
        "label": place.case.label,
        "report_id": place.case.report_id,
        "drafts": [_sections(draft) for draft in place.drafts],
        "grade": grade_body(place.grade) if place.grade else None,
    }


def _sections(draft: Sentences) -> list[Body]:
    return [{"name": name, "sentences": list(sentences)} for name, sentences in draft]


def grade_body(grade: Grade) -> Body:
    """What was said."""
    return {**grade.to_json(), "number": grade.number, "complete": grade.is_complete}


def results_body(found: Results) -> Body:
    """What a study shows."""
    arms = [
        {
            "name": found.study.arms[arm],
            "score": found.scores[arm],
            "marks": {str(mark): count for mark, count in found.marks[arm].items()},
            "preferred": found.choices[arm],
        }
        for arm in (0, 1)
    ]
    return {
        "study": found.study.name,
        "readers": found.readers,
        "grades": found.grades,
        "cases": found.cases,
        "arms": arms,
        "preferred_neither": found.choices[2],
        "score_test": _test(found.score_test),
        "error_test": _test(found.error_test),
        "choice_test": {"first": found.balance[0], "second": found.balance[1], "p": found.choice_p},
    }


def _test(test: SignedRanks) -> Body:
    return {
        "n": test.n,
        "equal": test.equal,
        "positive": test.positive,
        "negative": test.negative,
        "p": test.p,
        "exact": test.exact,
    }


def _number() -> int | None:
    return whole_number(request.args.get("number"), "number", 1, 9999, 0) or None


# ---------------------------------------------------------------------------------------------- pages


@blueprint.get("/oversight/studies")
def studies_page() -> Response:
    """The studies: readers go on grading, those who watch over them read results."""
    actor = visitors.visitor(Permission.READ_JOBS, "reader-studies")
    found = reader_studies.studies(desk().services.reader(), actor)
    Call(desk(), actor).record(Tag.READER_STUDY_READ, (Kind.ACCESS, "reader-studies"))
    return visitors.html(
        "oversight_studies.html",
        studies=found,
        grades=may(actor, Permission.GRADE_DRAFTS),
        reads=may(actor, Permission.READ_USAGE),
    )


@blueprint.get("/oversight/studies/<study_id>")
def case_page(study_id: str) -> Response:
    """The reader's next case."""
    actor = visitors.visitor(Permission.GRADE_DRAFTS, "reader-study")
    reader = desk().services.reader()
    place = reader_studies.next_case(reader, actor, check_id(study_id, "study_id"), _number())
    report_id = place.case.report_id if place else None
    Call(desk(), actor).record(Tag.READER_STUDY_READ, (Kind.READER_STUDY, study_id), report_id)
    return visitors.html(
        "oversight_case.html",
        place=place,
        study_id=study_id,
        marks=[(str(mark), mark.value.replace("-", " ")) for mark in Mark],
        scores=range(1, BEST_SCORE + 1),
        choices=[(str(Choice.FIRST), "Draft 1"), (str(Choice.NEITHER), "Neither"), (str(Choice.SECOND), "Draft 2")],
    )


@blueprint.post("/oversight/studies/<study_id>/cases/<int:number>")
def grade_page(study_id: str, number: int) -> Response:
    """Keep what the form says; what is left out is not said yet, and the case comes again."""
    actor = visitors.visitor(Permission.GRADE_DRAFTS, "reader-study")
    place = reader_studies.next_case(desk().services.reader(), actor, check_id(study_id, "study_id"), number)
    assert place is not None
    form = request.form
    body: dict[str, Any] = {
        "marks": [
            [form.get(f"mark-{side}-{place_of}") for place_of in range(_count(draft))]
            for side, draft in enumerate(place.drafts)
        ],
        "scores": [_score(form.get(f"score-{side}", "")) for side in (0, 1)],
        "choice": form.get("choice"),
    }
    reader_studies.grade_case(*desk().act, actor, study_id, number, body)
    return visitors.see_other(f"/oversight/studies/{study_id}")


@blueprint.get("/oversight/studies/<study_id>/results")
def results_page(study_id: str) -> Response:
    """What the study shows."""
    actor = visitors.visitor(Permission.READ_USAGE, "reader-study-results")
    found = reader_studies.results(desk().services.reader(), actor, check_id(study_id, "study_id"))
    Call(desk(), actor).record(Tag.READER_STUDY_READ, (Kind.READER_STUDY, study_id))
    return visitors.html("oversight_results.html", results=results_body(found), study_id=study_id)


@blueprint.get("/oversight/studies/<study_id>/grades.csv")
def grades_csv(study_id: str) -> Response:
    """Every grade for a spreadsheet."""
    actor = visitors.visitor(Permission.READ_USAGE, "reader-study-results")
    _, rows = reader_studies.export(desk().services.reader(), actor, check_id(study_id, "study_id"))
    Call(desk(), actor).record(Tag.READER_STUDY_READ, (Kind.READER_STUDY, study_id))
    answer = Response(oversight.csv_text(rows), content_type="text/csv; charset=utf-8")
    answer.headers["Content-Disposition"] = 'attachment; filename="grades.csv"'
    return answer


def _score(text: str) -> int | None:
    """The score of a form; None for what is none."""
    return int(text) if len(text) == 1 and text.isdecimal() else None


def _count(draft: Sentences) -> int:
    return sum(len(sentences) for _, sentences in draft)
