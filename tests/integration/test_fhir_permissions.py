"""Every FHIR interaction with every role: who is let through, and who gets 403 before anything is looked up."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from inlay_fhir.mapping.subscription import TOPIC
from inlay_fhir.table import ROUTES, Route
from inlay_testkit.web import ROLES, Web

EVERYBODY = frozenset(ROLES)
RADIOLOGIST = frozenset({"radiologist"})
PLACERS = frozenset({"ris"})
SUBSCRIBERS = frozenset({"ris", "ehr", "admin"})
JOBS = TRAIL = frozenset({"radiologist", "admin", "auditor"})
# (resource, code, operation) -> who may. What is not here stops the test: a new interaction needs its line.
EXPECTED = {
    # Each entry is an interaction of its own, and is held to its own line.
    ("", "batch", ""): EVERYBODY,
    ("DiagnosticReport", "read", ""): EVERYBODY,
    ("DiagnosticReport", "vread", ""): EVERYBODY,
    ("DiagnosticReport", "history-instance", ""): EVERYBODY,
    ("DiagnosticReport", "history-type", ""): EVERYBODY,
    ("DiagnosticReport", "search-type", ""): EVERYBODY,
    ("DiagnosticReport", "operation", "infill"): RADIOLOGIST,
    ("DiagnosticReport", "operation", "sign"): RADIOLOGIST,
    ("ServiceRequest", "read", ""): EVERYBODY,
    ("ServiceRequest", "vread", ""): EVERYBODY,
    ("ServiceRequest", "create", ""): PLACERS,
    ("ServiceRequest", "search-type", ""): EVERYBODY,
    ("ImagingStudy", "read", ""): EVERYBODY,
    ("ImagingStudy", "create", ""): PLACERS,
    ("ImagingStudy", "search-type", ""): EVERYBODY,
    ("Patient", "read", ""): EVERYBODY,
    ("Patient", "vread", ""): EVERYBODY,
    ("Patient", "search-type", ""): EVERYBODY,
    ("Provenance", "read", ""): EVERYBODY,
    ("Provenance", "search-type", ""): EVERYBODY,
    ("Device", "read", ""): EVERYBODY,
    ("Task", "read", ""): JOBS,
    ("Task", "search-type", ""): JOBS,
    ("AuditEvent", "read", ""): TRAIL,
    ("Subscription", "read", ""): SUBSCRIBERS,
    ("Subscription", "create", ""): SUBSCRIBERS,
    ("Subscription", "delete", ""): SUBSCRIBERS,
    ("Subscription", "operation", "status"): SUBSCRIBERS,
    ("OperationDefinition", "read", ""): EVERYBODY,
}


def _identifier(code: str, value: str) -> dict[str, object]:
    kind = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": code}]}
    return {"type": kind, "system": "urn:ris", "value": value}


_PATIENT = {"resourceType": "Patient", "id": "p", "identifier": [_identifier("MR", "7")], "name": [{"family": "S"}]}
# Whole bodies, so that it is the role and not the form that decides. The study belongs to no order: nothing is made.
BODIES: dict[str, object] = {
    "ServiceRequest": {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "identifier": [_identifier("PLAC", "P9"), _identifier("ACSN", "A9")],
        "code": {"coding": [{"system": "http://loinc.org", "code": "36643-5"}]},
        "subject": {"reference": "#p"},
        "contained": [_PATIENT],
    },
    "ImagingStudy": {
        "resourceType": "ImagingStudy",
        "status": "available",
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}, _identifier("ACSN", "A9")],
        "subject": {"identifier": {"system": "urn:ris", "value": "7"}},
    },
    "Subscription": {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "drafts",
        "criteria": TOPIC,
        "channel": {
            "type": "rest-hook",
            "endpoint": "https://ehr.example/hook",
            "payload": "application/fhir+json",
        },
    },
    "DiagnosticReport": {
        "resourceType": "Parameters",
        "parameter": [{"name": "section", "part": [{"name": "name", "valueCode": "findings"}]}],
    },
}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One application for all pairs."""
    site = Web(tmp_path_factory.mktemp("web"), subscription_origins="https://ehr.example", subscription_secret="s" * 16)
    yield site
    site.site.services.close()


@pytest.fixture(scope="module")
def report_id(web: Web) -> str:
    """A report to search for: a search that finds nothing reads nothing."""
    return str(web.drafted("1")["id"])


def _status(web: Web, report_id: str, route: Route, role: str) -> int:
    path = "/fhir/" + route.path.format(id="none", version="1")
    headers = {"Authorization": f"Bearer {web.token(role)}", "If-Match": 'W/"1"'}
    if route.code == "search-type":
        references = {"Task": "focus", "Provenance": "target"}
        parameter = references.get(route.resource, "identifier")
        asked = f"{parameter}=DiagnosticReport/{report_id}" if route.resource in references else f"{parameter}=P1"
        if route.method == "GET":
            return web.client.get(f"{path}?{asked}", headers=headers).status_code
        kind = "application/x-www-form-urlencoded"
        return web.client.post(path, data=asked, headers=headers, content_type=kind).status_code
    # $sign takes none.
    has_body = route.method == "POST" and route.operation != "sign"
    body = json.dumps(BODIES.get(route.resource, {})) if has_body else None
    answer = web.client.open(
        path, method=route.method, data=body, headers=headers, content_type="application/fhir+json"
    )
    return answer.status_code


def test_every_interaction_is_in_the_matrix() -> None:
    """A new interaction needs a line that says who may ask for it."""
    assert {(route.resource, route.code, route.operation) for route in ROUTES} == set(EXPECTED)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_roles_may_ask_what_the_matrix_says(route: Route, web: Web, report_id: str) -> None:
    """403 for every role that the line does not name, and for no other."""
    expected = EXPECTED[route.resource, route.code, route.operation]
    refused = {role for role in ROLES if _status(web, report_id, route, role) == 403}
    assert refused == EVERYBODY - expected


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_nothing_is_answered_without_a_token(route: Route, web: Web) -> None:
    """401 with an OperationOutcome, on every interaction."""
    path = "/fhir/" + route.path.format(id="none", version="1")
    answer = web.client.open(path, method=route.method)
    assert answer.status_code == 401
    assert answer.get_json()["resourceType"] == "OperationOutcome"
