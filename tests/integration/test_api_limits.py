"""Limits at the edge: how often one client may ask, and how large a request may be, on every route."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from inlay_api.bodies import MAX_BODY
from inlay_api.limits import CLASSES, class_of, read_limits
from inlay_core.domain.errors import Invalid
from inlay_core.settings import Settings
from inlay_testkit.web import Web


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """An application in which little may be asked."""
    site = Web(tmp_path, rate_limits="read=3/hour write=2/hour generate=1/hour refused=2/hour")
    yield site
    site.site.services.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """An application as it is by default."""
    site = Web(tmp_path_factory.mktemp("plain"))
    yield site
    site.site.services.close()


def _fhir(web: Web, role: str = "radiologist") -> TestResponse:
    return web.client.get("/fhir/Patient/none", headers={"Authorization": f"Bearer {web.token(role)}"})


def test_one_request_too_many_is_429_with_the_time_to_wait(web: Web) -> None:
    """The fourth read of an hour is refused as a problem that says when to come again."""
    assert [web.get("/reports").status_code for _ in range(3)] == [200] * 3
    refused = web.get("/reports")
    assert (refused.status_code, refused.content_type) == (429, "application/problem+json")
    assert refused.get_json()["code"] == "too-many-requests"
    assert 0 < int(refused.headers["Retry-After"]) <= 3600


def test_fhir_is_told_as_an_outcome(web: Web) -> None:
    """The same over FHIR: an OperationOutcome with the code throttled."""
    refused = [_fhir(web) for _ in range(4)][-1]
    assert refused.status_code == 429
    assert refused.get_json()["issue"][0]["code"] == "throttled"
    assert "Retry-After" in refused.headers


def test_clients_and_classes_are_counted_apart(web: Web) -> None:
    """Another client, and another class of the same one, go on."""
    for _ in range(4):
        web.get("/reports")
    assert web.get("/reports", "auditor").status_code == 200
    assert web.call("POST", "/reports/none/sign", match='"1"').status_code == 404


def test_trying_tokens_out_is_slow_whatever_they_are(web: Web) -> None:
    """Refused tokens count by address, each a new one; a client that was good before is not kept waiting for it."""
    assert web.get("/reports").status_code == 200
    for number in range(2):
        answer = web.get("/reports", None, Authorization=f"Bearer {number}")
        assert answer.status_code == 401
    assert web.get("/reports", None, Authorization="Bearer 3").status_code == 429
    assert web.get("/reports", "auditor").status_code == 429
    assert web.get("/reports").status_code == 200


def test_whoever_supervises_is_not_limited(web: Web) -> None:
    """Liveness must not fail for being asked."""
    assert {web.client.get("/livez").status_code for _ in range(10)} == {200}


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/livez", None),
        ("GET", "/api/v1/reports", "read"),
        ("POST", "/api/v1/reports/search", "read"),
        ("POST", "/fhir/Patient/_search", "read"),
        ("PUT", "/api/v1/reports/1/fragments", "write"),
        ("DELETE", "/api/v1/jobs/1", "write"),
        ("POST", "/api/v1/reports/1/infill", "generate"),
        ("POST", "/fhir/DiagnosticReport/1/$infill", "generate"),
        ("POST", "/fhir/auth/token", "token"),
        ("BREW", "/anything", "write"),
    ],
)
def test_each_route_has_its_class(method: str, path: str, kind: str | None) -> None:
    """What costs a GPU, what changes, what reads, and what gives tokens are counted apart."""
    assert class_of(method, path) == kind


@pytest.mark.parametrize("text", ["read", "read=many", "reed=1/minute", "read=1/fortnight", "read=1/minute,write=1"])
def test_limits_that_cannot_be_read_stop_the_process(text: str) -> None:
    """The setting is named."""
    with pytest.raises(Invalid) as refused:
        read_limits(text)
    assert refused.value.place == "INLAY_RATE_LIMITS"


def test_by_default_every_class_has_a_limit_and_they_can_be_off() -> None:
    """`off` is said, not left empty: an empty variable counts as not set."""
    assert set(read_limits(Settings().rate_limits)) == set(CLASSES)
    assert read_limits("off") == {}


def test_a_redis_that_is_away_costs_no_access(tmp_path: Path) -> None:
    """Without Redis each process counts for itself: requests are answered, and limits hold."""
    web = Web(tmp_path, rate_limits="read=1/hour", redis_url="redis://127.0.0.1:1/0")
    assert [web.get("/reports").status_code for _ in range(2)] == [200, 429]


def test_behind_a_proxy_the_address_is_the_one_it_names(tmp_path: Path) -> None:
    """Without a credential, clients behind one trusted proxy are told apart; an untrusted header changes nothing."""
    for trusted, statuses in ((1, [401, 401]), (0, [401, 429])):
        web = Web(tmp_path / str(trusted), rate_limits="read=1/hour", trusted_proxies=trusted)
        found = [web.get("/reports", None, X_Forwarded_For=f"10.0.0.{n}").status_code for n in (1, 2)]
        assert found == statuses


def _routes(web: Web) -> list[tuple[str, str]]:
    """(method, path) of every route of the application."""
    pairs = []
    with web.app.test_request_context():
        for rule in web.app.url_map.iter_rules():
            values = {name: 1 if "int:" in rule.rule and name == "version" else "none" for name in rule.arguments}
            path = rule.rule
            for name, value in values.items():
                for form in (f"<{name}>", f"<int:{name}>", f"<path:{name}>"):
                    path = path.replace(form, str(value))
            pairs += [(method, path) for method in sorted(rule.methods or ())]
    return pairs


@pytest.mark.parametrize("how", ["announced", "chunked"])
def test_no_route_takes_more_than_a_body_may_have(plain: Web, how: str) -> None:
    """413 where the length is announced, on every route and method; without one nothing succeeds, or is read whole."""
    headers = {"Authorization": f"Bearer {plain.token('radiologist')}", "If-Match": '"1"'}
    for method, path in _routes(plain):
        if how == "announced":
            announced = {"CONTENT_LENGTH": str(MAX_BODY + 1)}
            status = plain.client.open(path, method=method, headers=headers, environ_overrides=announced).status_code
            assert status == 413, (method, path)
        elif method in ("POST", "PUT", "PATCH"):
            body = b'{"reason": "' + b"x" * MAX_BODY + b'"}'
            environ = {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
            answer = plain.client.open(
                path,
                method=method,
                headers=headers,
                data=body,
                content_type="application/json",
                environ_overrides=environ,
            )
            # /fhir leads to /fhir/ by 308.
            assert answer.status_code >= 300, (method, path)
