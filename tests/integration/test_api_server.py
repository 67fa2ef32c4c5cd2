import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from inlay_api.auth import mint
from inlay_core.application import drafting
from inlay_core.domain.job import Job
from inlay_testkit.core import DRAFT, WORKER
from inlay_testkit.installation import Installation
from inlay_testkit.peers import free_port


class Server:
    """`inlay serve` as a process over an installation, with room for two progress streams."""

    def __init__(self, home: Path) -> None:
        self.site = Installation(home)
        self._opened = ExitStack()
        self.port = free_port()
        ours = {"INLAY_HOME": str(home), "INLAY_HTTP_PORT": str(self.port), "INLAY_MAX_STREAMS": "2"}
        env = {name: text for name, text in os.environ.items() if not name.startswith("INLAY_")} | ours
        self.process = subprocess.Popen([sys.executable, "-m", "inlay_cli", "serve"], env=env, stderr=subprocess.PIPE)
        self.token = mint(self.site.settings, "dr", "Dr. Ada", ["radiologist"], 1)
        self._await_ready()

    def open(self, path: str, **headers: str) -> http.client.HTTPResponse:
        """The answer to a GET, its body not yet read."""
        connection = self.connection()
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}", **headers})
        answer = connection.getresponse()
        self._opened.callback(answer.close)
        return answer

    def connection(self) -> http.client.HTTPConnection:
        """A connection that is closed with the server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self._opened.callback(connection.close)
        return connection

    def claimed(self) -> Job:
        """A new order whose draft a worker has begun."""
        self.site.order("1", wake=False)
        claimed = drafting.claim_next(*self.site.ward.trio, WORKER)
        assert claimed is not None
        return drafting.start_generation(*self.site.ward.trio, WORKER, claimed.job.id, fence=claimed.job.fence)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if self.open("/readyz").status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server did not get ready")

    def close(self) -> bytes:
        """End it with SIGTERM; return what it logged."""
        self._opened.close()
        self.process.terminate()
        _, logged = self.process.communicate(timeout=20)
        self.site.services.close()
        return logged


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server."""
    running = Server(tmp_path)
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
    deadline = time.monotonic() + 5
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
