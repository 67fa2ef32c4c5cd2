"""An order on its way through all processes, as a collector of traces sees it."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from inlay_cli.demonstration.phantom import phantom_file
from inlay_cli.demonstration.site import Site, place, plan, running
from inlay_hl7.building import Coded, Envelope, PatientFields, Person
from inlay_hl7.header import Header
from inlay_hl7.message import Condition
from inlay_hl7.orders import OrderFields, build_order
from inlay_testkit.ehr import Ehr, serving_ehr
from inlay_testkit.mllp import Wire
from inlay_testkit.otlp import Collector, Seen, collecting
from inlay_testkit.receiver import Receiver, negative, positive, receiving
from inlay_testkit.worker import wait_until

pytestmark = pytest.mark.slow

STUDY = "1.2.826.0.1.3680043.8.498.4711471147"
CLIENT = "c0ffee" * 5 + "aa"
PLANTED = ("Petra", "PHANTOM-1", "PLACER-4711", "ACC-4711", "FILLER-4711", "unicycle", "Grey", STUDY, "19700101")
PATIENT = PatientFields("PHANTOM-1", "HIS", Person("Phantom", "Petra"), "19700101", "F")
ORDER = OrderFields(
    "PLACER-4711",
    "ACC-4711",
    filler_number="FILLER-4711",
    procedure=Coded("71046", "Chest", "C4"),
    reason="fell off a unicycle",
    ordering_provider=Person("Grey", "Ida", identifier="77"),
    study_instance_uid=STUDY,
)
CREATED = {
    "resourceType": "ServiceRequest",
    "status": "active",
    "intent": "order",
    "identifier": [
        {
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": code}]},
            "system": "urn:x-inlay:assigner:EHR",
            "value": f"{code}-4711",
        }
        for code in ("PLAC", "ACSN")
    ],
    "code": {"coding": [{"system": "http://loinc.org", "code": "36643-5"}]},
    "subject": {"reference": "#p"},
    "contained": [
        {
            "resourceType": "Patient",
            "id": "p",
            "identifier": [{"system": "urn:x-inlay:assigner:EHR", "value": "PHANTOM-1"}],
            "name": [{"family": "Phantom", "given": ["Petra"]}],
        }
    ],
}


@dataclass
class Day:
    """What happened, and what the collector saw of it."""

    collector: Collector
    ehr: Ehr
    answers: list[bytes] = field(default_factory=list)
    report_id: str = ""
    infill_id: str = ""
    created: int = 0

    def trace(self, name: str, **attributes: str) -> list[Seen]:
        """The spans of the trace whose root has that name and a child with these attributes; the earliest first."""
        roots = {span.trace for span in self.collector.named(name) if not span.parent or span.parent == CLIENT[:16]}
        wanted = {f"inlay.{key}": value for key, value in attributes.items()}
        (trace,) = (
            trace
            for trace in roots
            if any(wanted.items() <= span.attributes.items() for span in self.collector.of_trace(trace))
        )
        return self.collector.of_trace(trace)


def call(site: Site, method: str, path: str, token: str, body: Any = None, **headers: str) -> tuple[int, Any, str]:
    """Status, JSON and ETag of an answer."""
    sent = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - loopback
        site.url + path, data, sent | {name.replace("_", "-"): text for name, text in headers.items()}, method=method
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return answer.status, json.loads(answer.read() or "{}"), answer.headers.get("ETag", "")


class Grumbling:
    """Answers the first result with an error, and the others well."""

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self, header: Header) -> bytes:
        """The answer to a result."""
        self.heard += 1
        return (negative("AE", Condition.APPLICATION) if self.heard == 1 else positive)(header)


def live(site: Site, day: Day, results: Receiver) -> None:
    """An order with its draft and its results, an infill, and an order by FHIR."""
    token, ehr = site.token("radiologist", "Dr. Ada"), site.token("ris", "Order entry")
    place(phantom_file(STUDY, "ACC-4711"), site.images, "Petra.dcm")
    with Wire(site.mllp[1]) as wire:
        envelope = Envelope("C1", datetime(2026, 3, 2, 8, tzinfo=UTC), "RIS", "HOSP", version="2.3.1")
        day.answers.append(wire.ask(build_order(envelope, PATIENT, (ORDER,))))
    wait_until(lambda: len(results.payloads) >= 2, 240.0)
    _, page, _ = call(site, "GET", "/api/v1/reports", token)
    day.report_id = page["reports"][0]["id"]
    _, report, tag = call(site, "GET", f"/api/v1/reports/{day.report_id}", token)
    findings = next(section for section in report["sections"] if section["name"] == "findings")
    items = [{"lock": findings["fragments"][0]["id"]}, {"gap": {}}]
    asked = {"sections": [{"name": "findings", "items": items}]}
    _, job, _ = call(site, "POST", f"/api/v1/reports/{day.report_id}/infill", token, asked, If_Match=tag)
    day.infill_id = job["id"]
    wait_until(lambda: call(site, "GET", f"/api/v1/jobs/{day.infill_id}", token)[1]["state"] == "succeeded", 120.0)
    kind = {"Content_Type": "application/fhir+json", "traceparent": f"00-{CLIENT}-{CLIENT[:16]}-01"}
    day.created, _, _ = call(site, "POST", "/fhir/ServiceRequest", ehr, CREATED, **kind)
    wait_until(lambda: any(span.name == "job draft" for span in day.collector.of_trace(CLIENT)), 120.0)
    wait_until(lambda: day.ehr.bundles != [], 120.0)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """All processes, the demonstration model, a RIS, the hospital's FHIR server, and a collector of traces."""
    ehr = Ehr(asks_token=False)
    with receiving() as results, collecting() as collector, serving_ehr(ehr) as target:
        results.answer = Grumbling()
        site = plan(tmp_path_factory.mktemp("home"), results.port, [("127.0.0.1", 0)] * 2)
        ours = {
            "INLAY_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "INLAY_LOG_LEVEL": "debug",
            "INLAY_FHIR_TARGET": target,
        }
        site = replace(site, environment={**site.environment, **ours})
        lived = Day(collector, ehr)
        with running(site, 240.0):
            live(site, lived, results)
        yield lived


def chain(spans: list[Seen]) -> dict[str, str]:
    """Name of each span -> name of the span above it; the last of several of one name counts."""
    names = {span.id: span.name for span in spans}
    return {span.name: names.get(span.parent, "") for span in spans}


def test_an_order_by_mllp_is_one_trace_until_its_result_is_acknowledged(day: Day) -> None:
    """From the frame to the second ORU and the write-back: listener, relay and worker tell of one trace."""
    assert b"MSA|AA|C1" in day.answers[0]
    spans = day.trace("hl7 receive", job_kind="draft")
    assert {span.service for span in spans} == {"inlay-listen", "inlay-relay", "inlay-work"}
    assert chain(spans) == {
        "hl7 receive": "",
        "hl7 parse": "hl7 receive",
        "hl7 map": "hl7 receive",
        "hl7 acknowledge": "hl7 receive",
        "hl7 store": "hl7 receive",
        "outbox wait": "report store",
        "outbox send": "report store",
        "job queue": "hl7 receive",
        "job draft": "hl7 receive",
        "images fetch": "job draft",
        "model prefix": "job draft",
        "model denoising": "job draft",
        "model second-look": "job draft",
        "report store": "job draft",
        "hl7 build": "outbox send",
        "hl7 exchange": "outbox send",
        "fhir search": "outbox send",
        "fhir transaction": "outbox send",
    }
    sends = [span for span in spans if span.name == "outbox send"]
    told = [(span.attributes["inlay.destination"], span.attributes["inlay.attempts"]) for span in sends]
    assert told[0] == ("celery", 1)
    assert [each for each in told if each[0] == "oru"] == [("oru", 1), ("oru", 2)]
    exchanges = [span for span in spans if span.name == "hl7 exchange"]
    assert [span.attributes["inlay.ack"] for span in exchanges] == ["ae-207", "AA"]
    assert [span.failed for span in sends if span.attributes["inlay.destination"] == "oru"] == [True, False]
    (written,) = (span for span in sends if span.attributes["inlay.destination"] == "fhir")
    calls = [span for span in spans if span.name in {"fhir search", "fhir transaction"}]
    assert [(span.name, span.parent, span.kind, span.failed) for span in calls] == [
        ("fhir search", written.id, "client", False),
        ("fhir transaction", written.id, "client", False),
    ]
    done = [span for span in spans if span.attributes.get("inlay.state") == "succeeded"]
    denoised = next(span for span in spans if span.name == "model denoising")
    assert len(done) == 1
    assert 0 < int(denoised.attributes["inlay.steps"]) <= int(done[0].attributes["inlay.steps"])


def test_an_infill_is_the_trace_of_its_request(day: Day) -> None:
    """The request, the wake-up, the job with its stages."""
    spans = day.trace("POST /api/v1/reports/<report_id>/infill", job_id=day.infill_id)
    told = chain(spans)
    assert told["job infill"] == told["job queue"] == "POST /api/v1/reports/<report_id>/infill"
    assert {name for name, above in told.items() if above == "job infill"} >= {
        "images fetch",
        "model prefix",
        "model denoising",
        "report store",
    }
    (prefix,) = (span for span in spans if span.name == "model prefix")
    assert "inlay.known" in prefix.attributes


def test_an_order_by_fhir_is_in_the_trace_of_its_client(day: Day) -> None:
    """The client's traceparent, then the request, the store and the worker that finds no images yet."""
    assert day.created == 201
    spans = day.collector.of_trace(CLIENT)
    told = chain(spans)
    assert told["POST /fhir/<path:path>"] == ""
    assert next(span for span in spans if span.name == "POST /fhir/<path:path>").parent == CLIENT[:16]
    assert told["order store"] == "POST /fhir/<path:path>"
    assert (told["job draft"], told["images fetch"]) == ("order store", "job draft")
    job = next(span for span in spans if span.name == "job draft")
    assert job.attributes["inlay.state"] == "waiting-images"


def test_no_span_holds_anything_of_an_order(day: Day) -> None:
    """Neither what the protobuf says nor its bytes name patient, order, study or person; no exception is recorded."""
    assert "PHANTOM-1" in json.dumps(day.ehr.bundles), "what was written back names the patient"
    said = " ".join(f"{span.name} {span.attributes}" for span in day.collector.spans)
    sent = b"\n".join(day.collector.bodies).decode("utf-8", "replace")
    for planted in PLANTED:
        assert planted.casefold() not in said.casefold()
        assert planted.casefold() not in sent.casefold()
    assert all(span.events == 0 for span in day.collector.spans)
    assert re.search("inlay-listen", sent), "the bytes can be read"


def test_spans_are_whole(day: Day) -> None:
    """No span ends before it begins, and what is below a span is in its trace."""
    by_id = {span.id: span for span in day.collector.spans}
    assert len(by_id) == len(day.collector.spans)
    for span in day.collector.spans:
        assert span.began <= span.ended
        assert span.parent in {"", CLIENT[:16]} or by_id[span.parent].trace == span.trace
