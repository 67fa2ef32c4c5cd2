from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc import jwt

from inlay_api.auth import ensure_key
from inlay_api.openapi import all_routes
from inlay_api.routes import Route
from inlay_core.domain.identity import PERMISSIONS
from inlay_testkit.web import ROLES, Web

# Who may call what, written out: the table of the domain and the declared routes must both agree with it.
EVERYBODY = set(ROLES)
EXPECTED = {
    "listReports": EVERYBODY,
    "searchReports": EVERYBODY,
    "readReport": EVERYBODY,
    "listVersions": EVERYBODY,
    "readVersion": EVERYBODY,
    "readImage": EVERYBODY,
    "listImages": EVERYBODY,
    "checkReport": EVERYBODY,
    "listPriors": EVERYBODY,
    "listPriorImages": EVERYBODY,
    "readPriorImage": EVERYBODY,
    "listDeliveries": {"admin"},
    "resendDelivery": {"admin"},
    "readSession": EVERYBODY,
    "listSwitches": {"radiologist", "admin", "auditor"},
    "setSwitch": {"admin"},
    "readAdministration": {"admin"},
    "readUsage": {"admin", "auditor"},
    "readUsageCsv": {"admin", "auditor"},
    "listReaderStudies": {"radiologist", "admin", "auditor"},
    "createReaderStudy": {"admin"},
    "closeReaderStudy": {"admin"},
    "readCase": {"radiologist"},
    "putGrade": {"radiologist"},
    "readResults": {"admin", "auditor"},
    "exportGrades": {"admin", "auditor"},
    "readAudit": {"radiologist", "admin", "auditor"},
    "readJob": {"radiologist", "admin", "auditor"},
    "followJob": {"radiologist", "admin", "auditor"},
    "readCanvases": {"radiologist", "admin", "auditor"},
    "cancelJob": {"radiologist", "admin"},
    "openReport": {"radiologist"},
    "putFragments": {"radiologist"},
    "requestInfill": {"radiologist"},
    "retryDraft": {"radiologist"},
    "signReport": {"radiologist"},
    "amendReport": {"radiologist"},
    "retractReport": {"radiologist"},
}
GUARDED = [route for route in all_routes() if route.permission is not None]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One application for all pairs: what they ask for does not exist, so that they change nothing."""
    site = Web(tmp_path_factory.mktemp("web"))
    yield site
    site.site.services.close()


def path_of(route: Route) -> str:
    """The path with ids of nothing."""
    return route.path.format(
        report_id="none", prior_key="none", job_id="none", delivery_id="none", study_id="none", case_number=1, version=1
    )


def test_every_guarded_route_is_in_the_matrix() -> None:
    """A new route needs a line that says who may call it."""
    assert {route.operation for route in GUARDED} == set(EXPECTED)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.operation)
def test_roles_may_call_what_the_matrix_says(route: Route, role: str, web: Web) -> None:
    """403 for every role that the line does not name, before anything of the request is looked at; no other 403."""
    answer = web.call(route.method, path_of(route), role, raw=b"garbage", match='"1"')
    assert (answer.status_code == 403) == (role not in EXPECTED[route.operation]), answer.text
    if answer.status_code == 403:
        assert answer.get_json()["code"] == "not-permitted"
        assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.operation)
@pytest.mark.parametrize("authorization", [None, "Bearer x.y.z", "Basic YTpi"])
def test_nothing_is_answered_without_a_token(route: Route, authorization: str | None, web: Web) -> None:
    """401 with a challenge, on every route."""
    headers = {"Authorization": authorization} if authorization else {}
    answer = web.call(route.method, path_of(route), None, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="inlay"')
    assert answer.get_json()["code"] == ("token-missing" if authorization is None else answer.get_json()["code"])


def test_the_matrix_is_the_table_of_the_domain() -> None:
    """The declared permission of each route gives exactly the roles of its line."""
    for route in GUARDED:
        assert route.permission is not None
        assert {str(role) for role in PERMISSIONS[route.permission]} == EXPECTED[route.operation]


def test_a_refusal_stands_in_the_trail(web: Web) -> None:
    """Somebody known who asks for what they may not do is recorded, with the operation and without the body."""
    web.call("POST", "/reports/none/sign", "ehr", match='"1"')
    with web.site.services.reader() as uow:
        refused = [event for event in uow.audit.unsealed() if str(event.tag) == "reader:access:refused"]
    assert (refused[-1].actor_id, refused[-1].subject_id) == ("id:ehr", "signReport")


def test_a_system_with_a_clinicians_role_cannot_sign(tmp_path: Path) -> None:
    """Signing takes a person: a machine's token with the role radiologist gets 403."""
    web = Web(tmp_path)
    report = web.drafted()
    key = ensure_key(web.site.settings)
    claims = {"iss": "inlay", "aud": "inlay", "sub": "bot", "roles": ["radiologist"], "kind": "system"}
    token = jwt.encode({"alg": "ES256", "kid": key.kid}, {**claims, "exp": 2**40}, key, algorithms=["ES256"])
    headers = {"Authorization": f"Bearer {token}"}
    answer = web.call("POST", f"/reports/{report['id']}/sign", None, match='"3"', headers=headers)
    assert answer.status_code == 403
    assert web.report(report["id"])["status"] == "drafted"
