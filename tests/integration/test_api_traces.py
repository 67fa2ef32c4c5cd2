from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from inlay_api.app import create_app
from inlay_core.application.ports import Destination
from inlay_core.application.tracing import Tracer
from inlay_testkit.tracing import Recorder
from inlay_testkit.web import Web

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
ORDER = {
    "resourceType": "ServiceRequest",
    "status": "active",
    "intent": "order",
    "identifier": [
        {"type": {"coding": [{"code": "PLAC"}]}, "system": "urn:ris", "value": "PLANTED-1"},
        {"type": {"coding": [{"code": "ACSN"}]}, "system": "urn:ris", "value": "PLANTED-2"},
    ],
    "subject": {"identifier": {"system": "urn:his", "value": "PLANTED-3"}, "display": "Planted, Patricia"},
    "code": {"coding": [{"system": "http://loinc.org", "code": "36643-5"}]},
}


@pytest.fixture
def recorder() -> Recorder:
    """Keeps spans."""
    return Recorder()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """An installation."""
    site = Web(tmp_path)
    yield site
    site.site.services.close()


@pytest.fixture
def client(web: Web, recorder: Recorder) -> FlaskClient:
    """A client of an application that traces."""
    services = replace(web.site.services, tracer=Tracer(recorder))
    return create_app(web.site.settings, services).test_client()


def test_an_order_by_fhir_goes_on_with_the_trace_of_its_client(
    web: Web, client: FlaskClient, recorder: Recorder
) -> None:
    """The header's trace, the request, the store and the job are one trace; nothing of the order is told."""
    headers = {"Authorization": f"Bearer {web.token('ris')}", "traceparent": PARENT}
    answer = client.post(
        "/fhir/ServiceRequest", data=json.dumps(ORDER), headers=headers, content_type="application/fhir+json"
    )
    assert answer.status_code == 201, answer.text
    stored, request = recorder.spans
    assert (request.name, request.kind, request.parent) == ("POST /fhir/<path:path>", "server", PARENT)
    assert (stored.name, stored.parent) == ("order store", request.traceparent)
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/fhir/<path:path>",
        "http.response.status_code": 201,
    }
    with web.site.services.reader() as uow:
        (item,) = uow.outbox.claim(Destination.CELERY, web.site.services.clock(), web.site.services.clock(), 5)
        job = uow.jobs.get(item.key)
    assert job is not None
    assert job.traceparent == item.traceparent == stored.traceparent
    said = " ".join(f"{span.name} {span.attributes}" for span in recorder.spans)
    assert "planted" not in said.casefold()
    assert "patricia" not in said.casefold()


def test_a_request_without_a_good_header_begins_a_trace(web: Web, client: FlaskClient, recorder: Recorder) -> None:
    """What is no traceparent is ignored, as W3C asks."""
    bearer = {"Authorization": f"Bearer {web.token('radiologist')}"}
    for header in ({}, {"traceparent": "Patricia"}, {"traceparent": f"00-{'0' * 32}-{'b' * 16}-01"}):
        assert client.get("/api/v1/reports", headers=bearer | header).status_code == 200
    assert [span.parent for span in recorder.spans] == [None] * 3


def test_probes_and_metrics_are_not_traced(client: FlaskClient, recorder: Recorder) -> None:
    """They are asked every few seconds."""
    for path in ("/livez", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200
    assert recorder.spans == []


def test_a_path_of_a_clients_own_is_told_by_no_name(client: FlaskClient, recorder: Recorder) -> None:
    """A path that is no route, and a method that nobody knows, may hold anything."""
    client.get("/Patricia/PLANTED-3")
    client.open("/", method="PATRICIA")
    assert [span.name for span in recorder.spans] == ["GET unknown", "other unknown"]
    assert [span.attributes["http.response.status_code"] for span in recorder.spans] == [404, 405]


def test_a_request_leaves_no_trace_to_the_next_one_of_its_thread(
    web: Web, client: FlaskClient, recorder: Recorder
) -> None:
    """What is stored after a request is in none."""
    client.get("/api/v1/reports", headers={"traceparent": PARENT})
    report = web.site.order("7", wake=False)
    assert web.site.job(report).traceparent is None
    assert recorder.spans[0].failure is None


def test_a_database_that_is_away_fails_the_span(web: Web, recorder: Recorder) -> None:
    """A status from 500 on is a failure by its number."""
    from inlay_core.domain.errors import Unavailable

    def away() -> None:
        raise Unavailable("database-away", "x")

    services = replace(web.site.services, tracer=Tracer(recorder))
    app = create_app(web.site.settings, services)
    app.before_request(away)
    bearer = {"Authorization": f"Bearer {web.token('radiologist')}"}
    assert app.test_client().get("/api/v1/reports", headers=bearer).status_code == 503
    assert [span.failure for span in recorder.spans] == ["503"]
