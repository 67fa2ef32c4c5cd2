"""FHIR clients written by others against the real server: each goes through the same exchange and sees the same."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inlay_testkit.server import Server

SUPPORT = Path(__file__).parents[1] / "support"
NPM, PIP = SUPPORT / "npm-fhir", SUPPORT / "pip-peers"
SECONDS = 60
INSTALL = "is not installed; `make test-peers` installs it or says what to install"

pytestmark = pytest.mark.peers

PLACER = "urn:x-inlay:assigner:RIS"
ORDER = {
    "resourceType": "ServiceRequest",
    "status": "active",
    "intent": "order",
    "identifier": [
        {
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]},
            "system": PLACER,
            "value": "P77",
        }
    ],
    "code": {"text": "Chest X-ray"},
    "subject": {"identifier": {"system": "urn:x-inlay:assigner:HOSP", "value": "MRN1"}},
}
INFILL = {
    "resourceType": "Parameters",
    "parameter": [
        {
            "name": "section",
            "part": [
                {"name": "name", "valueCode": "findings"},
                {"name": "locked-text", "valueString": "The heart is normal."},
                {"name": "gap", "part": [{"name": "max-tokens", "valueInteger": 40}]},
            ],
        }
    ],
}


@pytest.fixture
def server(tmp_path: Path, postgres_url: str) -> Iterator[Server]:
    """A server on PostgreSQL."""
    running = Server(tmp_path, database_url=postgres_url)
    yield running
    running.close()


def command(peer: str) -> list[str]:
    """How that client's exchange is run."""
    if peer == "fhir-kit-client":
        node = shutil.which("node")
        assert node is not None, f"node {INSTALL}"
        assert (NPM / "node_modules" / peer).is_dir(), f"{peer} {INSTALL}"
        return [node, str(NPM / "client.mjs")]
    python = PIP / ".venv" / "bin" / "python"
    assert python.exists(), f"{peer} {INSTALL}"
    return [str(python), str(PIP / f"{peer}_client.py")]


@pytest.mark.parametrize("peer", ["fhirpy", "fhirclient", "fhir-kit-client"])
def test_a_client_of_others_gets_on_with_the_server(server: Server, peer: str) -> None:
    """Statement, paged search, read and 304, vread, history, conditional create, $infill, $sign, and four errors."""
    ward = server.site.ward
    reports = [ward.order(str(number)) for number in range(1, 6)]
    drafted = [ward.draft() for _ in range(2)]
    report, other = (each.id for each in drafted)
    task: dict[str, Any] = {
        "url": f"{server.url}/fhir",
        "tokens": {role: server.token_of(role) for role in ("ehr", "ris", "radiologist")},
        "report": report,
        "other": other,
        "condition": f"{PLACER}|P77",
        "order": ORDER,
        "infill": INFILL,
    }
    done = subprocess.run(
        command(peer), input=json.dumps(task), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {
        "version": "4.0.1",
        "total": 5,
        "paged": sorted(each.id for each in reports),
        "read": [report, "partial"],
        "again": report,
        "vread": "registered",
        "history": ["3", "2", "1"],
        "created": True,
        "infill": ["Task", "requested"],
        "signed": ["final", "5"],
        "errors": {"stale": "conflict", "unknown": "not-found", "unreadable": "invalid", "stranger": "login"},
    }
