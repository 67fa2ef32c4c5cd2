import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from werkzeug.test import TestResponse

from inlay_api.smart import read_clients
from inlay_core.domain.audit import Kind
from inlay_core.domain.errors import Invalid
from inlay_testkit.web import Web

RSA = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"}, private=True)
EC = ECKey.generate_key("P-384", {"kid": "ec-1", "use": "sig"}, private=True)
STRANGER = ECKey.generate_key("P-384", {"kid": "ec-1", "use": "sig"}, private=True)
ENDPOINT = "http://localhost/fhir/auth/token"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENTS = """
[[client]]
id = "ehr"
name = "Hospital EHR"
jwks_file = "ehr.json"
scopes = "system/DiagnosticReport.rs system/Patient.r system/ServiceRequest.crs"
"""


class Site(Web):
    """An installation with one client."""

    def assertion(self, key: Any = EC, alg: str = "ES384", header: Any = None, **changes: Any) -> str:
        """An assertion of the client; a change to None leaves the claim out."""
        now = int(time.time())
        claims = {"iss": "ehr", "sub": "ehr", "aud": ENDPOINT, "exp": now + 240, "jti": str(time.monotonic_ns())}
        kept = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode({"alg": alg, "kid": key.kid} | (header or {}), kept, key, algorithms=[alg])

    def ask(self, assertion: str, scope: str = "system/*.cruds", **changes: str) -> TestResponse:
        """The answer of the token endpoint."""
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION,
            "client_assertion": assertion,
            "scope": scope,
        }
        return self.client.post("/fhir/auth/token", data=form | changes)

    def access(self, scope: str = "system/*.cruds") -> str:
        """An access token."""
        answer = self.ask(self.assertion(), scope)
        assert answer.status_code == 200, answer.text
        token: str = answer.get_json()["access_token"]
        return token

    def fhir(self, path: str, token: str, method: str = "GET", **more: Any) -> TestResponse:
        """A FHIR request."""
        return self.client.open(f"/fhir/{path}", method=method, headers={"Authorization": f"Bearer {token}"}, **more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One installation for all."""
    folder = tmp_path_factory.mktemp("smart")
    (folder / "ehr.json").write_text(json.dumps(KeySet([RSA, EC]).as_dict(private=False)))
    (folder / "clients.toml").write_text(CLIENTS)
    site = Site(folder / "home", smart_clients=str(folder / "clients.toml"))
    yield site
    site.site.services.close()


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS384"), (EC, "ES384")])
def test_a_client_that_proves_itself_gets_a_token(site: Site, key: Any, alg: str) -> None:
    """RS384 and ES384; the token says for how long and for what, never more than what is registered."""
    answer = site.ask(site.assertion(key, alg), "system/DiagnosticReport.cruds system/AuditEvent.r openid")
    body = answer.get_json()
    assert (answer.status_code, body["token_type"], body["expires_in"]) == (200, "bearer", 300)
    assert body["scope"] == "system/DiagnosticReport.rs"
    assert answer.headers["Cache-Control"] == "no-store"
    assert site.fhir("DiagnosticReport", body["access_token"]).status_code == 200


def test_an_assertion_is_good_once(site: Site) -> None:
    """The same assertion again is refused, and the refusal is in the trail under the client's name."""
    assertion = site.assertion(jti="once")
    assert site.ask(assertion).status_code == 200
    again = site.ask(assertion)
    assert (again.status_code, again.get_json()["error"]) == (401, "invalid_client")
    with site.site.services.reader() as uow:
        events = [event for event in uow.audit.unsealed() if event.subject_kind is Kind.CLIENT]
    assert [str(event.tag) for event in events][-2:] == ["issuer:client:admitted", "issuer:client:refused"]
    assert events[-1].actor_id == "client:ehr"


@pytest.mark.parametrize(
    ("changes", "key", "alg"),
    [
        ({"exp": int(time.time()) + 3600}, EC, "ES384"),
        ({"exp": int(time.time()) - 60}, EC, "ES384"),
        ({"exp": None}, EC, "ES384"),
        ({"exp": "soon"}, EC, "ES384"),
        ({"nbf": int(time.time()) + 3600}, EC, "ES384"),
        ({"jti": None}, EC, "ES384"),
        ({"jti": ""}, EC, "ES384"),
        ({"aud": "https://elsewhere/token"}, EC, "ES384"),
        ({"aud": None}, EC, "ES384"),
        ({"iss": "other"}, EC, "ES384"),
        ({"sub": "other"}, EC, "ES384"),
        ({}, STRANGER, "ES384"),
        ({}, RSA, "RS256"),
        ({"header": {"kid": "unknown"}}, EC, "ES384"),
    ],
)
def test_what_proves_nothing_gets_nothing(site: Site, changes: dict[str, Any], key: Any, alg: str) -> None:
    """Wrong times, audience, issuer, key, algorithm or a missing name: 401 invalid_client."""
    answer = site.ask(site.assertion(key, alg, **changes))
    assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_client")


def test_requests_of_another_shape_are_told_apart(site: Site) -> None:
    """Other grants, no assertion, garbage and scopes that nobody granted have the errors of RFC 6749."""
    good = site.assertion()
    assert site.ask(good, grant_type="password").get_json()["error"] == "unsupported_grant_type"
    assert site.ask("").get_json()["error"] == "invalid_request"
    assert site.ask("x.y.z").get_json()["error"] == "invalid_client"
    assert site.ask(good, "system/AuditEvent.r patient/*.rs").get_json()["error"] == "invalid_scope"
    assert site.client.get("/fhir/auth/token").status_code == 401


def test_scopes_hold_each_interaction(site: Site) -> None:
    """What the token is for works; every other interaction is 403, by GET, by POST, in a batch and by an include."""
    report = site.drafted("7")
    read = site.access("system/DiagnosticReport.r")
    assert site.fhir(f"DiagnosticReport/{report['id']}", read).status_code == 200
    for path in ("DiagnosticReport", "DiagnosticReport/_history", "Patient/1", "AuditEvent/1", "ServiceRequest/1"):
        assert site.fhir(path, read).status_code == 403, path
    assert site.fhir(f"DiagnosticReport/{report['id']}/$sign", read, "POST").status_code == 403
    assert site.fhir("ServiceRequest", read, "POST", json={"resourceType": "ServiceRequest"}).status_code == 403
    batch = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/1"}}]}
    answer = site.fhir("", read, "POST", json=batch)
    assert answer.get_json()["entry"][0]["response"]["status"] == "403"
    search = site.access("system/DiagnosticReport.s")
    found = site.fhir("DiagnosticReport?_include=DiagnosticReport:patient&_revinclude=Provenance:target", search)
    assert {entry["resource"]["resourceType"] for entry in found.get_json()["entry"]} == {"DiagnosticReport"}
    both = site.access("system/DiagnosticReport.s system/Patient.r")
    found = site.fhir("DiagnosticReport?_include=DiagnosticReport:patient", both)
    assert {entry["resource"]["resourceType"] for entry in found.get_json()["entry"]} == {"DiagnosticReport", "Patient"}


def test_a_clients_token_is_good_for_fhir_only(site: Site) -> None:
    """The workstation API is for people: 403, and no signature can come of such a token."""
    token = site.access()
    answer = site.call("GET", "/reports", None, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403
    report = site.drafted("8")
    signed = site.client.post(
        f"/fhir/DiagnosticReport/{report['id']}/$sign",
        headers={"Authorization": f"Bearer {token}", "If-Match": str(report["version"])},
    )
    assert signed.status_code == 403


def test_a_token_of_nobody_is_refused(site: Site) -> None:
    """A changed token, and one that another key signed under our key's name, are 401."""
    token = site.access()
    header, payload, signature = token.split(".")
    flipped = ("B" if signature[9] == "A" else "A").join((signature[:9], signature[10:]))
    assert site.fhir("DiagnosticReport", f"{header}.{payload}.{flipped}").status_code == 401


def test_the_configuration_says_how(site: Site) -> None:
    """The well-known document needs no token and names the endpoint; without clients there is none."""
    body = site.client.get("/fhir/.well-known/smart-configuration").get_json()
    assert body["token_endpoint"] == ENDPOINT
    assert body["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]
    assert "client-confidential-asymmetric" in body["capabilities"]


def test_without_clients_there_is_no_endpoint(tmp_path: Path) -> None:
    """A site that registered nobody has neither the endpoint nor its description."""
    web = Web(tmp_path)
    assert web.client.get("/fhir/.well-known/smart-configuration").status_code == 404
    assert web.client.post("/fhir/auth/token").status_code == 404
    web.site.services.close()


@pytest.mark.parametrize(
    "text",
    [
        "[[client]]\nid = 'a'\nscopes = 'system/Patient.r'",
        "[[client]]\nid = 'a'\njwks_file = 'ehr.json'\nscopes = 'user/Patient.r'",
        "[[client]]\nid = 'a'\njwks_file = 'missing.json'\nscopes = 'system/Patient.r'",
        "[[client]]\nid = 'a'\njwks_url = 'http://elsewhere/keys'\nscopes = 'system/Patient.r'",
        "[[client]]\nid = 'a'\nsecret = 'b'",
        "[client",
        "other = 1",
    ],
)
def test_a_wrong_registration_is_told_at_the_start(tmp_path: Path, text: str) -> None:
    """Nothing of a file that is wrong is used: the process says which client it is."""
    file = tmp_path / "clients.toml"
    file.write_text(text)
    (tmp_path / "ehr.json").write_text(json.dumps(KeySet([EC]).as_dict(private=False)))
    with pytest.raises(Invalid) as caught:
        read_clients(str(file))
    assert caught.value.place is not None
    assert caught.value.place.startswith("INLAY_SMART_CLIENTS")
