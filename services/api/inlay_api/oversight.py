"""How drafts are used, for those who watch over it: figures by time, model and adapter; as JSON, CSV and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flask import Blueprint, Response, request

from inlay_api import charts, visitors
from inlay_api.answers import json_answer
from inlay_api.desk import Desk, desk
from inlay_api.problems import bad_request
from inlay_api.routes import Call, Query, Route, Routes
from inlay_core.application import oversight
from inlay_core.domain.identity import Actor, Permission
from inlay_core.domain.usage import Step, Summary, summaries

routes: Final = Routes(Blueprint("usage", __name__))
blueprint: Final = Blueprint("oversight-page", __name__)
_DAY: Final = {"type": "string", "format": "date"}
_QUERY: Final = (
    Query("since", "First day, in the site's time zone; without it 90 days before the end.", _DAY),
    Query("until", "Last day; without it up to now.", _DAY),
    Query("by", "How time is cut.", {"type": "string", "enum": [str(step) for step in Step]}),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The span and step that a query asks for."""

    since: datetime
    until: datetime
    step: Step


@routes.add(
    Route(
        "GET",
        "/usage",
        "readUsage",
        "How drafts were used: kept, edited and deleted sentences, edit distance, times, disputes; by time and model.",
        (200, "Usage"),
        Permission.READ_USAGE,
        query=_QUERY,
    )
)
def read_usage(call: Call) -> Response:
    """Figures of the drafts that came in the span; no text and no patient."""
    asked = _asked(call.desk)
    rows = [oversight.summary_row(summary) for summary in _figures(call.desk, call.actor, asked)]
    body = {"since": asked.since.isoformat(), "until": asked.until.isoformat(), "by": asked.step, "rows": rows}
    return json_answer(body)


@routes.add(
    Route(
        "GET",
        "/usage.csv",
        "readUsageCsv",
        "The same as CSV.",
        (200, "text/csv"),
        Permission.READ_USAGE,
        query=_QUERY,
    )
)
def read_usage_csv(call: Call) -> Response:
    """For a spreadsheet."""
    return _csv(call.desk, call.actor)


@blueprint.get("/oversight")
def page() -> Response:
    """Figures, plots, and the way to the CSV."""
    actor = visitors.visitor(Permission.READ_USAGE, "oversight")
    asked = _asked(desk())
    found = _figures(desk(), actor, asked)
    return visitors.html(
        "oversight.html",
        rows=[oversight.summary_row(summary) for summary in found],
        charts=_charts(found),
        asked=asked,
        steps=[str(step) for step in Step],
        query=request.query_string.decode("ascii", "ignore"),
        last_day=(asked.until.astimezone(desk().settings.zone)).date(),
        first_day=asked.since.astimezone(desk().settings.zone).date(),
        chart_left=charts.LEFT,
        chart_width=charts.WIDTH,
        chart_height=charts.HEIGHT,
    )


@blueprint.get("/oversight/usage.csv")
def page_csv() -> Response:
    """The page's figures for a spreadsheet."""
    return _csv(desk(), visitors.visitor(Permission.READ_USAGE, "oversight"))


def _asked(at: Desk) -> Asked:
    words = {str(step): step for step in Step}
    by = request.args.get("by", str(Step.WEEK))
    if by not in words:
        raise bad_request(f"Expected one of {', '.join(words)}.", "by")
    given = (request.args.get("since"), request.args.get("until"))
    return Asked(*oversight.span_of(*given, at.services.clock(), at.settings.zone), words[by])


def _figures(at: Desk, actor: Actor, asked: Asked) -> list[Summary]:
    """The figures; that somebody reads them is recorded before they see any."""
    oversight.record_reading(*at.act, actor, asked.since, asked.until)
    found = oversight.usages(at.services.reader(), actor, asked.since, asked.until)
    return summaries(found, asked.step, at.settings.zone)


def _csv(at: Desk, actor: Actor) -> Response:
    rows = [oversight.summary_row(summary) for summary in _figures(at, actor, _asked(at))]
    answer = Response(oversight.csv_text(rows), content_type="text/csv; charset=utf-8")
    answer.headers["Content-Disposition"] = 'attachment; filename="inlay-usage.csv"'
    return answer


def _charts(found: Sequence[Summary]) -> list[charts.Chart]:
    """Per model and adapter one chart of shares; over all of them one of distances and one of times."""
    made: list[charts.Chart] = []
    models = list(dict.fromkeys((one.model, one.model_digest, one.adapter_digest) for one in found))
    for model in models:
        own = [one for one in found if (one.model, one.model_digest, one.adapter_digest) == model]
        columns = [(one.step, _shares(one)) for one in own if one.kept + one.edited + one.deleted]
        name = f"{model[0] or 'unknown model'}{f' + adapter {model[2][:8]}' if model[2] else ''}"
        if columns:
            made.append(charts.shares(f"Sentences of signed drafts: {name}", columns))
        steps = [one.step for one in own]
        distances = {
            section: [one.distances.get(section) for one in own]
            for section in dict.fromkeys(section for one in own for section in one.distances)
        }
        if distances:
            made.append(charts.courses(f"Mean edit distance by section: {name}", steps, distances))
        times = {
            "order to draft": [one.order_to_draft.median if one.order_to_draft else None for one in own],
            "draft to open": [one.draft_to_open.median if one.draft_to_open else None for one in own],
            "open to sign": [one.open_to_sign.median if one.open_to_sign else None for one in own],
        }
        minutes = {key: [None if v is None else round(v / 60, 2) for v in values] for key, values in times.items()}
        made.append(charts.courses(f"Median times in minutes: {name}", steps, minutes))
    return made


def _shares(one: Summary) -> dict[str, float]:
    return {name: one.share(getattr(one, name)) or 0.0 for name in ("kept", "edited", "deleted")}
