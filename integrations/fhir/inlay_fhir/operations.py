"""Operations on a DiagnosticReport that change something: `$infill` and `$sign`, with their OperationDefinitions.

https://hl7.org/fhir/R4/operations.html. POST only; the version that the caller saw stands in If-Match and is compared
inside the transaction, so that nobody signs what another has changed meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from inlay_fhir.body import bad, objects_at, resource_of
from inlay_fhir.elements import Json
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.mapping.core import InfillRequest, NotFound
from inlay_fhir.mapping.diagnostic_report import diagnostic_report
from inlay_fhir.mapping.task import task
from inlay_fhir.outcome import Refusal
from inlay_fhir.read import report_access

_MATCH: Final = re.compile(r'(?:W/)?"(\d{1,9})"|(\d{1,9})', re.ASCII)


def infill(exchange: Exchange) -> Answer:
    """A job that fills the gaps of the version in If-Match, as a Task: 202."""
    request = InfillRequest.from_json(infill_body(resource_of(exchange.request, "Parameters")))
    job = exchange.store.infill(exchange.actor, exchange.identity, expected_version(exchange), request)
    location = f"{exchange.request.base_url}/Task/{job.id}"
    return Answer(task(job), status=202, headers={"Location": location}, cacheable=False, written=True)


def sign(exchange: Exchange) -> Answer:
    """The version in If-Match becomes final, signed by whoever asks."""
    if exchange.request.body.strip():
        stated = resource_of(exchange.request, "Parameters").get("parameter", [])
        if stated:
            raise bad("Parameters.parameter", "$sign takes no parameters.")
    report = exchange.store.sign(exchange.actor, exchange.identity, expected_version(exchange))
    row = exchange.store.report(exchange.actor, report.id, report.version)
    resource = diagnostic_report(exchange.site, row, exchange.jobs_of(report))
    location = f"{exchange.request.base_url}/DiagnosticReport/{report.id}/_history/{report.version}"
    return Answer(
        resource,
        (report_access(row, "operation"),),
        str(report.version),
        report.updated_at,
        headers={"Content-Location": location},
        written=True,
    )


def expected_version(exchange: Exchange) -> int:
    """The version that the caller saw. Raises Refusal: 428 without one, 412 for what is no version."""
    stated = (exchange.request.header("If-Match") or "").strip()
    if not stated or stated == "*":
        raise Refusal(428, "required", "Name the version that you saw in If-Match.")
    found = _MATCH.fullmatch(stated)
    if found is None:
        raise Refusal(412, "conflict", "If-Match names no version of the report.")
    return int(found[1] or found[2])


# ------------------------------------------------------------------------------- Parameters to an infill request


def infill_body(parameters: Json) -> dict[str, Any]:
    """The request as the core reads it, from Parameters. Raises Refusal, naming the place."""
    body: dict[str, Any] = {"sections": []}
    for n, each in enumerate(objects_at(parameters, "parameter", "Parameters")):
        place = f"parameter[{n}]"
        match each.get("name"):
            case "section":
                body["sections"].append(_section(each, place))
            case "seed" | "steps" | "alternatives":
                body[str(each["name"])] = _value(each, ("valueInteger", "valuePositiveInt", "valueUnsignedInt"), place)
            case "rewrite":
                body["rewrite"] = _value(each, ("valueBoolean",), place)
            case _:
                raise bad(f"{place}.name", "one of section, seed, steps, alternatives, rewrite.")
    return body


def _section(parameter: Json, place: str) -> dict[str, Any]:
    section: dict[str, Any] = {"items": []}
    for n, part in enumerate(objects_at(parameter, "part", place, 250)):
        where = f"{place}.part[{n}]"
        match part.get("name"):
            case "name":
                section["name"] = _value(part, ("valueCode", "valueString"), where)
            case "lock":
                section["items"].append({"lock": _value(part, ("valueId", "valueString"), where)})
            case "locked-text":
                section["items"].append({"text": _value(part, ("valueString",), where), "locked": True})
            case "free-text":
                section["items"].append({"text": _value(part, ("valueString",), where)})
            case "gap":
                section["items"].append({"gap": _gap(part, where)})
            case _:
                raise bad(f"{where}.name", "one of name, lock, locked-text, free-text, gap.")
    return section


_GAP: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "min-tokens": ("min_tokens", ("valueInteger", "valueUnsignedInt")),
        "max-tokens": ("max_tokens", ("valueInteger", "valuePositiveInt")),
        "hint": ("hint", ("valueString",)),
    }
)


def _gap(part: Json, place: str) -> dict[str, Any]:
    gap: dict[str, Any] = {}
    for n, each in enumerate(objects_at(part, "part", place)):
        known = _GAP.get(str(each.get("name")))
        if known is None:
            raise bad(f"{place}.part[{n}].name", f"one of {', '.join(_GAP)}.")
        gap[known[0]] = _value(each, known[1], f"{place}.part[{n}]")
    return gap


def _value(parameter: Json, names: tuple[str, ...], place: str) -> Any:
    """The value under one of the names; strings keep every character, because a lock is kept byte for byte."""
    found = [parameter[name] for name in names if name in parameter]
    wanted = {"valueInteger": int, "valueBoolean": bool}.get(names[0], str)
    if len(found) != 1 or type(found[0]) is not wanted:
        raise bad(place, f"has one of {', '.join(names)}.")
    return found[0]


# ------------------------------------------------------------------------------- definitions


def _parameter(name: str, use: str, least: int, most: str, documentation: str, *parts: Json, **of: str) -> Json:
    kind = {"part": list(parts)} if parts else {"type": of["type"]}
    return {"name": name, "use": use, "min": least, "max": most, "documentation": documentation, **kind}


_SECTION: Final = _parameter(
    "section",
    "in",
    1,
    "5",
    "A section whose gaps are to be filled: its name, then its items in the order in which they stand.",
    _parameter("name", "in", 1, "1", "indication, technique, comparison, findings or impression.", type="code"),
    _parameter("lock", "in", 0, "*", "The id of a stored fragment that stays as it is.", type="string"),
    _parameter("locked-text", "in", 0, "*", "Text that stays as it is, byte for byte.", type="string"),
    _parameter("free-text", "in", 0, "*", "Text that may change: a gap of roughly its length.", type="string"),
    _parameter(
        "gap",
        "in",
        0,
        "*",
        "A place to be filled.",
        _parameter("min-tokens", "in", 0, "1", "Least length in tokens.", type="integer"),
        _parameter("max-tokens", "in", 0, "1", "Greatest length in tokens.", type="integer"),
        _parameter("hint", "in", 0, "1", "What the gap is to speak of. Some models are not told.", type="string"),
    ),
)

OPERATIONS: Final[Mapping[str, Json]] = MappingProxyType(
    {
        "infill": {
            "title": "Fill the gaps between locked text",
            "description": "Asks the model to write what stands between the locks of the version in If-Match. The "
            "answer is 202 with a Task; the report has a new version when the Task is completed. Locked text comes "
            "back byte for byte. Sections that are not named stay as they are.",
            "parameter": [
                _SECTION,
                _parameter("seed", "in", 0, "1", "Seed of the random numbers.", type="integer"),
                _parameter("steps", "in", 0, "1", "Denoising steps.", type="integer"),
                _parameter(
                    "alternatives",
                    "in",
                    0,
                    "1",
                    "How many different texts are looked for in every gap, at most 5; fewer may be found. The "
                    "completed Task has them in its output, best first.",
                    type="integer",
                ),
                _parameter(
                    "rewrite",
                    "in",
                    0,
                    "1",
                    "Whether free text is to say the same again in the site's style. A model that was not trained for "
                    "it refuses: the Task fails, and the report stays as it is.",
                    type="boolean",
                ),
                _parameter("return", "out", 1, "1", "The job.", type="Task"),
            ],
        },
        "sign": {
            "title": "Sign a report",
            "description": "A named clinician, who is authenticated, makes the version in If-Match final.",
            "parameter": [_parameter("return", "out", 1, "1", "The signed report.", type="DiagnosticReport")],
        },
    }
)
"""Name -> what is particular about the OperationDefinition."""


def definition_id(name: str) -> str:
    """The id of an operation's definition."""
    return f"DiagnosticReport-{name}"


def definition(name: str, base_url: str) -> Json:
    """The OperationDefinition."""
    identity = definition_id(name)
    return {
        "resourceType": "OperationDefinition",
        "id": identity,
        "url": f"{base_url}/OperationDefinition/{identity}",
        "name": f"{name.capitalize()}DiagnosticReport",
        "title": OPERATIONS[name]["title"],
        "status": "active",
        "kind": "operation",
        "description": OPERATIONS[name]["description"],
        "affectsState": True,
        "code": name,
        "resource": ["DiagnosticReport"],
        "system": False,
        "type": False,
        "instance": True,
        "parameter": OPERATIONS[name]["parameter"],
    }


def read_operation_definition(exchange: Exchange) -> Answer:
    """A definition; it says nothing of any patient, so the trail does not hear of it."""
    found = next((name for name in OPERATIONS if definition_id(name) == exchange.identity), None)
    if found is None:
        raise NotFound("unknown-operation", "No such operation.", "OperationDefinition.id")
    return Answer(definition(found, exchange.request.base_url))
