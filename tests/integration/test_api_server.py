import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inlay_core.application import drafting
from inlay_testkit.core import DRAFT, WORKER
from inlay_testkit.peers import free_port
from inlay_testkit.server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server with room for two progress streams."""
    running = Server(tmp_path, max_streams=2)
    yield running
    if running.process.poll() is None:
        running.close()


def events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, str, Any]]:
    """(name, id, data) of the events as they arrive."""
    fields: dict[str, str] = {}
    for line in answer:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
            fields = {}


def test_canvases_arrive_while_the_model_works(server: Server) -> None:
    """Through real gunicorn each step is seen before the next one is made; then the result; coming back is 204."""
    job = server.claimed()
    path = f"/api/v1/jobs/{job.id}/events"
    stream = server.open(path)
    assert (stream.status, stream.getheader("Content-Type")) == (200, "text/event-stream")
    told = events(stream)
    assert next(told)[0] == "state"
    last = ""
    for step in (1, 2, 3):
        server.site.services.progress.publish(job.id, step, 4, f"canvas {step}", ((0, 6),))
        name, last, body = next(told)
        assert (name, body["step"], body["text"], body["accepted"]) == ("step", step, f"canvas {step}", [[0, 6]])
        time.sleep(0.15)  # As far apart as the throttle of the embedded progress row lets canvases be.
    resumed = events(server.open(path, **{"Last-Event-ID": last}))
    assert next(resumed)[0] == "state"
    drafting.apply_result(*server.site.ward.trio, WORKER, job.id, fence=job.fence, generated=DRAFT)
    for stream_of_one in (told, resumed):
        rest = list(stream_of_one)
        assert [name for name, _, _ in rest] == ["state", "result"]
        assert (rest[-1][1], rest[-1][2]["state"], rest[-1][2]["result_version"]) == ("end", "succeeded", 3)
    assert server.open(path, **{"Last-Event-ID": "end"}).status == 204


def test_streams_are_bounded_and_given_back(server: Server) -> None:
    """A third stream is told to poll while two are open; ordinary requests go on; a stream that ended makes room."""
    job = server.claimed()
    path = f"/api/v1/jobs/{job.id}/events"
    held = [server.open(path) for _ in range(2)]
    refused = server.open(path)
    assert (refused.status, json.loads(refused.read())["code"]) == (503, "too-many-streams")
    assert server.open("/api/v1/reports").status == 200
    drafting.apply_result(*server.site.ward.trio, WORKER, job.id, fence=job.fence, generated=DRAFT)
    assert all(b"event: result" in stream.read() for stream in held)
    deadline = time.monotonic() + 60
    while (again := server.open(path)).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert b"event: result" in again.read()


def test_writers_on_many_threads_agree(server: Server) -> None:
    """Sixteen signatures of one version at once through the real server: one signs, the others are 412 or 409."""
    job = server.claimed()
    applied = drafting.apply_result(*server.site.ward.trio, WORKER, job.id, fence=job.fence, generated=DRAFT)
    assert applied.report is not None
    statuses: list[int] = []

    def sign() -> None:
        connection = server.connection()
        headers = {"Authorization": f"Bearer {server.token}", "If-Match": '"3"'}
        connection.request("POST", f"/api/v1/reports/{job.report_id}/sign", headers=headers)
        with connection.getresponse() as answer:
            statuses.append(answer.status)

    threads = [threading.Thread(target=sign) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [412] * 15


def test_logs_have_routes_and_no_queries(server: Server) -> None:
    """Each request is one JSON line with the pattern of its path; nothing that was asked for is in it."""
    server.open("/api/v1/reports?accession_number=MRN1&status=drafted").read()
    server.open("/reports/Testperson").read()
    logged = server.close().decode()
    lines = [json.loads(line) for line in logged.splitlines()]
    told = [(line["route"], line["status"]) for line in lines if line["event"] == "http.request"]
    assert ("/api/v1/reports", 400) in told
    assert ("/reports/<report_id>", 404) in told
    assert "MRN1" not in logged
    assert "Testperson" not in logged


def test_figures_are_on_a_port_of_their_own(tmp_path: Path) -> None:
    """With INLAY_METRICS_PORT the page's port has none: what is before it can lead to no figures."""
    port = free_port()
    server = Server(tmp_path, metrics_port=port)
    try:
        assert server.open("/metrics").status == 404
        assert server.open("/readyz").status == 200
        apart = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        apart.request("GET", "/metrics")
        figures = apart.getresponse().read().decode()
        assert 'inlay_http_requests_total{method="GET",route="/metrics",status="404"} 1.0' in figures
        apart.request("GET", "/readyz")
        assert apart.getresponse().read() == b"ok\n"
        apart.close()
    finally:
        server.close()
