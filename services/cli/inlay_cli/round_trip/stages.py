"""From moments to stages, and to the table. Pure.

Moments are seconds since 1970, of the one clock that client and service share on a machine. A stage is None where one
of its ends was not seen: a canvas may be overtaken by the next one before somebody looks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Stages = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a job.

    By the service: `claimed`, `started` (images read, report reserved), `stored` (the result committed), and
    `published`, when the first canvas that the client saw left the worker. By the client: `first_canvas` and
    `last_event`. `engine` is the model's own time in seconds.
    """

    claimed: float | None
    started: float
    stored: float
    published: float | None
    first_canvas: float | None
    last_event: float
    engine: float


def draft_stages(sent: float, acknowledged: float, job: Seen, result_received: float) -> Stages:
    """An order from its MLLP frame to its draft, and to the result that the RIS gets of it."""
    return {
        "frame to acknowledgement": acknowledged - sent,
        "acknowledgement to claim": _from(acknowledged, job.claimed),
        **_inside(job),
        "frame to first canvas": _from(sent, job.first_canvas),
        "frame to draft stored": job.stored - sent,
        "frame to last event": job.last_event - sent,
        "draft stored to ORU": result_received - job.stored,
        "frame to ORU": result_received - sent,
        **_beside(sent, job),
    }


def infill_stages(sent: float, accepted: float, job: Seen) -> Stages:
    """A request for an infill, from its POST to the last event of its stream."""
    return {
        "POST to 202": accepted - sent,
        "202 to claim": _from(accepted, job.claimed),
        **_inside(job),
        "POST to first canvas": _from(sent, job.first_canvas),
        "POST to last event": job.last_event - sent,
        **_beside(sent, job),
    }


def _inside(job: Seen) -> Stages:
    return {
        "claim to images read": _between(job.claimed, job.started),
        "images read to first canvas (prefix, first step)": _from(job.started, job.published),
        "first canvas published to seen": _between(job.published, job.first_canvas),
        "first canvas published to stored": _between(job.published, job.stored),
        "stored to last event": job.last_event - job.stored,
        "in the worker, claim to stored": _between(job.claimed, job.stored),
    }


def _beside(sent: float, job: Seen) -> Stages:
    return {"engine alone": job.engine, "service beside the engine": job.last_event - sent - job.engine}


def _from(begin: float, end: float | None) -> float | None:
    return None if end is None else end - begin


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


def summary(rounds: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float | int]]:
    """p50, p95, least and most of each stage, in seconds, over the rounds in which it was seen."""
    found: dict[str, dict[str, float | int]] = {}
    for stage in dict.fromkeys(stage for one in rounds for stage in one):
        values = sorted(value for one in rounds if (value := one.get(stage)) is not None)
        if values:
            figures = {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95)}
            least_and_most = {"min": values[0], "max": values[-1]}
            found[stage] = {name: round(value, 4) for name, value in (figures | least_and_most).items()}
            found[stage]["rounds"] = len(values)
    return found


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so much of the values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(report: Mapping[str, Any]) -> str:
    """The report as Markdown, times in milliseconds."""
    machine, locks = report["machine"], report["locks"]
    where = f"{machine['device']}, {machine['cpus']} CPU cores, {report['date']}"
    lines = [f"Round trip, {report['shape']} shape with random weights, {where}. Milliseconds."]
    for part, stages in report["stages"].items():
        lines += ["", f"| {part} | p50 | p95 | rounds |", "|---|---|---|---|"]
        lines += [f"| {stage} | {_figures(seen)} |" for stage, seen in stages.items()]
    lines += ["", f"Locks: {locks['kept']} of {locks['asked']} kept, byte for byte."]
    lines += [f"Failed: {failure}." for failure in report["failed"]]
    lines += [f"Not accelerated ({number} times): {said}" for said, number in report["passes_left"].items()]
    return "\n".join(lines) + "\n"


def _figures(seen: Mapping[str, float]) -> str:
    return f"{_ms(seen['p50'])} | {_ms(seen['p95'])} | {seen['rounds']}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"
