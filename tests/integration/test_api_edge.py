import io
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from inlay_api import catalogue
from inlay_api.app import HEADERS, create_app
from inlay_api.bodies import MAX_BODY
from inlay_api.openapi import all_routes, document
from inlay_api.pages import viewer_link
from inlay_api.routes import PREFIX
from inlay_core.domain.errors import Invalid
from inlay_core.logs import configure_logs
from inlay_core.settings import Settings
from inlay_testkit.web import ROLES, Web


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """An application over a fresh installation."""
    site = Web(tmp_path)
    yield site
    site.site.services.close()


def test_the_document_is_openapi(web: Web) -> None:
    """The published document is valid OpenAPI 3.1 and needs no token."""
    answer = web.get("/openapi.json", None)
    assert answer.status_code == 200
    validate(answer.get_json())
    assert answer.get_json() == json.loads(json.dumps(document(all_routes())))


def test_document_and_routes_agree_in_both_directions(web: Web) -> None:
    """Every rule below /api/v1 is an operation of the document, and every operation is a rule."""
    rules = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in web.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith(PREFIX)
    }
    paths = web.get("/openapi.json", None).get_json()["paths"]
    operations = {(method.upper(), PREFIX + path) for path, item in paths.items() for method in item}
    assert rules == operations
    assert len({item["operationId"] for path in paths.values() for item in path.values()}) == len(operations)


def test_every_schema_is_used() -> None:
    """The document carries no schema that nothing refers to, and refers to none that is missing."""
    text = json.dumps(document(all_routes()))
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert referred == set(document(all_routes())["components"]["schemas"])


@pytest.mark.parametrize("path", ["/", "/livez", "/metrics", "/api/v1/reports", "/fhir/metadata", "/nothing"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1:8080", "x"])
def test_other_names_for_this_machine_are_refused(host: str, path: str, web: Web) -> None:
    """A name of somebody else's that leads to loopback gets 421 and no data (DNS rebinding)."""
    headers = {"Host": host, "Authorization": f"Bearer {web.token('radiologist')}"}
    assert web.client.get(path, headers=headers).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9999", "localhost:8080", "[::1]", "[::1]:8080"])
def test_own_names_are_answered(host: str, web: Web) -> None:
    """All spellings of loopback are this service's own."""
    assert web.client.get("/livez", headers={"Host": host}).status_code == 200


def test_another_address_without_authentication_starts_nothing(tmp_path: Path) -> None:
    """The application itself refuses, whoever starts it."""
    with pytest.raises(Invalid):
        create_app(Settings(home=tmp_path, http_host="0.0.0.0"))  # noqa: S104


@pytest.mark.parametrize(
    "path", ["/", "/livez", "/api/v1/reports", "/api/v1/nothing", "/fhir/Patient/1", "/static/inlay.css"]
)
def test_every_answer_has_the_security_headers(path: str, web: Web) -> None:
    """Good answers and errors alike say what a browser may do with them, and carry a request id."""
    answer = web.client.get(path)
    for name in HEADERS:
        assert answer.headers.get(name), name
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["X-Request-Id"])
    answer.close()


def test_only_random_request_ids_are_taken_over(web: Web) -> None:
    """A UUID of the caller's is used; anything else (it would stand in logs) is replaced."""
    given = "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert web.client.get("/livez", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given
    other = web.client.get("/livez", headers={"X-Request-Id": "Testperson, Tina"})
    assert "Tina" not in other.headers["X-Request-Id"]


@pytest.mark.parametrize("path", ["/api/v1/reports/search", "/fhir/DiagnosticReport/_search"])
def test_bodies_that_are_too_large_are_refused(path: str, web: Web) -> None:
    """413 by the announced length, with the error in the words of the endpoint."""
    headers = {"Authorization": f"Bearer {web.token('radiologist')}"}
    answer = web.client.post(path, headers=headers, data=b" " * (MAX_BODY + 1), content_type="application/json")
    assert answer.status_code == 413
    assert "body-too-large" in answer.text


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 200_000, 400),
        (b'{"sections": [{"name": "findings", "fragments": [{"text": "a\\u0000"}]}]}', 400),
        (b'{"sections": [{"name": "findings", "fragments": [{"text": "\\ud83d"}]}]}', 400),
        (b'{"sections": [{"name": "Tina", "fragments": []}]}', 400),
        (b'{"sections": [{"name": "findings", "fragments": [{"id": "Tina"}]}]}', 400),
        (b'{"sections": [{"name": "findings", "fragments": [{"locked": true}]}]}', 400),
        (b'{"sections": [], "Tina": 1}', 400),
        (b'{"sections": null}', 400),
    ],
)
def test_garbage_bodies_get_a_problem(raw: bytes, status: int, web: Web) -> None:
    """Each is 400 with a code; nothing of it is quoted, and nothing has changed."""
    report = web.drafted()
    answer = web.call("PUT", f"/reports/{report['id']}/fragments", raw=raw, match='"3"')
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.get_json()["code"]
    assert "Tina" not in answer.text
    assert web.report(report["id"])["version"] == 3


def test_other_media_types_are_refused(web: Web) -> None:
    """415 for a body that is not JSON."""
    headers = {"Authorization": f"Bearer {web.token('radiologist')}"}
    answer = web.client.post("/api/v1/reports/search", headers=headers, data="a=b", content_type="text/plain")
    assert answer.status_code == 415


@pytest.mark.parametrize("report_id", ["%00", "a%00b", "..%2f", "x" * 65, "%ED%A0%80", "Tina Testperson", "%0d%0aX: y"])
def test_ids_that_cannot_be_are_refused(report_id: str, web: Web) -> None:
    """400 or 404, never a fault, and never quoted."""
    answer = web.get(f"/reports/{report_id}")
    assert answer.status_code in (400, 404)
    assert "Tina" not in answer.text


def test_paths_and_methods_that_are_not_there(web: Web) -> None:
    """404 and 405 are problems too; 405 names what is allowed."""
    assert web.get("/nothing").get_json()["code"] == "no-such-path"
    answer = web.call("PATCH", "/reports")
    assert (answer.status_code, answer.get_json()["code"]) == (405, "method-not-allowed")
    assert "GET" in answer.headers["Allow"]


def test_a_defect_tells_nothing(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error is a plain 500: its words may hold data."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("Tina Testperson")

    monkeypatch.setattr("inlay_core.application.queries.search_reports", broken)
    answer = web.get("/reports")
    assert (answer.status_code, answer.get_json()["code"]) == (500, "fault")
    assert "Tina" not in answer.text


def test_without_tables_nothing_is_ready(tmp_path: Path) -> None:
    """/readyz is 503 before the schema is there, and /livez is 200: restarting would not help."""
    app = create_app(Settings(home=tmp_path))
    client = app.test_client()
    assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (200, 503)


def test_nothing_of_the_order_is_in_logs_metrics_or_errors(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    """Planted patient data pass through every kind of request and leave no trace beside the answers to them."""
    lines = io.StringIO()
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    configure_logs("serve", stream=lines)
    try:
        report = web.drafted()
        web.call("POST", "/reports/search", body={"accession_number": "A1", "patient_identifier": "MRN1"})
        web.get("/reports?accession_number=A1&name=Testperson")
        web.get("/reports/Testperson-MRN1")
        web.get(f"/reports/{report['id']}/image")
        web.call("POST", f"/reports/{report['id']}/sign", match='"MRN1"')
        web.client.get("/?name=Testperson")
        headers = {"Authorization": f"Bearer {web.token('ehr')}"}
        assert web.client.get("/fhir/DiagnosticReport?patient.identifier=MRN1", headers=headers).status_code == 200
        web.client.get("/fhir/Patient/Testperson", headers=headers)
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    metrics = web.client.get("/metrics").text
    assert lines.getvalue().count("http.request") >= 9
    assert 'route="/api/v1/reports/<report_id>"' in metrics
    for planted in web.site.PLANTED:
        if len(planted) > 2:
            assert planted not in lines.getvalue() + metrics, planted


def test_the_page_shows_the_report_and_who_wrote_it(web: Web) -> None:
    """List and report are there without a token on loopback; text is escaped, origins and the notice are words."""
    report = web.drafted()
    assert f"/reports/{report['id']}" in web.client.get("/").text
    edits = {"sections": [{"name": "impression", "fragments": [{"text": "<b>Bold</b> & clear", "locked": True}]}]}
    web.call("PUT", f"/reports/{report['id']}/fragments", body=edits, match='"3"')
    page = web.client.get(f"/reports/{report['id']}").text
    assert "AI draft, not verified by a clinician." in page
    assert "&lt;b&gt;Bold&lt;/b&gt; &amp; clear" in page
    assert "clinician, locked" in page
    assert ">model<" in page
    assert web.client.get(f"/reports/{report['id']}/image").content_type == "image/png"


@pytest.mark.parametrize("path", ["/", "/reports/{id}"])
def test_pages_ask_for_nothing_from_elsewhere(path: str, web: Web) -> None:
    """Scripts and styles are files of this origin; none stands in the page, and the policy forbids it as well."""
    answer = web.client.get(path.format(id=web.drafted()["id"]))
    assert set(re.findall(r"<script[^>]*>(.*?)</script>", answer.text)) == {""}
    assert not re.search(r"<style|\son\w+=|style=|https?://|src=\"//", answer.text)
    policy = answer.headers["Content-Security-Policy"]
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy.split("; "))
    assert "unsafe" not in policy


def test_the_catalogue_has_every_text_of_the_pages() -> None:
    """Each key that a template or a script names is in the catalogue, and no text stands there for nobody."""
    folder = Path(catalogue.__file__).parent
    sources = [*folder.glob("templates/*.html"), *(folder.parent / "web/src").glob("*.js")]
    text = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    named = set(re.findall(r"""[`"']([a-z][a-z-]*\.[a-z.-]+)[`"']""", text)) & set(catalogue.catalogue())
    called = set(re.findall(r"""\bt\(["']([a-z][\w.-]+)["']""", text))
    assert {key for key in called if not key.endswith(".")} <= set(catalogue.catalogue())
    families = {match + "." for match in re.findall(r"""\bt\([`"']([a-z.]+)\.(?:\$\{|["'])""", text)}
    families |= {match + "." for match in re.findall(r"""t\("([a-z]+)\." ~""", text)}
    keys = {key.removesuffix(".one") for key in catalogue.catalogue()}
    unused = [key for key in keys if key not in named | called and not key.startswith(tuple(families))]
    assert unused == []


def test_the_viewers_address_needs_what_it_names(web: Web) -> None:
    """Numbers are quoted into the site's template; without the number there is no link."""
    accession = web.drafted()["order"]["accession_number"]
    with web.site.services.reader() as uow:
        order = uow.orders.by_accession(None, accession)[0]
    template = "https://pacs.example/view?study={study_instance_uid}&a={accession_number}"
    assert viewer_link(template, order) == "https://pacs.example/view?study=1.2.826.0.1.1&a=A1"
    assert viewer_link(template, replace(order, accession_number="A&1 ")).endswith("&a=A%261%20")
    assert viewer_link(template, replace(order, study_instance_uid=None)) == ""
    assert viewer_link("", order) == ""


def test_whoever_reads_the_page_cannot_write(web: Web) -> None:
    """The page's identity is for pages only: the API answers 401 without a token, and pages take no other method."""
    report = web.drafted()
    assert web.call("POST", f"/reports/{report['id']}/sign", None, match='"3"').status_code == 401
    assert web.client.post(f"/reports/{report['id']}").status_code == 405


def test_elsewhere_the_page_needs_a_token(tmp_path: Path) -> None:
    """With a provider's keys there is no identity for free."""
    web = Web(tmp_path)
    keys = tmp_path / "keys" / "token-key.json"
    app = create_app(Settings(home=tmp_path, auth="jwt", jwks_file=str(keys), http_host="0.0.0.0"))  # noqa: S104
    client = app.test_client()
    assert client.get("/", headers={"Host": "inlay.hospital.example"}).status_code == 401
    for role in ROLES:
        headers = {"Authorization": f"Bearer {web.token(role)}", "Host": "inlay.hospital.example"}
        assert client.get("/", headers=headers).status_code == 200


def test_failures_of_nobody_are_counted_and_not_recorded(web: Web) -> None:
    """Requests without a good token raise a counter by their status; the trail does not grow with them."""

    def trail() -> int:
        with web.site.services.reader() as uow:
            return len([*uow.audit.unsealed()])

    before = trail()
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp4"}):
        assert web.client.get("/fhir/DiagnosticReport/1", headers=headers).status_code == 401
    assert trail() == before
    counted = 'inlay_http_requests_total{method="GET",route="/fhir/<path:path>",status="401"} 3.0'
    assert counted in web.client.get("/metrics").text
    known = web.client.get("/fhir/DiagnosticReport/1", headers={"Authorization": f"Bearer {web.token('ehr')}"})
    assert (known.status_code, trail()) == (404, before + 1)


def test_fhir_is_mounted_with_the_same_tokens(web: Web) -> None:
    """What Inlay can do (metadata) is open, the rest needs a token; errors of the edge are OperationOutcomes."""
    statement = web.client.get("/fhir/metadata").get_json()
    assert statement["resourceType"] == "CapabilityStatement"
    assert statement["software"]["version"] == metadata.version("inlay")
    refused = web.client.get("/fhir/DiagnosticReport")
    assert (refused.status_code, refused.content_type) == (401, "application/fhir+json")
    assert refused.get_json()["issue"][0]["code"] == "login"
    report = web.drafted()
    headers = {"Authorization": f"Bearer {web.token('ehr')}"}
    found = web.client.get("/fhir/DiagnosticReport?based-on:identifier=A1", headers=headers).get_json()
    assert found["entry"][0]["resource"]["id"] == report["id"]
    one = web.client.get(f"/fhir/DiagnosticReport/{report['id']}", headers=headers)
    assert (one.headers["ETag"], one.get_json()["status"]) == ('W/"3"', "partial")
    tags = web.site.tags(web.site.ward.report(report["id"]))
    assert "reader:report:read" in tags


def test_with_a_providers_keys_the_page_tells_no_figures(tmp_path: Path) -> None:
    """Whoever reaches the page from elsewhere finds no metrics there, also where they have no port of their own."""
    web = Web(tmp_path)
    assert web.client.get("/metrics").status_code == 200
    keys = tmp_path / "keys" / "token-key.json"
    settings = Settings(home=tmp_path, auth="jwt", jwks_file=str(keys), http_host="0.0.0.0")  # noqa: S104
    answer = create_app(settings, web.site.services_with(settings)).test_client().get("/metrics")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "not-here")


def test_jobs_and_deliveries_that_have_ended_are_not_counted_in_the_database(web: Web) -> None:
    """A scrape counts what is open, with zeros, so that it takes no longer after a million reports."""
    web.drafted("1")
    web.site.order("2", wake=False)
    page = web.client.get("/metrics").text
    assert 'inlay_jobs{priority="routine",state="queued"} 1.0' in page
    assert 'inlay_jobs{priority="stat",state="running"} 0.0' in page
    assert "succeeded" not in page
    assert 'inlay_outbox{state="pending",to="celery"} 2.0' in page
    assert "delivered" not in page


@pytest.mark.parametrize(("path", "status"), [("/administration", 403), ("/reports/none", 404), ("/nowhere", 404)])
def test_somebody_who_opens_a_page_is_told_in_words(path: str, status: int, web: Web) -> None:
    """A problem is a page with a way on for a browser that wants one, and JSON for everybody else."""
    headers = {"Authorization": f"Bearer {web.token('radiologist')}"}
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}
    shown = web.client.get(path, headers=headers | browser)
    assert (shown.status_code, shown.content_type) == (status, "text/html; charset=utf-8")
    assert 'role="alert"' in shown.text
    assert '<a class="button" href="/">' in shown.text
    for accept in ("*/*", "application/json", "image/png,*/*;q=0.5"):
        told = web.client.get(path, headers=headers | {"Accept": accept})
        assert (told.status_code, told.content_type) == (status, "application/problem+json")
    told = web.client.get("/api/v1/reports/none", headers=headers | browser)
    assert told.content_type == "application/problem+json"
