import json
import re
from typing import Any

import httpx2
import pytest

from inlay_core.application import signing
from inlay_core.application.ports import Delivery, Site
from inlay_core.application.tracing import Tracer, under
from inlay_core.domain.report import Report
from inlay_core.settings import Settings
from inlay_fhir.client import Credentials, FhirServer
from inlay_fhir.site import FhirSite
from inlay_gateway.delivery import Books
from inlay_gateway.writeback import Target, deliver_report, target_of
from inlay_testkit.core import RADIOLOGIST, Ward
from inlay_testkit.ehr import BASE, KEY, TOKEN_URL, Ehr
from inlay_testkit.fhir import check
from inlay_testkit.memory import Memory
from inlay_testkit.tracing import Recorder

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


class Desk:
    """A ward whose reports are written to an EHR."""

    def __init__(self, ehr: Ehr | None = None) -> None:
        self.ehr = ehr or Ehr()
        self.memory = Memory()
        self.recorder = Recorder()
        site = Site(destinations=("fhir",), max_deliveries=5)
        self.ward = Ward(self.memory(), site=site)
        self.books = Books(self.memory, self.ward.clock, self.ward.new_id, site, tracer=Tracer(self.recorder))
        client = httpx2.Client(transport=httpx2.MockTransport(self.ehr.handle))
        credentials = Credentials(TOKEN_URL, "inlay", KEY, "system/*.cruds", now=self.seconds)
        self.target = Target(FhirServer(BASE, client, credentials), FhirSite())

    def seconds(self) -> float:
        """The ward's clock."""
        return self.ward.clock.now.timestamp()

    def deliver(self, rounds: int = 10) -> list[str]:
        """What becomes of everything that is due."""
        codes: list[str] = []
        for _ in range(rounds):
            codes += [one.code for one in deliver_report(self.books, self.target)]
        return codes

    def sign(self, report: Report) -> Report:
        """Sign a drafted report."""
        return signing.sign(
            *self.ward.trio, RADIOLOGIST, report.id, expected_version=report.version, site=self.ward.site
        )


def test_each_version_is_written_with_its_provenance() -> None:
    """The draft creates, the signature updates what is there; one report, and a Provenance per version."""
    desk = Desk()
    report = desk.ward.drafted()
    assert desk.deliver() == ["delivered"]
    desk.sign(report)
    assert desk.deliver() == ["delivered"]
    (there,) = desk.ehr.reports.values()
    assert (there["status"], there["meta"]["versionId"]) == ("final", "2")
    assert [bundle["entry"][0]["request"]["method"] for bundle in desk.ehr.bundles] == ["POST", "PUT"]
    assert desk.ehr.bundles[1]["entry"][0]["request"]["ifMatch"] == 'W/"1"'
    assert len(desk.ehr.provenances) == 2


def test_nothing_in_it_is_known_here_only() -> None:
    """Patient, order, study and model are named by identifier; no reference leads to our ids; the Bundle is valid."""
    desk = Desk()
    desk.ward.drafted()
    desk.deliver()
    (bundle,) = desk.ehr.bundles
    report, provenance = (entry["resource"] for entry in bundle["entry"])
    assert report["subject"] == {"reference": "Patient?identifier=urn%3Ax-inlay%3Aassigner%3AHOSP|MRN1"}
    assert report["basedOn"][0]["identifier"]["value"] == "P1"
    assert report["imagingStudy"][0]["identifier"]["value"] == "urn:oid:1.2.826.0.1.1"
    assert {target["reference"] for target in provenance["target"]} == {bundle["entry"][0]["fullUrl"]}
    references = set(re.findall(r'"reference": "([^"]*)"', json.dumps(bundle)))
    assert all(re.match(r"urn:uuid:|#run-|Patient\?", reference) for reference in references)
    for resource in (report | {"subject": {"display": "x"}}, provenance):
        check(json.loads(json.dumps(resource).replace("urn:uuid:", "DiagnosticReport/")))


def test_a_lost_answer_makes_no_duplicate() -> None:
    """The version arrived although nobody said so: it is found there, and not sent again."""
    desk = Desk()
    report = desk.ward.drafted()
    desk.ehr.lose_answer = True
    assert desk.deliver() == ["timeout"]
    desk.ward.clock.advance(10)
    assert desk.deliver() == ["delivered"]
    desk.sign(report)
    desk.ehr.lose_answer = True
    assert desk.deliver() == ["timeout"]
    desk.ward.clock.advance(10)
    assert desk.deliver() == ["delivered"]
    assert (len(desk.ehr.reports), len(desk.ehr.provenances), len(desk.ehr.bundles)) == (1, 2, 2)


def test_what_somebody_changed_meanwhile_is_looked_at_again() -> None:
    """A version conflict there (412) is tried again on what stands there then."""
    desk = Desk()
    report = desk.ward.drafted()
    desk.deliver()
    desk.sign(report)
    (there,) = desk.ehr.reports.values()
    found = desk.target.server.search

    def stale(kind: str, query: str) -> list[dict[str, Any]]:
        resources = [json.loads(json.dumps(resource)) for resource in found(kind, query)]
        there["meta"]["versionId"] = "7"
        return resources

    desk.target = Target(Stale(desk.target.server, stale), desk.target.site)  # type: ignore[arg-type]
    assert desk.deliver(1) == ["http-412"]
    desk.ward.clock.advance(10)
    assert desk.deliver(1) == ["delivered"]
    assert next(iter(desk.ehr.reports.values()))["meta"]["versionId"] == "8"


def test_a_create_that_finds_a_report_updates_it() -> None:
    """Another relay was faster between lookup and create: the answer says so, and the next attempt updates."""
    desk = Desk()
    report = desk.ward.drafted()
    desk.deliver()
    desk.sign(report)
    found = desk.target.server.search
    blind = Stale(desk.target.server, lambda kind, query: [])
    target, desk.target = desk.target, Target(blind, desk.target.site)  # type: ignore[arg-type]
    assert desk.deliver(1) == ["target-changed"]
    assert found("DiagnosticReport", "identifier=x|y") == []
    desk.target = target
    desk.ward.clock.advance(10)
    assert desk.deliver(1) == ["delivered"]
    assert [there["status"] for there in desk.ehr.reports.values()] == ["final"]


class Stale:
    """A server whose answers are old by the time that they are used."""

    def __init__(self, server: FhirServer, search: Any) -> None:
        self.search = search
        self.transact = server.transact


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
def test_failures_are_tried_again_in_order_and_parked_in_the_end(status: int) -> None:
    """Nothing newer of the same report overtakes what failed; after the last attempt the item waits for a person."""
    desk = Desk()
    report = desk.ward.drafted()
    desk.sign(report)
    desk.ehr.fail_before = status
    for _ in range(5):
        assert desk.deliver(1) == [f"http-{status}"]
        desk.ward.clock.advance(4000)
    desk.ehr.fail_before = None
    assert desk.deliver() == ["delivered"]
    with desk.memory() as uow:
        counts = uow.outbox.count()
    assert (counts["fhir", Delivery.DEAD], counts["fhir", Delivery.DELIVERED]) == (1, 1)
    assert "relay:report:undeliverable" in desk.ward.tags(report.id)


def test_a_patient_that_is_unknown_there_holds_the_report_back() -> None:
    """No report is written for nobody; once the patient is known there it arrives."""
    desk = Desk(Ehr(patient_known=False))
    desk.ward.drafted()
    assert desk.deliver() == ["http-412"]
    assert desk.ehr.reports == {}
    desk.ehr.patient_known = True
    desk.ward.clock.advance(10)
    assert desk.deliver() == ["delivered"]


def test_an_older_version_never_replaces_a_newer_one() -> None:
    """What is there already, or is newer, is left as it is."""
    desk = Desk()
    desk.ward.drafted()
    desk.deliver()
    desk.ward.drafted("2")
    (there,) = desk.ehr.reports.values()
    with desk.memory() as uow:
        wanted = [v[-1].id for v in uow.reports._world.reports.values()][-1]
    there["identifier"][0]["value"] = wanted
    there["meta"]["tag"][0]["code"] = "9"
    assert desk.deliver() == ["delivered"]
    assert len(desk.ehr.bundles) == 1


def test_a_token_is_kept_while_it_is_good() -> None:
    """One assertion per token, none used twice; a token that is refused or nearly over is replaced."""
    desk = Desk()
    report = desk.ward.drafted()
    desk.deliver()
    assert len(desk.ehr.tokens) == 1
    desk.ward.clock.advance(280)
    desk.sign(report)
    desk.ehr.refuse_token = True
    assert desk.deliver(1) == ["http-401"]
    desk.ward.clock.advance(10)
    assert desk.deliver(1) == ["delivered"]
    assert len({token["jti"] for token in desk.ehr.tokens}) == len(desk.ehr.tokens) == 3
    claims = desk.ehr.tokens[0]
    assert (claims["iss"], claims["sub"], claims["aud"], claims["scope"]) == (
        "inlay",
        "inlay",
        TOKEN_URL,
        "system/*.cruds",
    )
    assert claims["exp"] - claims["iat"] <= 300


def test_each_attempt_is_told_in_the_trace_of_its_report() -> None:
    """Its search and its transaction are calls below it; what fails is told by its code, and nothing of the patient."""
    desk = Desk()
    with under(PARENT):
        desk.ward.drafted()
    desk.ehr.fail_before = 503
    assert desk.deliver(1) == ["http-503"]
    desk.ehr.fail_before, desk.ehr.lose_answer = None, True
    desk.ward.clock.advance(10)
    assert desk.deliver(1) == ["timeout"]
    desk.ward.clock.advance(100)
    assert desk.deliver(1) == ["delivered"]
    sends = desk.recorder.named("outbox send")
    assert [(each.parent, each.attributes["inlay.attempts"], each.failure) for each in sends] == [
        (PARENT, 1, "http-503"),
        (PARENT, 2, "timeout"),
        (PARENT, 3, None),
    ]
    assert {each.attributes["inlay.destination"] for each in sends} == {"fhir"}
    number = {each.traceparent: each.attributes["inlay.attempts"] for each in sends}
    calls = desk.recorder.named("fhir search", "fhir transaction")
    assert [(number[each.parent], each.name, each.kind, each.failure) for each in calls] == [
        (1, "fhir search", "client", "http-503"),
        (2, "fhir search", "client", None),
        (2, "fhir transaction", "client", "timeout"),
        (3, "fhir search", "client", None),
    ]
    said = " ".join(f"{each.name} {each.failure} {each.attributes}" for each in desk.recorder.spans)
    assert "MRN1" in json.dumps(desk.ehr.bundles)
    assert not [planted for planted in ("MRN1", "HOSP", "ehr.test", "token-1") if planted in said]


def test_the_target_comes_from_the_settings(tmp_path: Any) -> None:
    """URL, client and key file make the client; a key that cannot be used is refused at the start."""
    from inlay_core.domain.errors import Invalid

    file = tmp_path / "key.json"
    file.write_text(json.dumps(KEY.as_dict(private=True)))
    settings = Settings(
        fhir_target=f"{BASE}/", fhir_token_url=TOKEN_URL, fhir_client_id="inlay", fhir_client_key=str(file)
    )
    target = target_of(settings)
    assert target.server.base_url == BASE
    assert target.server.credentials is not None
    file.write_text(json.dumps(KEY.as_dict(private=False)))
    with pytest.raises(Invalid):
        target_of(settings)
