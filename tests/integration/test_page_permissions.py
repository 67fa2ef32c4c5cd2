"""Every route beside the workstation API and FHIR with every role: pages show, and their forms do, what a role may."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inlay_api.openapi import all_routes
from inlay_api.routes import PREFIX
from inlay_testkit.web import ROLES, Web

EVERYBODY = set(ROLES)
# What answers without a login, and why nothing of a patient can be in it.
OPEN = {
    ("GET", "/static/<path:filename>"): "scripts and styles of the page",
    ("GET", "/livez"): "whether the process lives",
    ("GET", "/readyz"): "whether its database answers",
    ("GET", "/metrics"): "counts; only where nobody else reaches this machine (test_api_server.py)",
    ("GET", "/fhir/.well-known/smart-configuration"): "where clients get their tokens",
    ("POST", "/fhir/auth/token"): "asks for a signed assertion (test_api_smart.py)",
    ("GET", "/login"): "how one logs in",
    ("POST", "/login"): "becomes a demonstration user, on loopback only (test_login.py)",
    ("GET", "/login/start"): "leads to the provider",
    ("GET", "/login/callback"): "checks what comes back from it (test_login.py)",
    ("POST", "/logout"): "ends one's own session (test_login.py)",
}
EXPECTED = {
    ("GET", "/"): EVERYBODY,
    ("GET", "/reports/<report_id>"): EVERYBODY,
    ("GET", "/reports/<report_id>/image"): EVERYBODY,
    ("GET", "/oversight"): {"admin", "auditor"},
    ("GET", "/oversight/usage.csv"): {"admin", "auditor"},
    ("GET", "/oversight/studies"): {"radiologist", "admin", "auditor"},
    ("GET", "/oversight/studies/<study_id>"): {"radiologist"},
    ("POST", "/oversight/studies/<study_id>/cases/<int:number>"): {"radiologist"},
    ("GET", "/oversight/studies/<study_id>/results"): {"admin", "auditor"},
    ("GET", "/oversight/studies/<study_id>/grades.csv"): {"admin", "auditor"},
    ("GET", "/administration"): {"admin"},
    ("POST", "/administration/switches"): {"admin"},
    ("POST", "/administration/deliveries"): {"admin"},
}
IDS = {"<report_id>": "none", "<study_id>": "none", "<int:number>": "1"}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One application for all pairs: what they ask for does not exist, so that they change nothing."""
    site = Web(tmp_path_factory.mktemp("web"))
    yield site
    site.site.services.close()


def asked(web: Web, method: str, rule: str, role: str) -> int:
    """The status for a role."""
    for name, value in IDS.items():
        rule = rule.replace(name, value)
    return web.client.open(rule, method=method, headers={"Authorization": f"Bearer {web.token(role)}"}).status_code


def test_every_other_route_is_in_the_matrix(web: Web) -> None:
    """A new page, or a new route that answers anyone, needs a line; those of FHIR and of the API have their own."""
    rules = {
        (method, rule.rule)
        for rule in web.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(PREFIX) and rule.endpoint != "fhir.fhir"
    }
    assert rules == set(EXPECTED) | set(OPEN)
    assert [route.operation for route in all_routes() if route.permission is None] == ["readOpenApi"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "rule"), EXPECTED, ids=lambda part: part)
def test_roles_see_and_do_what_the_matrix_says(method: str, rule: str, role: str, web: Web) -> None:
    """403 for every role that the line does not name, and for no other."""
    assert (asked(web, method, rule, role) == 403) == (role not in EXPECTED[method, rule])


@pytest.mark.parametrize(("method", "rule"), EXPECTED, ids=lambda part: part)
def test_nobody_is_let_in_by_a_token_of_somebody_else(method: str, rule: str, web: Web) -> None:
    """401 for a token that nobody of ours signed, on every page."""
    for name, value in IDS.items():
        rule = rule.replace(name, value)
    answer = web.client.open(rule, method=method, headers={"Authorization": "Bearer x.y.z"})
    assert answer.status_code == 401
