"""schemathesis asks the workstation API, from its own OpenAPI document, what nobody would ask."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from inlay_core.application.reader_studies import create_study
from inlay_testkit.core import ADMIN
from inlay_testkit.server import Server

PROGRAM = Path(__file__).parents[1] / "support" / "pip-peers" / ".venv" / "bin" / "schemathesis"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# About a thousand requests: every boundary that the schemas name, and a few random ones per call.
EXAMPLES = 6
SECONDS = 300
# What it would switch off answers 503 from then on, as it should; what it closes takes no grades.
UNASKED = ("setSwitch", "closeReaderStudy")

pytestmark = pytest.mark.peers


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server."""
    running = Server(tmp_path)
    yield running
    if running.process.poll() is None:
        running.close()


def test_no_request_is_a_fault_of_ours(server: Server, tmp_path: Path) -> None:
    """No answer is 5xx, and each has a status, a media type and a body that the document names.

    The ids are of a report, a job and a reader study that are there, and If-Match names the version, so that requests
    get as far as the use cases.
    """
    assert PROGRAM.exists(), "schemathesis is not installed; `make test-peers` installs it or says what to install"
    report = server.site.order("1", wake=False)
    server.site.ward.draft()
    drafts = {"a": {"findings": "One. Two."}, "b": {"findings": "Three."}}
    services = server.site.services
    study = create_study(
        services.uow(), services.clock, services.new_id, ADMIN, "pilot", ("a", "b"), [{"drafts": drafts}]
    )
    named = {
        "path.study_id": study.id,
        "path.case_number": "1",
        "path.report_id": report.id,
        "path.job_id": server.site.job(report).id,
        "header.If-Match": 'W/"3"',
    }
    lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in named.items()]
    (tmp_path / "schemathesis.toml").write_text("\n".join(["[parameters]", *lines]), encoding="utf-8")
    command = [str(PROGRAM), "--config-file", str(tmp_path / "schemathesis.toml"), "run"]
    command += [f"{server.url}/api/v1/openapi.json", "--checks", CHECKS, "--phases", "coverage,fuzzing"]
    command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none", "--no-color"]
    command += [word for operation in UNASKED for word in ("--exclude-operation-id", operation)]
    token = server.token_of("radiologist", "admin", "auditor")
    command += ["-H", f"Authorization: Bearer {token}", "--continue-on-failure", "--request-timeout", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    lines = [line for line in server.close().decode().splitlines() if '"http.request"' in line]
    statuses = Counter(json.loads(line)["status"] for line in lines)
    assert max(statuses) < 500, statuses
    # It got through to what is there: reads, infills of the version named, and refusals of later changes of it.
    assert min(statuses[200], statuses[202], statuses[412]) > 10, statuses
