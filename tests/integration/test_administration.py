from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from inlay_api.openapi import all_routes, document
from inlay_core.application.ports import Delivery
from inlay_testkit.login import HOME, Browser, tokens_on
from inlay_testkit.web import Web

PAGES = ("/administration", "/oversight", "/oversight/studies", "/login")
CASES = [{"label": "one", "drafts": {"tiny": {"findings": "A. B."}, "large": {"findings": "<b>C</b>."}}}]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """An application over a fresh installation, with one drafted report."""
    site = Web(tmp_path)
    site.drafted()
    yield site
    site.site.services.close()


def fits(name: str, body: Any) -> None:
    """Raise unless the body fits the published schema."""
    schemas = document(all_routes())["components"]["schemas"]
    Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}).validate(body)


def browser(web: Web, role: str) -> Browser:
    """A browser with a session of that role."""
    made = Browser(web.client)
    made.choose(role)
    return made


def tags(web: Web) -> list[str]:
    """All tags of the trail."""
    with web.site.services.reader() as uow:
        return [str(event.tag) for event in uow.audit.unsealed()]


# ---------------------------------------------------------------------------------------------- switches


def test_a_switch_is_set_over_the_api_and_holds_at_once(web: Web) -> None:
    """Stopping infill of a site refuses it there; the list says who did it; resuming lets it go on."""
    report = web.report(web.get("/reports").get_json()["reports"][0]["id"])
    stop = {"on": True, "use": "infill", "site": "RIS"}
    answer = web.call("PUT", "/switches", "admin", body=stop)
    fits("Switch", answer.get_json())
    assert answer.get_json()["name"] == "generation?use=infill&site=RIS"
    request = {"sections": [{"name": "findings", "items": [{"gap": {}}]}]}
    asked = web.call("POST", f"/reports/{report['id']}/infill", body=request, match=f'"{report["version"]}"')
    assert (asked.status_code, asked.get_json()["code"]) == (503, "generation-off")
    listed = web.get("/switches", "auditor").get_json()
    fits("SwitchList", listed)
    assert [(one["on"], one["changed_by"]) for one in listed["switches"]] == [(True, "id:admin")]
    assert web.call("PUT", "/switches", "admin", body=stop | {"on": False}).get_json()["on"] is False
    asked = web.call("POST", f"/reports/{report['id']}/infill", body=request, match=f'"{report["version"]}"')
    assert asked.status_code == 202
    assert [tag for tag in tags(web) if "switch" in tag] == ["admin:switch:stopped", "admin:switch:started"]


@pytest.mark.parametrize(
    "body", [{}, {"on": "yes"}, {"on": True, "use": "signing"}, {"on": True, "site": ""}, {"on": True, "color": "red"}]
)
def test_settings_that_name_nothing_are_refused(web: Web, body: dict[str, Any]) -> None:
    """What does not say what to stop stops nothing."""
    assert web.call("PUT", "/switches", "admin", body=body).status_code == 400
    assert web.get("/switches", "admin").get_json()["switches"] == []


# ---------------------------------------------------------------------------------------------- administration


def test_the_overview_tells_of_everything(web: Web) -> None:
    """Jobs that wait, senders and destinations are there as the published schema says, without a patient."""
    web.site.order("2", wake=False)
    answer = web.get("/administration", "admin")
    fits("Overview", answer.get_json())
    body = answer.get_json()
    assert [(one["kind"], one["state"], one["number"]) for one in body["queues"]] == [("draft", "queued", 1)]
    assert [(one["application"], one["messages"], one["refused"]) for one in body["senders"]] == [("RIS", 2, 0)]
    assert body["destinations"][0]["destination"] == "celery"
    for planted in web.site.PLANTED:
        if len(planted) > 2:
            assert planted not in answer.text
    assert "reader:access:state" in tags(web)


def test_the_page_stops_and_resumes(web: Web) -> None:
    """The red button stops everything, the page says so, and the same place resumes it."""
    admin = browser(web, "admin")
    page = admin.get("/administration")
    assert page.status_code == 200
    (token,) = tokens_on(page.text)
    assert admin.post("/administration/switches", {"csrf": token, "act": "stop"}).status_code == 303
    assert "All generation is stopped." in admin.get("/administration").text
    some = {"csrf": token, "act": "stop", "use": "draft", "site": "N<b>", "modality": "", "model": " "}
    admin.post("/administration/switches", some)
    admin.post("/administration/switches", {"csrf": token, "act": "resume"})
    page = admin.get("/administration")
    assert "All generation is stopped." not in page.text
    assert "N&lt;b&gt;" in page.text
    states = {one["name"]: one["on"] for one in web.get("/switches", "admin").get_json()["switches"]}
    assert states == {"generation": False, "generation?use=draft&site=N%3Cb%3E": True}


def test_forms_need_their_token_and_role(web: Web) -> None:
    """Without the page's token, from another page, or as a radiologist nothing is switched."""
    admin = browser(web, "admin")
    (token,) = tokens_on(admin.get("/administration").text)
    assert admin.post("/administration/switches", {"act": "stop"}).status_code == 403
    other = {"csrf": token, "act": "stop"}
    assert admin.post("/administration/switches", other, Origin="http://evil.example").status_code == 403
    assert admin.post("/administration/switches", {"csrf": token, "act": "burn"}).status_code == 400
    reader = browser(web, "radiologist")
    (token,) = tokens_on(reader.get("/").text)
    assert reader.post("/administration/switches", {"csrf": token, "act": "stop"}).status_code == 403
    assert web.get("/switches", "admin").get_json()["switches"] == []
    assert tags(web).count("reader:access:refused") == 1


def test_parked_results_are_sent_again_from_the_page(web: Web) -> None:
    """What nobody took stands on the page with its error, and one button queues it."""
    report = web.get("/reports").get_json()["reports"][0]["id"]
    from inlay_core.application.ports import OutboxItem

    now = web.site.services.clock()
    payload = {"report_id": report, "version": 3, "status": "drafted"}
    item = OutboxItem("item-1", "oru", report, payload, now, now, "C1", Delivery.DEAD, 60, last_error="AR")
    with web.site.services.uow() as uow:
        uow.outbox.add(item)
        uow.commit()
    admin = browser(web, "admin")
    page = admin.get("/administration").text
    assert "Send again" in page
    (token,) = tokens_on(page)
    assert admin.post("/administration/deliveries", {"csrf": token, "id": "item-1"}).status_code == 303
    with web.site.services.reader() as uow:
        again = uow.outbox.get("item-1")
    assert again is not None
    assert again.state is Delivery.PENDING
    assert admin.post("/administration/deliveries", {"csrf": token, "id": "item-1"}).status_code == 409


@pytest.mark.parametrize("path", PAGES)
def test_pages_keep_to_the_policy(web: Web, path: str) -> None:
    """No script, style or handler inside, nothing of another origin; a strict policy; forms only to us."""
    admin = browser(web, "admin")
    answer = admin.get(path)
    assert answer.status_code == 200
    text = re.sub(r"<script type=\"module\" src=\"/static/[\w.]+\"></script>", "", answer.text)
    assert not re.search(r"<script|<style|\son\w+=|style=|https?://|src=\"//", text)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/administration", "/oversight", "/oversight/studies"])
def test_pages_of_roles_need_a_login(web: Web, path: str) -> None:
    """Whoever sits at the machine of the embedded mode has to choose a user first, and one who may."""
    visitor = Browser(web.client)
    answer = visitor.get(path)
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/login?next={path}")
    assert web.client.get(path, headers={"Authorization": f"Bearer {web.token('ehr')}"}).status_code == 403


# ---------------------------------------------------------------------------------------------- oversight


def test_figures_are_there_as_json_csv_and_plots(web: Web) -> None:
    """One draft that was signed as it was: a row, the same as CSV, and a page with plots that need no script."""
    reader = browser(web, "radiologist")
    report = web.get("/reports").get_json()["reports"][0]["id"]
    headers = {"X-CSRF-Token": reader.csrf(), "Origin": HOME, "If-Match": '"3"'}
    for act in ("open", "sign"):
        done = web.client.post(f"/api/v1/reports/{report}/{act}", headers=headers, base_url=HOME, json={})
        assert done.status_code == 200, done.text
        headers["If-Match"] = done.headers["ETag"]
    body = web.get("/usage?by=month", "auditor").get_json()
    fits("Usage", body)
    (row,) = body["rows"]
    assert (row["drafts"], row["signed"], row["signed_untouched"], row["share_kept"]) == (1, 1, 1, 1.0)
    listed = web.get("/usage.csv?by=month", "auditor")
    assert listed.content_type == "text/csv; charset=utf-8"
    assert listed.text.splitlines()[0].split(",") == list(row)
    page = browser(web, "auditor").get("/oversight?by=all")
    assert page.text.count("<svg") == 3
    assert 'class="kept"' in page.text
    for text in (page.text, listed.text, json.dumps(body)):
        for planted in ("Testperson", "heart", "MRN1", report):
            assert planted not in text
    assert tags(web).count("reader:access:usage") == 3


@pytest.mark.parametrize(
    "query", ["since=yesterday", "until=2026-13-01", "by=hour", "since=2026-02-02&until=2026-01-01"]
)
def test_spans_that_are_none_are_refused(web: Web, query: str) -> None:
    """A problem, not an empty table."""
    assert web.get(f"/usage?{query}", "auditor").status_code == 400


# ---------------------------------------------------------------------------------------------- reader studies


def test_a_study_from_its_making_to_its_results(web: Web) -> None:
    """Made over the API, graded on the page without any name of an arm in sight, read out with tests."""
    made = web.call(
        "POST", "/reader-studies", "admin", body={"name": "pilot", "arms": ["tiny", "large"], "cases": CASES}
    )
    assert made.status_code == 201, made.text
    fits("ReaderStudy", made.get_json())
    study = made.get_json()["id"]
    reader = browser(web, "radiologist")
    page = reader.get(f"/oversight/studies/{study}")
    assert "&lt;b&gt;C&lt;/b&gt;." in page.text
    assert not re.search(r"\b(tiny|large)\b", page.text + reader.get("/oversight/studies").text)
    fits("ReaderCase", web.get(f"/reader-studies/{study}/case").get_json())
    (token,) = tokens_on(page.text)
    names = set(re.findall(r'name="((?:mark|score)-[\d-]+)"', page.text))
    form = {name: "correct" if name.startswith("mark") else "4" for name in names} | {"csrf": token}
    part = reader.post(f"/oversight/studies/{study}/cases/1", form)
    assert part.status_code == 303, part.text
    assert "checked" in reader.get(part.headers["Location"]).text
    assert reader.post(f"/oversight/studies/{study}/cases/1", form | {"score-0": "9" * 5000}).status_code == 303
    reader.post(f"/oversight/studies/{study}/cases/1", form | {"choice": "neither"})
    assert "You have graded every case" in reader.get(f"/oversight/studies/{study}").text
    found = web.get(f"/reader-studies/{study}/results", "auditor").get_json()
    fits("ReaderResults", found)
    assert (found["grades"], found["preferred_neither"], [arm["score"] for arm in found["arms"]]) == (1, 1, [4, 4])
    exported = web.get(f"/reader-studies/{study}/grades", "auditor").get_json()
    fits("GradeExport", exported)
    watcher = browser(web, "auditor")
    assert "Wilcoxon" in watcher.get(f"/oversight/studies/{study}/results").text
    assert watcher.get(f"/oversight/studies/{study}/grades.csv").text.startswith("case,label,reader,")
    assert watcher.get(f"/oversight/studies/{study}").status_code == 403


def test_grades_over_the_api(web: Web) -> None:
    """The same by a program of the reader's own; a closed study answers 409."""
    body = {"name": "pilot", "arms": ["tiny", "large"], "cases": CASES}
    study = web.call("POST", "/reader-studies", "admin", body=body).get_json()["id"]
    case = web.get(f"/reader-studies/{study}/case").get_json()["case"]
    marks = [[None] * sum(len(section["sentences"]) for section in draft) for draft in case["drafts"]]
    grade = {"marks": marks, "scores": [None, 3], "choice": None}
    answer = web.call("PUT", f"/reader-studies/{study}/cases/1/grade", body=grade)
    fits("Grade", answer.get_json())
    assert answer.get_json() == grade | {"number": 1, "complete": False}
    assert web.call("PUT", f"/reader-studies/{study}/cases/x/grade", body=grade).status_code == 400
    assert web.call("POST", f"/reader-studies/{study}/close", "admin", body={}).status_code == 200
    assert web.call("PUT", f"/reader-studies/{study}/cases/1/grade", body=grade).status_code == 409
    assert web.call("POST", "/reader-studies", "admin", body=body).status_code == 409
