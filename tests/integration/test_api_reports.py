import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from werkzeug.test import TestResponse

from inlay_api.schemas import SCHEMAS
from inlay_core.application.ports import Generated, StepProgress
from inlay_core.domain.infill import Candidate, Choice
from inlay_testkit.core import DRAFT
from inlay_testkit.web import ROLES, Web

# Composed and decomposed, combining marks, emoji with joiners, right to left, CRLF, tabs, trailing and strange blanks.
TRICKY = (
    "Caf\u00e9 \r\n",
    "Cafe\u0301\t ",
    "\U0001f469\U0001f3fd\u200d\u2695\ufe0f 1.5\u00a0cm\u2028",
    "\u0627\u0644\u0642\u0644\u0628 \u05dc\u05d1 \u202eabc\u202c ",
    "a\u0323\u0307 \ufeff\u200b\ud7ff\ue000\uffff ",
    "<script>alert('&quot;')</script>\\u0041\\n ",
    " ",
)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """An application over a fresh installation."""
    site = Web(tmp_path)
    yield site
    site.site.services.close()


def fits(answer: TestResponse, name: str) -> Any:
    """The body, which must fit the schema that the OpenAPI document names for it."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": dict(SCHEMAS)}}
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(answer.get_json())
    return answer.get_json()


def changes(report: dict[str, Any], *, lock: bool = True) -> dict[str, Any]:
    """All sections of a report as they are, each fragment locked or not."""
    sections = [
        {"name": s["name"], "fragments": [{"id": f["id"], "text": f["text"], "locked": lock} for f in s["fragments"]]}
        for s in report["sections"]
    ]
    return {"sections": sections}


def texts(report: dict[str, Any], name: str = "findings") -> list[str]:
    """The texts of a section's fragments."""
    section = next(section for section in report["sections"] if section["name"] == name)
    return [fragment["text"] for fragment in section["fragments"]]


def test_the_way_of_a_report(web: Web) -> None:
    """Found by accession, read, locked, filled, signed, amended, retracted: every answer fits its schema."""
    report_id = web.drafted()["id"]
    found = fits(web.call("POST", "/reports/search", body={"accession_number": "A1"}), "ReportPage")
    assert [row["id"] for row in found["reports"]] == [report_id]
    answer = web.get(f"/reports/{report_id}")
    report = fits(answer, "Report")
    assert answer.headers["ETag"] == f'"{report["version"]}"'
    assert report["banner"] == "AI draft, not verified by a clinician."
    assert {f["origin"] for s in report["sections"] for f in s["fragments"]} == {"model", "imported"}

    path, tag = f"/reports/{report_id}", answer.headers["ETag"]
    body = changes({"sections": [report["sections"][1]]})
    answer = web.call("PUT", f"{path}/fragments", body=body, match=tag)
    report, tag = fits(answer, "Report"), answer.headers["ETag"]
    assert report["status"] == "in-review"

    locked = [f["id"] for f in report["sections"][1]["fragments"]]
    items = [
        {"lock": locked[0]},
        {"gap": {"max_tokens": 40, "hint": "pleura"}},
        {"lock": locked[1]},
        {"lock": locked[2]},
    ]
    answer = web.call("POST", f"{path}/infill", body={"sections": [{"name": "findings", "items": items}]}, match=tag)
    job = fits(answer, "Job")
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    web.fill("Small effusion. ")
    done = fits(web.get(f"/jobs/{job['id']}"), "JobDetail")
    assert done["state"] == "succeeded"
    assert [lock["fragment_id"] for lock in done["locks"]] == locked
    assert [lock["item"] for lock in done["locks"]] == [0, 2, 3]

    answer = web.get(path)
    report = fits(answer, "Report")
    assert texts(report)[1] == "Small effusion. "
    answer = web.call("POST", f"{path}/sign", body={}, match=answer.headers["ETag"])
    signed = fits(answer, "Report")
    assert (signed["status"], signed["signature"]["signer"]["name"]) == ("signed", "Name of radiologist")
    assert signed["banner"] == ""

    amendment = {
        "kind": "append",
        "reason": "Seen again.",
        "sections": [{"name": "comparison", "fragments": [{"text": "None."}]}],
    }
    answer = web.call("POST", f"{path}/amend", body=amendment, match=answer.headers["ETag"])
    assert fits(answer, "Report")["status"] == "appended"
    answer = web.call("POST", f"{path}/retract", body={"reason": "Wrong patient."}, match=answer.headers["ETag"])
    assert fits(answer, "Report")["status"] == "entered-in-error"

    versions = fits(web.get(f"{path}/versions"), "VersionList")["versions"]
    assert [version["version"] for version in versions] == list(range(1, len(versions) + 1))
    third = fits(web.get(f"{path}/versions/3"), "Report")
    assert (third["version"], third["status"]) == (3, "drafted")
    assert fits(web.get(f"{path}/versions/99"), "Problem")["code"] == "unknown-version"
    tags = [event["tag"] for event in fits(web.get(f"{path}/audit", "auditor"), "Trail")["events"]]
    assert {"clinician:report:signed", "clinician:report:retracted", "reader:report:read"} <= set(tags)


def test_locked_text_comes_back_byte_for_byte(web: Web) -> None:
    """Unicode in every form, line ends, tabs and trailing blanks survive edit, infill, sign and reading."""
    report = web.drafted()
    path = f"/reports/{report['id']}"
    fragments = [{"text": text, "locked": True} for text in TRICKY]
    body = {"sections": [{"name": "findings", "fragments": fragments}]}
    answer = web.call("PUT", f"{path}/fragments", body=body, match='"3"')
    assert texts(answer.get_json()) == list(TRICKY)
    ids = [fragment["id"] for fragment in answer.get_json()["sections"][1]["fragments"]]
    items: list[Any] = [{"gap": {}}]
    for fragment_id in ids:
        items += [{"lock": fragment_id}, {"gap": {}}]
    # Locked text that is sent rather than named, too.
    items.append({"text": "e\u0301\r\n\t ", "locked": True})
    asked = {"sections": [{"name": "findings", "items": items}]}
    raw = json.dumps(asked, ensure_ascii=False).encode()
    answer = web.call("POST", f"{path}/infill", raw=raw, match='"4"')
    assert answer.status_code == 202, answer.text
    web.fill(*["New words. "] * (len(TRICKY) + 1))
    done = web.get(f"/jobs/{answer.get_json()['id']}").get_json()
    kept = [*TRICKY, "e\u0301\r\n\t "]
    assert [lock["sha256"] for lock in done["locks"]] == [hashlib.sha256(t.encode()).hexdigest() for t in kept]
    signed = web.call("POST", f"{path}/sign", match='"5"')
    body_bytes = web.get(path).data
    assert [f["text"] for s in signed.get_json()["sections"] for f in s["fragments"] if f["locked"]] == kept
    # Not escaped on the wire either: the bytes of the text stand in the answer.
    assert TRICKY[3].encode() in body_bytes


@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [
        ("POST", "open", {}),
        ("PUT", "fragments", {"sections": []}),
        ("POST", "infill", {"sections": [{"name": "impression", "items": [{"gap": {}}]}]}),
        ("POST", "retry", {}),
        ("POST", "sign", {}),
        ("POST", "amend", {"reason": "x", "sections": []}),
        ("POST", "retract", {"reason": "x"}),
    ],
)
def test_writes_name_the_version_that_they_saw(method: str, rest: str, body: dict[str, Any], web: Web) -> None:
    """428 without If-Match or with *, 412 for another version, and nothing has changed."""
    report = web.drafted()
    path = f"/reports/{report['id']}/{rest}"
    for match, status in ((None, 428), ("*", 428), ('"2"', 412), ('"4"', 412), ("garbage", 412)):
        answer = web.call(method, path, body=body, match=match)
        assert (answer.status_code, fits(answer, "Problem")["status"]) == (status, status), answer.text
    assert web.report(report["id"])["version"] == 3


def test_the_same_edit_twice_is_done_once(web: Web) -> None:
    """Eight submissions of one version at once: one makes a version, the others see that it moved on."""
    report = web.drafted()
    body = changes(report)

    def submit(_: int) -> int:
        headers = {"Authorization": f"Bearer {token}", "If-Match": '"3"'}
        return (
            web.app.test_client()
            .put(f"/api/v1/reports/{report['id']}/fragments", json=body, headers=headers)
            .status_code
        )

    token = web.token("radiologist")
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(submit, range(8)))
    assert statuses == [200] + [412] * 7
    assert web.report(report["id"])["version"] == 4


def test_signing_twice_signs_once(web: Web) -> None:
    """The second signature meets another version, and with that version a report that is signed already."""
    path = f"/reports/{web.drafted()['id']}"
    first = web.call("POST", f"{path}/sign", match='"3"')
    assert first.status_code == 200
    assert web.call("POST", f"{path}/sign", match='"3"').status_code == 412
    again = web.call("POST", f"{path}/sign", match=first.headers["ETag"])
    assert (again.status_code, again.get_json()["code"]) == (409, "wrong-status")


def test_a_second_infill_takes_the_place_of_the_first(web: Web) -> None:
    """Two requests on one version: the older job is superseded, one result is applied."""
    report = web.drafted()
    path = f"/reports/{report['id']}"
    body = {"sections": [{"name": "impression", "items": [{"gap": {}}]}]}
    first, second = (web.call("POST", f"{path}/infill", body=body, match='"3"').get_json() for _ in range(2))
    web.fill("Other words.")
    assert web.get(f"/jobs/{first['id']}").get_json()["state"] == "superseded"
    assert web.get(f"/jobs/{second['id']}").get_json()["result_version"] == 4


def test_texts_that_a_gap_might_hold_are_part_of_the_result(web: Web) -> None:
    """Two texts asked for: the job has both, best first, with what is known of each; six are refused."""
    report = web.drafted()
    path = f"/reports/{report['id']}/infill"
    body = {"sections": [{"name": "impression", "items": [{"gap": {}}]}], "alternatives": 2}
    job = web.call("POST", path, body=body, match='"3"').get_json()
    assert fits(web.get(f"/jobs/{job['id']}"), "JobDetail")["alternatives"] == []
    found = (Candidate("Normal.", -0.1, 0.9), Candidate("No change.", -0.7))
    web.fill("Normal.", choices=(Choice("impression", 0, found),))
    done = fits(web.get(f"/jobs/{job['id']}"), "JobDetail")
    texts = [{"text": "Normal.", "score": -0.1, "probability": 0.9}, {"text": "No change.", "score": -0.7}]
    assert done["alternatives"] == [{"section": "impression", "item": 0, "texts": texts}]
    assert web.call("POST", path, body=body | {"alternatives": 6}, match='"4"').status_code == 400


def test_locked_text_cannot_be_lost(web: Web) -> None:
    """423 for an edit or an infill that leaves a locked fragment out, naming the place and no text."""
    report = web.drafted()
    path = f"/reports/{report['id']}"
    web.call("PUT", f"{path}/fragments", body=changes(report), match='"3"')
    for rest, method, body in (
        ("fragments", "PUT", {"sections": [{"name": "findings", "fragments": []}]}),
        ("infill", "POST", {"sections": [{"name": "findings", "items": [{"gap": {}}]}]}),
    ):
        answer = web.call(method, f"{path}/{rest}", body=body, match='"4"')
        assert (answer.status_code, fits(answer, "Problem")["place"]) == (423, "sections[0]")
        assert "heart" not in answer.text


def test_reading_again_costs_nothing_while_nothing_moves(web: Web) -> None:
    """304 for what the caller has; 200 as soon as a job moves, though the version does not."""
    report = web.drafted()
    path = f"/reports/{report['id']}"
    for address in ("/reports", path, f"{path}/versions", f"{path}/versions/2", f"/jobs/{report['jobs'][0]['id']}"):
        tag = web.get(address).headers["ETag"]
        answer = web.get(address, If_None_Match=tag)
        assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", tag), address
    body = {"sections": [{"name": "impression", "items": [{"gap": {}}]}]}
    job = web.call("POST", f"{path}/infill", body=body, match='"3"').get_json()
    assert web.get(path, If_None_Match='"3"').status_code == 200
    web.call("DELETE", f"/jobs/{job['id']}", match="*")
    answer = web.get(path, If_None_Match='"3"')
    assert (answer.status_code, answer.get_json()["jobs"][-1]["state"]) == (200, "cancelled")


def test_the_worklist_has_pages(web: Web) -> None:
    """Offset and limit cut the list; statuses choose; the total counts all that fit."""
    for number in ("1", "2", "3"):
        web.site.order(number, wake=False, image=False)
    web.site.ward.draft()
    page = fits(web.get("/reports?limit=2&offset=1"), "ReportPage")
    assert (len(page["reports"]), page["total"], page["offset"], page["limit"]) == (2, 3, 1, 2)
    assert web.get("/reports?status=drafted").get_json()["total"] == 1
    assert web.get("/reports?status=drafted,registered").get_json()["total"] == 3
    assert web.get("/reports?status=drafted&status=registered").get_json()["total"] == 3
    assert "findings" not in web.get("/reports").text


@pytest.mark.parametrize(
    "query",
    ["status=open", "limit=0", "limit=201", "offset=-1", "limit=x", "sort=name", "accession_number=A1", "q=MRN1"],
)
def test_queries_that_are_not_known_are_refused(query: str, web: Web) -> None:
    """400 rather than a list that is not what was asked for; identifiers cannot come in a URL, and are not quoted."""
    answer = web.get(f"/reports?{query}")
    assert answer.status_code == 400
    assert not any(word in answer.text for word in ("A1", "MRN1", "open"))


def test_searching_by_identifiers(web: Web) -> None:
    """Each criterion finds, several restrict, and a misspelt one is refused instead of finding everything."""
    for number in ("1", "2"):
        web.site.order(number, wake=False, image=False)

    def found(**criteria: Any) -> int:
        total: int = web.call("POST", "/reports/search", "ehr", body=criteria).get_json()["total"]
        return total

    assert found() == 2
    assert found(accession_number="A1", accession_assigner="RIS") == 1
    assert found(accession_number="A1", accession_assigner="OTHER") == 0
    assert found(patient_identifier=["MRN1", "MRN2"]) == 2
    assert found(patient_identifier="MRN1", accession_number="A2") == 0
    assert found(study_instance_uid="1.2.826.0.1.2", status="registered") == 1
    assert found(status=[]) == 0
    answer = web.call("POST", "/reports/search", body={"accesion_number": "A1"})
    assert (answer.status_code, answer.get_json()["code"]) == (400, "unknown-key")


def test_a_failed_draft_can_be_asked_for_again(web: Web) -> None:
    """Cancelling the draft fails the report; retry queues another job and answers where it is."""
    report = web.report(web.site.order("1", wake=False).id)
    job = report["jobs"][0]["id"]
    assert web.call("DELETE", f"/jobs/{job}").status_code == 428
    assert web.call("DELETE", f"/jobs/{job}", match='"other"').status_code == 412
    cancelled = web.call("DELETE", f"/jobs/{job}", match=web.get(f"/jobs/{job}").headers["ETag"])
    assert fits(cancelled, "JobDetail")["state"] == "cancelled"
    assert web.call("DELETE", f"/jobs/{job}", match="*").status_code == 409
    report = web.report(report["id"])
    assert (report["status"], report["reason"]["code"]) == ("failed", "job-cancelled")
    answer = web.call("POST", f"/reports/{report['id']}/retry", match=f'"{report["version"]}"')
    assert fits(answer, "Job")["state"] == "queued"
    assert answer.status_code == 202


def test_infill_that_is_switched_off_is_unavailable(tmp_path: Path) -> None:
    """503 with Retry-After; reading and signing go on."""
    web = Web(tmp_path, infill=False)
    path = f"/reports/{web.drafted()['id']}"
    body = {"sections": [{"name": "impression", "items": [{"gap": {}}]}]}
    answer = web.call("POST", f"{path}/infill", body=body, match='"3"')
    assert (answer.status_code, answer.get_json()["code"]) == (503, "generation-off")
    assert answer.headers["Retry-After"]
    assert web.call("POST", f"{path}/sign", match='"3"').status_code == 200


def test_what_the_demonstration_model_says_is_labelled(web: Web) -> None:
    """The notice about phantoms stands beside its words, signed or not."""
    record = {"demonstration": True}
    report = web.drafted(generated=Generated(record, texts=(("findings", "Clear."),)))
    assert report["banner"].endswith("Synthetic phantom images only; not for clinical use.")
    signed = web.call("POST", f"/reports/{report['id']}/sign", match='"3"').get_json()
    assert signed["banner"] == "Synthetic phantom images only; not for clinical use."
    assert signed["run_records"][0]["record"] == record


def test_the_image_is_windowed_by_the_query(web: Web) -> None:
    """A PNG of the asked size; window and inversion change it; the same picture again is 304."""
    report = web.drafted()
    path = f"/reports/{report['id']}/image"
    plain = web.get(f"{path}?max_side=64", "ehr")
    assert (plain.status_code, plain.content_type, plain.data[:8]) == (200, "image/png", b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(plain.data[16:20], "big") == 64
    others = [web.get(f"{path}?max_side=64&{query}").data for query in ("center=2000&width=50", "invert=true")]
    assert len({plain.data, *others}) == 3
    assert web.get(f"{path}?max_side=64", If_None_Match=plain.headers["ETag"]).status_code == 304
    assert web.get(f"{path}?view=1").status_code == 404
    for query in ("width=5", "center=1&width=0", "center=nan&width=9", "max_side=8", "view=x", "invert=maybe", "a=b"):
        assert web.get(f"{path}?{query}").status_code == 400, query


def test_a_study_without_images_has_no_picture(web: Web) -> None:
    """404 while nothing has arrived, 409 for a file whose pixels cannot be shown."""
    broken = web.site.order("2", wake=False, PhotometricInterpretation="PALETTE COLOR")
    missing = web.site.order("1", wake=False, image=False)
    answer = web.get(f"/reports/{broken.id}/image")
    assert answer.status_code == 409
    assert "Patricia" not in answer.text
    assert web.get(f"/reports/{missing.id}/image").get_json()["code"] == "no-image"


@pytest.mark.parametrize("role", ROLES)
def test_everybody_who_reads_stands_in_the_trail(role: str, web: Web) -> None:
    """A reading of a report is an event with the reader, the version and the request's id."""
    report = web.site.order("1", wake=False)
    answer = web.get(f"/reports/{report.id}", role)
    events = web.get(f"/reports/{report.id}/audit").get_json()["events"]
    read = events[-1]
    assert (read["tag"], read["actor"]["id"], read["subject"]["version"]) == ("reader:report:read", f"id:{role}", 1)
    assert read["request_id"] == answer.headers["X-Request-Id"]


def test_checks_point_at_what_to_look_at(web: Web) -> None:
    """A side that changes between the sections is named with its place, and 304 tells that nothing else was found."""
    draft = Generated({}, texts=(("findings", "Left pleural effusion."), ("impression", "Right pleural effusion.")))
    report = web.drafted(generated=draft)
    answer = web.get(f"/reports/{report['id']}/checks")
    (check,) = fits(answer, "CheckList")["checks"]
    assert (check["code"], check["section"], check["start"], check["end"]) == ("laterality", "impression", 6, 22)
    again = web.get(f"/reports/{report['id']}/checks", If_None_Match=answer.headers["ETag"])
    assert again.status_code == 304


def test_images_tell_of_themselves(web: Web) -> None:
    """Size, orientation and window are what the file says; before it arrives the list is empty."""
    report = web.site.order("1", wake=False, PatientOrientation=["L", "F"], PixelSpacing=["0.5", "0.25"])
    (image,) = fits(web.get(f"/reports/{report.id}/images"), "ImageList")["images"]
    assert (image["rows"], image["columns"], image["spacing_mm"]) == (96, 96, [0.5, 0.25])
    assert image["orientation"] == ["L", "F"]
    window = image["window"]
    shown = web.get(f"/reports/{report.id}/image?center={window['center']}&width={window['width']}").data
    assert shown[:8] == b"\x89PNG\r\n\x1a\n"
    missing = web.site.order("2", wake=False, image=False)
    assert fits(web.get(f"/reports/{missing.id}/images"), "ImageList") == {"images": []}


def test_an_edit_names_words_instead_of_sending_them(web: Web) -> None:
    """A cut sentence, one of an earlier version, and another text of the model keep who wrote them."""
    report = web.drafted()
    path, findings = f"/reports/{report['id']}", report["sections"][1]["fragments"]
    items = [{"gap": {}}, {"lock": findings[1]["id"]}]
    asked = {"sections": [{"name": "findings", "items": items}], "alternatives": 2}
    job = fits(web.call("POST", f"{path}/infill", body=asked, match='"3"'), "Job")
    web.fill("One. ", choices=(Choice("findings", 0, (Candidate("One.", -0.1), Candidate("Two.", -0.2))),))
    edit = {
        "name": "findings",
        "unlocked": [findings[1]["id"]],
        "fragments": [
            {"offered": {"job_id": job["id"], "item": 0, "text": 1}},
            {"id": findings[1]["id"], "span": [0, 10], "locked": True},
            {"id": findings[0]["id"], "version": 3},
        ],
    }
    answer = web.call("PUT", f"{path}/fragments", body={"sections": [edit]}, match='"4"')
    after = fits(answer, "Report")["sections"][1]["fragments"]
    assert [one["text"] for one in after] == ["Two. ", "No pleural", "The heart is normal. "]
    assert {one["origin"] for one in after} == {"model"}
    assert [one["locked"] for one in after] == [False, True, False]


def test_a_waiting_job_tells_its_place_in_the_queue(web: Web) -> None:
    """Each reading of it, whatever tag the client has; a place that moved makes no cancelling stale."""
    report = web.drafted()
    (other,) = web.site.jobs(web.site.order("2", wake=False))
    items = [{"lock": one["id"]} for one in report["sections"][1]["fragments"]] + [{"gap": {}}]
    asked = {"sections": [{"name": "findings", "items": items}]}
    mine = web.call("POST", f"/reports/{report['id']}/infill", body=asked, match='"3"').get_json()["id"]
    first, second = web.get(f"/jobs/{mine}"), web.get(f"/jobs/{other.id}")
    # Somebody sits before the screen: an infill comes before a routine draft.
    assert [fits(one, "JobDetail")["queue_position"] for one in (first, second)] == [1, 2]
    assert web.call("DELETE", f"/jobs/{mine}", match=first.headers["ETag"]).status_code == 200
    again = web.get(f"/jobs/{other.id}", If_None_Match=second.headers["ETag"])
    assert fits(again, "JobDetail")["queue_position"] == 1
    assert web.call("DELETE", f"/jobs/{other.id}", match=second.headers["ETag"]).status_code == 200
    ended = web.get(f"/jobs/{other.id}")
    assert fits(ended, "JobDetail")["queue_position"] is None
    assert web.get(f"/jobs/{other.id}", If_None_Match=ended.headers["ETag"]).status_code == 304


def test_gaps_are_part_of_a_version_and_not_of_the_text(web: Web) -> None:
    """They come back with the section, an edit without them removes them, and a signature leaves them out."""
    report = web.drafted()
    path, findings = f"/reports/{report['id']}", report["sections"][1]
    edit = {"name": "findings", "fragments": [{"id": one["id"]} for one in findings["fragments"]]}
    gaps = [{"at": 1, "hint": "pleura"}, {"at": 3, "hint": ""}]
    web.call("PUT", f"{path}/fragments", body={"sections": [{**edit, "gaps": gaps}]}, match='"3"')
    stored = fits(web.get(path), "Report")["sections"][1]
    assert (stored["gaps"], stored["fragments"]) == (gaps, findings["fragments"])
    web.call("PUT", f"{path}/fragments", body={"sections": [edit]}, match='"4"')
    assert web.report(report["id"])["sections"][1]["gaps"] == []
    web.call("PUT", f"{path}/fragments", body={"sections": [{**edit, "gaps": gaps}]}, match='"5"')
    signed = fits(web.call("POST", f"{path}/sign", body={}, match='"6"'), "Report")
    assert signed["sections"][1] == findings


def test_the_images_of_an_earlier_study_are_read_by_its_key(web: Web) -> None:
    """Only of examinations of this report's patient, by a key that names no number, and as an event of the trail."""
    first = web.drafted("1")
    web.call("POST", f"/reports/{first['id']}/sign", body={}, match='"3"')
    report = web.site.order("2", patient="1", wake=False)
    other = web.site.order("3", wake=False)
    (prior,) = fits(web.get(f"/reports/{report.id}/priors"), "PriorList")["priors"]
    assert (prior["report_id"], prior["accession_number"]) == (first["id"], "A1")
    assert re.fullmatch("[0-9a-f]{32}", prior["key"])
    place = f"priors/{prior['key']}"
    (image,) = fits(web.get(f"/reports/{report.id}/{place}/images"), "ImageList")["images"]
    assert (image["view"], image["modality"]) == (0, "DX")
    png = web.get(f"/reports/{report.id}/{place}/image?max_side=16")
    assert (png.status_code, png.data[:4]) == (200, b"\x89PNG")
    assert (
        web.get(f"/reports/{report.id}/{place}/image?max_side=16", If_None_Match=png.headers["ETag"]).status_code == 304
    )
    assert web.get(f"/reports/{report.id}/{place}/image?view=1").status_code == 404
    assert fits(web.get(f"/reports/{other.id}/{place}/image"), "Problem")["code"] == "unknown-prior"
    trail = web.get(f"/reports/{report.id}/audit").get_json()["events"]
    assert [event["tag"] for event in trail].count("reader:prior:read") == 3


def test_the_canvases_of_a_run_are_read_again(web: Web) -> None:
    """As they were shown; of a job that has not succeeded there are none, and reading them is in the trail."""
    report = web.site.order("1", wake=False)
    (job,) = web.site.jobs(report)
    assert fits(web.get(f"/jobs/{job.id}/canvases"), "CanvasList") == {"canvases": []}
    shown = [StepProgress(job.id, step, 2, f"Text {step}\U0001fac1", ((0, step),)) for step in (1, 2)]
    web.site.ward.draft(replace(DRAFT, canvases=tuple(shown)))
    found = fits(web.get(f"/jobs/{job.id}/canvases"), "CanvasList")["canvases"]
    assert [(one["step"], one["text"], one["accepted"]) for one in found] == [
        (step, f"Text {step}\U0001fac1", [[0, step]]) for step in (1, 2)
    ]
    assert web.get("/jobs/none/canvases").status_code == 404
    trail = web.get(f"/reports/{report.id}/audit").get_json()["events"]
    assert [event["tag"] for event in trail].count("reader:job:read") == 2
