from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
from joserfc import jwt

from inlay_api import oidc
from inlay_api.app import create_app
from inlay_api.oidc import Attempt, Provider
from inlay_api.problems import Unauthenticated
from inlay_api.visitors import local_path
from inlay_core.domain.errors import Invalid, Unavailable
from inlay_core.settings import Settings
from inlay_testkit.core import StillClock
from inlay_testkit.installation import Installation
from inlay_testkit.login import HOME, SECRET, Browser, asked_for, hospital, provider, tokens_on
from inlay_testkit.web import Web

READER = {"name": "Dr. Ada Reader", "roles": ["radiologist"]}


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[tuple[Web, Browser]]:
    """An embedded installation, and a browser that has no token."""
    web = Web(tmp_path)
    yield web, Browser(web.client)
    web.site.services.close()


def signs_of(site: Installation) -> list[tuple[str, str]]:
    """What the trail says of logins: tag and person."""
    with site.services.reader() as uow:
        return [(str(e.tag), e.actor_id) for e in uow.audit.unsealed() if str(e.tag).startswith("login:")]


# ---------------------------------------------------------------------------------------------- the embedded mode


def test_a_demonstration_user_signs_with_a_browser(embedded: tuple[Web, Browser]) -> None:
    """Whoever chose to be the radiologist can open, edit and sign from a page, and the trail names them."""
    web, browser = embedded
    report = web.drafted()
    browser.choose("radiologist")
    headers = {"X-CSRF-Token": browser.csrf(), "Origin": HOME, "If-Match": '"3"'}
    opened = web.client.post(f"/api/v1/reports/{report['id']}/open", headers=headers, base_url=HOME, json={})
    assert opened.status_code == 200, opened.text
    headers["If-Match"] = opened.headers["ETag"]
    signed = web.client.post(f"/api/v1/reports/{report['id']}/sign", headers=headers, base_url=HOME, json={})
    assert signed.get_json()["signature"]["signer"] == {"id": "local:demo-radiologist", "name": "Demo Radiologist"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Origin": HOME}, "csrf-token"),
        ({"Origin": HOME, "X-CSRF-Token": "guess"}, "csrf-token"),
        ({"Origin": "null"}, "foreign-page"),
        ({"Origin": "http://evil.example"}, "foreign-page"),
        ({"Origin": HOME, "Sec-Fetch-Site": "cross-site"}, "foreign-page"),
        ({"Origin": HOME, "Sec-Fetch-Site": "same-site"}, "foreign-page"),
        ({}, "foreign-page"),
    ],
)
def test_a_cookie_alone_changes_nothing(embedded: tuple[Web, Browser], headers: dict[str, str], code: str) -> None:
    """What another page makes a browser send is refused, whatever cookie goes with it; nothing has happened."""
    web, browser = embedded
    report = web.drafted()
    browser.choose("radiologist")
    if code == "foreign-page":
        headers["X-CSRF-Token"] = browser.csrf()
    path = f"/api/v1/reports/{report['id']}/open"
    answer = web.client.post(path, headers={**headers, "If-Match": '"3"'}, base_url=HOME, json={})
    assert (answer.status_code, answer.get_json()["code"]) == (403, code)
    assert web.report(report["id"])["version"] == report["version"]


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "none"}])
def test_no_other_page_logs_a_browser_in(embedded: tuple[Web, Browser], headers: dict[str, str]) -> None:
    """Choosing a user takes a page of ours: a login that somebody else begins is refused."""
    web, _ = embedded
    answer = web.client.post("/login", data={"user": "admin"}, headers=headers, base_url=HOME)
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


def test_a_session_can_do_what_its_roles_can(embedded: tuple[Web, Browser]) -> None:
    """A session is as good as a token and no better: the auditor reads trails and cancels nothing."""
    web, browser = embedded
    report = web.drafted()
    browser.choose("auditor")
    assert browser.get(f"/api/v1/reports/{report['id']}/audit").status_code == 200
    assert browser.get("/api/v1/deliveries").status_code == 403
    body = browser.get("/api/v1/session").get_json()
    assert body["actor"]["roles"] == ["auditor"]
    assert body["idle_seconds"] == 900


def test_cookies_are_out_of_reach_of_scripts(embedded: tuple[Web, Browser]) -> None:
    """HttpOnly and SameSite, and no secret of a session is stored."""
    web, browser = embedded
    cookie = browser.choose("admin").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    secret = cookie.partition("=")[2].partition(";")[0]
    assert secret.encode() not in (web.site.settings.home / "inlay.sqlite").read_bytes()


def test_logging_out_ends_the_session(embedded: tuple[Web, Browser]) -> None:
    """After it the old cookie is good for nothing, and the trail has both ends."""
    web, browser = embedded
    browser.choose("radiologist")
    stolen = web.client.get_cookie("inlay-session", domain="localhost")
    assert stolen is not None
    assert browser.post("/logout", {}).status_code == 403
    (token,) = tokens_on(browser.get("/").text)
    assert browser.post("/logout", {"csrf": token}).status_code == 303
    web.client.set_cookie("inlay-session", stolen.value, domain="localhost")
    assert browser.get("/api/v1/session").get_json()["code"] == "session-over"
    person = "local:demo-radiologist"
    assert signs_of(web.site) == [("login:session:opened", person), ("login:session:closed", person)]


def test_every_login_has_a_new_secret(embedded: tuple[Web, Browser]) -> None:
    """A cookie that somebody planted before the login is not taken over, and the old session ends."""
    web, browser = embedded
    web.client.set_cookie("inlay-session", "planted", domain="localhost")
    browser.choose("radiologist")
    first = web.client.get_cookie("inlay-session", domain="localhost")
    assert first is not None
    assert first.value != "planted"
    browser.choose("admin")
    web.client.set_cookie("inlay-session", first.value, domain="localhost")
    assert browser.get("/api/v1/session").status_code == 401


def test_idle_sessions_lock(tmp_path: Path) -> None:
    """After quarter of an hour without activity a page leads to the login, also for reading; polls keep none awake."""
    web = Web(tmp_path)
    clock = StillClock()
    services = web.site.services_with(web.site.settings)
    object.__setattr__(services, "clock", clock)
    browser = Browser(create_app(web.site.settings, services).test_client())
    browser.choose("radiologist")
    clock.advance(600)
    assert browser.get("/api/v1/session").status_code == 200
    clock.advance(600)
    assert browser.get("/api/v1/reports").status_code == 200
    clock.advance(600)
    assert browser.get("/api/v1/reports").get_json()["code"] == "session-idle"
    answer = browser.get("/?offset=50")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=/%3Foffset%3D50&locked=1")
    assert "session was locked" in browser.get(answer.headers["Location"]).text
    web.site.services.close()


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "/login", "", "/a\r\nb", "/" + "x" * 600]
)
def test_the_login_leads_to_pages_of_ours_only(path: str) -> None:
    """Addresses of others, and the login itself, are not followed afterwards."""
    assert local_path(path) == "/"
    assert local_path("/reports/abc?x=1") == "/reports/abc?x=1"


# ---------------------------------------------------------------------------------------------- the provider


def test_a_person_logs_in_at_the_provider(tmp_path: Path) -> None:
    """The code flow with a provider that others wrote: back on the page that was asked for, with name and role."""
    with provider(ada=READER) as issuer:
        site, browser = hospital(tmp_path, issuer)
        needed = browser.get("/reports/none")
        assert needed.headers["Location"] == "/login?next=/reports/none"
        answer = browser.get(browser.at_provider("ada", back="/reports/none"))
        assert (answer.status_code, answer.headers["Location"]) == (303, "/reports/none")
        assert browser.get("/api/v1/session").get_json()["actor"] == {
            "id": "ada",
            "kind": "person",
            "name": "Dr. Ada Reader",
            "roles": ["radiologist"],
        }
    assert signs_of(site) == [("login:session:opened", "ada")]


def test_groups_of_the_provider_are_roles(tmp_path: Path) -> None:
    """The claim and the map of the settings hold for logins as for tokens."""
    ada = {"name": "Ada", "realm_access": {"roles": ["Doctors", "Staff"]}}
    with provider(ada=ada) as issuer:
        settings = {"role_claim": "realm_access.roles", "role_map": "Doctors=radiologist"}
        _, browser = hospital(tmp_path, issuer, **settings)
        browser.get(browser.at_provider("ada"))
        assert browser.get("/api/v1/session").get_json()["actor"]["roles"] == ["radiologist"]


def test_whoever_has_no_role_here_is_told(tmp_path: Path) -> None:
    """A known person without a role gets no session; the trail has the refusal."""
    with provider(bob={"name": "Bob", "roles": ["visitor"]}) as issuer:
        site, browser = hospital(tmp_path, issuer)
        answer = browser.get(browser.at_provider("bob"))
        assert answer.status_code == 403
        assert "no role that is known here" in answer.text
        assert browser.get("/api/v1/session").status_code == 401
    assert signs_of(site) == [("login:session:refused", "bob")]


def test_the_login_is_bound_to_its_browser(tmp_path: Path) -> None:
    """Another browser cannot use the answer (login CSRF), nobody can use it twice, and the verifier travels hashed."""
    with provider(ada=READER) as issuer:
        _, browser = hospital(tmp_path, issuer)
        location = browser.get("/login/start").headers["Location"]
        asked = asked_for(location)
        assert asked["code_challenge_method"] == "S256"
        assert {"state", "nonce", "code_challenge"} <= asked.keys()
        back = browser.at_provider("ada")
        stranger = Browser(browser.client.application.test_client())
        assert stranger.get(back).status_code == 401
        assert browser.get(back).status_code == 303
        assert browser.get(back).status_code == 401


def test_the_verifier_is_sent_with_the_code_and_never_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the token endpoint gets hashes to what the browser carried (RFC 7636, 4.6)."""
    sent: list[Any] = []
    real = oidc._asked
    monkeypatch.setattr(oidc, "_asked", lambda method, url, **more: sent.append(more) or real(method, url, **more))
    with provider(ada=READER) as issuer:
        _, browser = hospital(tmp_path, issuer)
        location = browser.get("/login/start").headers["Location"]
        assert SECRET not in unquote(location)
        answer = httpx2.post(location, data={"sub": "ada"}, follow_redirects=False)
        back = answer.headers["Location"].removeprefix(HOME)
        assert browser.get(back).status_code == 303
    verifier = sent[0]["data"]["code_verifier"]
    assert verifier not in location
    assert Attempt("s", "n", verifier).challenge == asked_for(location)["code_challenge"]
    assert sent[0]["headers"]["Authorization"] == "Basic aW5sYXk6cyUzQWNyZXQlMkY="


def test_a_refusal_of_the_provider_is_a_page(tmp_path: Path) -> None:
    """Who cancels at the provider comes back to the login."""
    with provider(ada=READER) as issuer:
        _, browser = hospital(tmp_path, issuer)
        state = asked_for(browser.get("/login/start").headers["Location"])["state"]
        answer = browser.get(f"/login/callback?error=access_denied&state={state}")
        assert answer.status_code == 401
        assert "The provider has refused the login." in answer.text


def test_whoever_walked_away_shows_again_who_they_are(tmp_path: Path) -> None:
    """After a lock the provider is asked for the password, though it may know the browser."""
    with provider(ada=READER) as issuer:
        _, browser = hospital(tmp_path, issuer, session_idle_minutes=1e-6)
        browser.get(browser.at_provider("ada"))
        assert asked_for(browser.get("/login/start").headers["Location"])["prompt"] == "login"


def test_over_tls_cookies_are_of_this_host_only(tmp_path: Path) -> None:
    """__Host- and Secure, and browsers are told to stay with TLS."""
    site = Installation(tmp_path)
    settings = Settings(
        home=tmp_path,
        auth="jwt",
        jwks_url="https://id.example/jwks",
        oidc_issuer="https://id.example",
        oidc_client_id="inlay",
        public_url="https://inlay.example",
    )
    app = create_app(settings, site.services_with(settings))
    known = {"issuer": "https://id.example", "jwks_uri": "https://id.example/jwks"}
    known |= {f"{name}_endpoint": f"https://id.example/{name}" for name in ("authorization", "token")}
    app.extensions["inlay"].provider = Provider(settings, fetch=lambda _: known)
    answer = app.test_client().get("/login/start", base_url="https://inlay.example")
    cookies = answer.headers.getlist("Set-Cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == ["__Host-inlay-login", "__Host-inlay-back"]
    assert all("Secure" in cookie and "Path=/" in cookie and "Domain" not in cookie for cookie in cookies)
    assert answer.headers["Strict-Transport-Security"]
    assert answer.headers["Location"].startswith("https://id.example/authorization?")


def test_a_provider_that_is_away_is_told(tmp_path: Path) -> None:
    """The login answers 503 and starts nothing; reading by token goes on."""
    _, browser = hospital(tmp_path, "http://localhost:9")
    answer = browser.get("/login/start")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "provider-unavailable")


class Forger:
    """A provider whose ID tokens are as the test wants them."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, **claims: Any) -> None:
        from joserfc.jwk import RSAKey

        self.key = RSAKey.generate_key(2048, {"kid": "k", "use": "sig"})
        issuer = "https://id.example"
        known = {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
        known |= {f"{name}_endpoint": f"{issuer}/{name}" for name in ("authorization", "token")}
        settings = Settings(
            home=home,
            auth="jwt",
            jwks_url=f"{issuer}/jwks",
            oidc_issuer=issuer,
            oidc_client_id="inlay",
            public_url=HOME,
        )
        documents = {known["jwks_uri"]: {"keys": [self.key.as_dict(private=False)]}}
        self.provider = Provider(settings, fetch=lambda url: documents.get(url, known), now=lambda: 1000.0)
        self.attempt = Attempt("s" * 8, "n" * 8, "v" * 8)
        good = {"iss": issuer, "aud": "inlay", "sub": "ada", "iat": 990, "exp": 1100, "nonce": "n" * 8}
        stated = {key: value for key, value in ({**good, **READER} | claims).items() if value is not None}
        algorithm = "RS256"
        token = jwt.encode({"alg": algorithm, "kid": "k"}, stated, self.key)
        monkeypatch.setattr(oidc, "_asked", lambda *_, **__: {"id_token": token})

    def redeem(self) -> str:
        """The id of whoever logs in."""
        return self.provider.redeem({"state": "s" * 8, "code": "c"}, self.attempt).id


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"aud": ["inlay", "other"]},
        {"aud": ["inlay", "other"], "azp": "other"},
        {"azp": "other"},
        {"exp": 900},
        {"exp": None},
        {"iat": None},
        {"nonce": "x"},
        {"nonce": None},
        {"sub": None},
    ],
)
def test_id_tokens_that_do_not_hold_are_refused(
    claims: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another issuer, audience or party, too old, or of another login (OIDC Core, 3.1.3.7)."""
    with pytest.raises(Unauthenticated):
        Forger(tmp_path, monkeypatch, **claims).redeem()


def test_id_tokens_that_hold_name_the_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several audiences the authorized party is us."""
    assert Forger(tmp_path, monkeypatch).redeem() == "ada"
    assert Forger(tmp_path, monkeypatch, aud=["inlay", "other"], azp="inlay").redeem() == "ada"


def test_the_providers_own_document_is_checked(tmp_path: Path) -> None:
    """A configuration of another issuer, or one with endpoints without TLS, begins no login."""
    settings = Settings(
        home=tmp_path,
        auth="jwt",
        jwks_url="https://id.example/jwks",
        oidc_issuer="https://id.example",
        oidc_client_id="inlay",
        public_url=HOME,
    )
    endpoints = dict.fromkeys(("authorization_endpoint", "token_endpoint", "jwks_uri"), "https://id.example/x")
    other = {"issuer": "https://evil.example", **endpoints}
    with pytest.raises(Unavailable):
        Provider(settings, fetch=lambda _: other).address(Attempt.new())
    plain = {"issuer": "https://id.example", **endpoints, "token_endpoint": "http://id.example/x"}
    with pytest.raises(Invalid):
        Provider(settings, fetch=lambda _: plain).address(Attempt.new())


def test_systems_do_not_log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser's session is a person's."""
    from inlay_core.domain.errors import Forbidden

    with pytest.raises(Forbidden):
        Forger(tmp_path, monkeypatch, roles=["ris"]).redeem()


def test_sessions_end_at_the_latest_after_their_hours(tmp_path: Path) -> None:
    """However active somebody is, the session has an end."""
    web = Web(tmp_path)
    clock = StillClock()
    services = web.site.services_with(web.site.settings)
    object.__setattr__(services, "clock", clock)
    browser = Browser(create_app(web.site.settings, services).test_client())
    browser.choose("radiologist")
    for _ in range(59):
        clock.advance(timedelta(minutes=10).total_seconds())
        assert browser.get("/api/v1/session").status_code == 200
    clock.advance(timedelta(minutes=10).total_seconds())
    assert browser.get("/api/v1/session").get_json()["code"] == "session-over"
    web.site.services.close()


def test_logins_are_user_authentication_over_fhir(embedded: tuple[Web, Browser]) -> None:
    """The trail's logins are what DICOM and IHE call them, readable by the auditor."""
    web, browser = embedded
    browser.choose("auditor")
    with web.site.services.reader() as uow:
        (event,) = [event for event in uow.audit.unsealed() if str(event.tag) == "login:session:opened"]
    headers = {"Authorization": f"Bearer {web.token('auditor')}"}
    shown = web.client.get(f"/fhir/AuditEvent/{event.id}", headers=headers).get_json()
    assert (shown["type"]["code"], shown["subtype"][0]["code"], shown["action"]) == ("110114", "110122", "E")
