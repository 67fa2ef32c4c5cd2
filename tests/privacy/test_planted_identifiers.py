import base64
import binascii
import http.client
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from inlay_api.auth import mint
from inlay_core.application.ports import ReportSearch, Sort
from inlay_core.application.queries import search_reports
from inlay_core.domain.job import JobState
from inlay_core.domain.report import Report
from inlay_core.messaging import broker_folders
from inlay_hl7.ack import read_acknowledgement
from inlay_hl7.building import Coded, Envelope, PatientFields, Person
from inlay_hl7.orders import OrderFields, build_order
from inlay_hl7.server import MllpServer
from inlay_model import Engine
from inlay_model.prompt import Prompt, build_prompt
from inlay_testkit.core import RADIOLOGIST
from inlay_testkit.dicom import file_bytes, radiograph
from inlay_testkit.engine import FakeModel
from inlay_testkit.installation import PIXELS, Installation
from inlay_testkit.mllp import Wire, listening, serving
from inlay_testkit.peers import free_port
from inlay_testkit.web import Web
from inlay_testkit.worker import wait_until, worker_process
from inlay_worker.wiring import load_model, make_worker

# Nothing of ours contains these by chance: whatever shows one up took it from an order.
NAME, GIVEN = "Zwetschgenkuchen", "Wałpurgis"
MRN, ACCESSION, PLACER, FILLER = "QX7731905", "ZK90210447", "PLC55810", "FIL66920"
BORN, STUDY = "19231107", "2.25.773100429915"
REASON, CLINICAL = "Gürteltierbiss", "Knotenmoor"
DOCTOR, PROCEDURE, TYPED = "Oberhuberin", "Thoraxspezialplatte", "Quittenmarmelade"
OF_THE_ORDER = (NAME, GIVEN, MRN, ACCESSION, PLACER, FILLER, STUDY, REASON, CLINICAL, DOCTOR)
PLANTED = (*OF_THE_ORDER, BORN, "1923-11-07", PROCEDURE, TYPED)

PATIENT = PatientFields(MRN, "HIS", Person(NAME, GIVEN), BORN, "F")
ORDER = OrderFields(
    PLACER,
    ACCESSION,
    filler_number=FILLER,
    procedure=Coded("71046", PROCEDURE, "C4"),
    clinical_information=f"lives in {CLINICAL}",
    reason=f"{REASON}, fell off a unicycle",
    ordering_provider=Person(DOCTOR, "Ida", identifier="77"),
    study_instance_uid=STUDY,
)


def order(control_id: str = "C1", version: str = "2.3.1") -> bytes:
    """The order in which everything is planted."""
    envelope = Envelope(control_id, datetime(2026, 3, 2, 8, tzinfo=UTC), "RIS", "HOSP", version=version)
    return build_order(envelope, PATIENT, (ORDER,))


def malformed() -> list[bytes]:
    """Orders that are refused, each with planted data in or beside the place that is wrong.

    Only MSH stays clean: an acknowledgement gives back what MSH says of the conversation (MSH-10, 11, 18).
    """
    messages = []
    for version in ("2.3.1", "2.5.1"):
        good = order(f"C{version}", version)
        changes = (
            (b"|NW|", f"|{NAME}|".encode()),
            (b"ORC|NW", f"ORC|{NAME}".encode()),
            (BORN.encode(), NAME.encode()),
            (STUDY.encode(), f"{NAME} {MRN}".encode()),
            (b"UNICODE UTF-8", b"8859/99"),
            (b"UNICODE UTF-8", b"ASCII"),
            (REASON.encode(), REASON.encode("latin-1")),
            (b"ORM^O01", b"ORU^R01"),
            (b"|P|", b"|X|"),
            (b"\rORC|", f"\r{NAME} {MRN}\rORC|".encode()),
            (b"\rPID|", b"\rZPI|"),
        )
        for number, (old, new) in enumerate(changes):
            control_id = f"C{version}-{number}".encode()
            messages.append(good.replace(old, new).replace(f"C{version}".encode(), control_id, 1))
    messages.append(f"{NAME} {MRN}\r{REASON}".encode())
    messages.append(f"MSH|{NAME}".encode())
    messages.append(order("C-cut")[:-40])
    return messages


def planted_in(text: str) -> set[str]:
    """What of the planted shows up, also percent-encoded, escaped as JSON, in other letter cases and other forms."""
    forms = [text, unquote(text), re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)]
    seen = "\n".join(unicodedata.normalize("NFC", form) for form in forms).casefold()
    return {each for each in PLANTED if each.casefold() in seen}


def with_base64(text: str) -> str:
    """The text and what its longer quoted words say in Base64: Celery packs its payload so."""
    words = re.findall(r'"([A-Za-z0-9+/]{8,}={0,2})"', text)
    return "\n".join([text, *(_unpacked(word) for word in words)])


def _unpacked(word: str) -> str:
    try:
        return base64.b64decode(word, validate=True).decode("utf-8", "replace")
    except binascii.Error:
        return ""


def decoded(data: bytes) -> str:
    """Bytes as text, whichever of the two charsets they are in."""
    return f"{data.decode('utf-8', 'replace')}\n{data.decode('latin-1')}"


@dataclass
class Evidence:
    """All that came out of one day of the installation."""

    logs: dict[str, str] = field(default_factory=dict)
    broker: dict[str, str] = field(default_factory=dict)
    metrics: str = ""
    errors: list[tuple[int, str, str]] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    stored: str = ""
    shown: str = ""
    undelivered: list[bytes] = field(default_factory=list)


class Ours:
    """Listener, relay and API as processes of their own at the finest log level."""

    def __init__(self, site: Installation, oru_port: int) -> None:
        self._logs = site.settings.home
        self.http, self.mllp, self.dicom = free_port(), free_port(), free_port()
        ours = {
            "INLAY_HOME": str(site.settings.home),
            "INLAY_HTTP_PORT": str(self.http),
            "INLAY_MLLP_PORT": str(self.mllp),
            "INLAY_DICOM_PORT": str(self.dicom),
            "INLAY_ORU_TARGET": f"127.0.0.1:{oru_port}",
            "INLAY_SWEEP_SECONDS": "0.2",
            "INLAY_LOG_LEVEL": "debug",
        }
        env = {name: text for name, text in os.environ.items() if not name.startswith("INLAY_")} | ours
        self._processes: list[subprocess.Popen[bytes]] = []
        for name in ("listen", "relay", "serve"):
            with self.log(name).open("wb") as log:
                command = [sys.executable, "-m", "inlay_cli", name]
                self._processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))

    def log(self, name: str) -> Path:
        """Where a process writes what it says on stdout and stderr."""
        return self._logs / f"{name}.log"

    def await_ready(self) -> None:
        """Wait until all of them are."""
        for name in ("listen", "relay"):
            wait_until(lambda name=name: ".ready" in self.log(name).read_text())  # type: ignore[misc]
        wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        """Status, and headers and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=30)
        try:
            sent = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, path, body, {"Content-Type": "application/json"} | sent)
            answer = connection.getresponse()
            return answer.status, f"{answer.headers}\n{decoded(answer.read())}"
        finally:
            connection.close()

    def end(self) -> None:
        """End all of them with SIGTERM."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def refusing_ehr(taken: list[bytes]) -> Iterator[int]:
    """The port of an EHR that refuses every result, and quotes it while it does."""

    async def refuse(payload: bytes, _peer: str) -> bytes:
        taken.append(payload)
        control_id = payload.split(b"|")[9].decode()
        error = f"ERR||PID^1^5|207|E|||{NAME}|{MRN} {REASON}"
        return f"MSH|^~\\&|EHR|{NAME}|||2026||ACK|X|P|2.5.1\rMSA|AE|{control_id}|{NAME}\r{error}\r".encode()

    with serving(MllpServer(refuse)) as port:
        yield port


def the_report(site: Installation) -> Report:
    """The report of the one order."""
    page = search_reports(site.services.reader(), RADIOLOGIST, ReportSearch(), sort=Sort.NEWEST, limit=2)
    (row,) = page.rows
    return row.report


def place_image(site: Installation) -> None:
    """The image of the order, planted in its header and its file name; beside it a file that is none."""
    identity = {"StudyInstanceUID": STUDY, "AccessionNumber": ACCESSION, "PatientID": MRN, "PatientName": NAME}
    (site.settings.images / f"{NAME}-broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + MRN.encode() * 20)
    path = site.settings.images / f"{NAME}.dcm"
    path.write_bytes(file_bytes(radiograph(PIXELS, bits_stored=12, **identity)))
    for each in site.settings.images.iterdir():
        os.utime(each, (0, 0))


def failing_requests(report_id: str) -> Iterator[tuple[str, str, bytes | None, dict[str, str]]]:
    """Method, path, body and further headers of requests that fail, each with something planted."""
    where, name = f"/api/v1/reports/{report_id}", quote(f"{NAME} {GIVEN}")
    yield "GET", f"/{MRN}/{name}", None, {}
    yield "GET", f"/api/v1/reports/{MRN}?patient={name}", None, {}
    yield "GET", f"/api/v1/reports/{name}", None, {}
    yield "GET", f"/api/v1/reports?status={MRN}&{ACCESSION}={name}", None, {}
    yield "GET", f"/api/v1/jobs/{ACCESSION}", None, {}
    yield "GET", f"/api/v1/jobs/{MRN}/events", None, {"Last-Event-ID": MRN}
    yield "DELETE", f"/api/v1/reports/{MRN}", None, {}
    yield "GET", f"{where}/versions/{MRN}", None, {}
    yield "GET", where, None, {"Authorization": f"Bearer {NAME}.{MRN}.{ACCESSION}"}
    yield "GET", where, None, {"Host": f"{NAME}.example"}
    yield "PUT", f"{where}/fragments", b"{}", {"If-Match": f'"{MRN}"', "X-Request-Id": NAME}
    yield "PUT", f"{where}/fragments", f"{NAME} {MRN}".encode(), {"If-Match": '"1"'}
    for body in (
        {NAME: MRN},
        {"sections": NAME},
        {"sections": [{"name": NAME, "fragments": []}]},
        {"sections": [{"name": "findings", "fragments": [{"id": [MRN], "text": TYPED}]}]},
        {"sections": [{"name": "findings", "fragments": [{"id": MRN}]}]},
        {"sections": [{"name": "findings", "fragments": [{"text": f"{TYPED}\0"}]}]},
        {"sections": [{"name": "findings", "fragments": [{"text": TYPED, "locked": REASON}]}]},
    ):
        yield "PUT", f"{where}/fragments", json.dumps(body).encode(), {"If-Match": '"1"'}
    for items in ([{"lock": MRN}], [{"gap": NAME}], [{NAME: TYPED}], [{"gap": {"hint": [TYPED]}}]):
        asked = {"sections": [{"name": "findings", "items": items}]}
        yield "POST", f"{where}/infill", json.dumps(asked, ensure_ascii=False).encode(), {"If-Match": '"1"'}
    yield "POST", "/api/v1/reports/search", json.dumps({"status": [NAME]}).encode(), {}
    yield "POST", "/api/v1/reports/search", json.dumps({"patient_identifier": {MRN: NAME}}).encode(), {}
    yield "POST", "/api/v1/reports/search", NAME.encode(), {"Content-Type": f"text/{NAME}"}
    yield "GET", f"/fhir/Patient/{MRN}", None, {}
    yield "GET", f"/fhir/{NAME}/{MRN}", None, {}
    yield "GET", f"/fhir/DiagnosticReport?{NAME}={MRN}", None, {"Prefer": "handling=strict"}
    yield "GET", f"/fhir/DiagnosticReport?date={NAME}", None, {}
    yield "GET", f"/fhir/DiagnosticReport?_lastUpdated=ge{MRN}&_count={NAME}", None, {}
    yield "GET", f"/fhir/DiagnosticReport?patient.{NAME}={name}", None, {"Prefer": "handling=strict"}
    yield "POST", "/fhir/DiagnosticReport/_search", f"status={NAME}&{MRN}={name}".encode(), {}
    yield "POST", "/fhir/Patient", json.dumps({"resourceType": "Patient", "name": NAME}).encode(), {}
    yield "GET", f"/fhir/DiagnosticReport/{report_id}/_history/{MRN}", None, {}
    yield "GET", f"/fhir/Patient/{MRN}", None, {"Accept": f"application/{NAME}"}
    yield "GET", f"/fhir/Patient/{MRN}", None, {"Authorization": f"Basic {NAME}"}


def spoil(ours: Ours, token: str, report_id: str, evidence: Evidence) -> None:
    """Ask for everything that fails, and keep what is answered."""
    for method, path, body, headers in failing_requests(report_id):
        status, text = ours.ask(method, path, body, **({"Authorization": f"Bearer {token}"} | headers))
        evidence.errors.append((status, f"{method} {path}", text))


def edit_and_sign(ours: Ours, token: str, report_id: str, evidence: Evidence) -> None:
    """A clinician types planted text, meets locks and old versions, and signs."""
    path, bearer = f"/api/v1/reports/{report_id}", f"Bearer {token}"

    def write(method: str, rest: str, body: Any) -> int:
        _, text = ours.ask("GET", path, Authorization=bearer)
        tag = re.findall(r'(?im)^etag: *(?:W/)?("\d+")', text)[0]
        data = json.dumps(body).encode()
        status, text = ours.ask(method, f"{path}/{rest}", data, Authorization=bearer, If_Match=tag)
        if status >= 400:
            evidence.errors.append((status, f"{method} {rest}", text))
        return status

    locked = {"sections": [{"name": "findings", "fragments": [{"text": f"{TYPED}. ", "locked": True}]}]}
    assert write("PUT", "fragments", locked) == 200
    gap = {"sections": [{"name": "findings", "items": [{"gap": {"hint": REASON}}]}]}
    assert write("POST", "infill", gap) == 423
    _, text = ours.ask("GET", path, Authorization=bearer)
    # decoded() gives the body twice; the first is the UTF-8 one.
    sections = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]["sections"]
    (reason,) = next(section["fragments"] for section in sections if section["name"] == "indication")
    assert REASON in reason["text"]
    imported = {"sections": [{"name": "indication", "items": [{"lock": reason["id"]}, {"gap": {}}]}]}
    assert write("POST", "infill", imported) >= 400
    assert write("POST", "retract", {"reason": NAME}) >= 400
    assert write("POST", "sign", {}) == 200
    assert write("PUT", "fragments", locked) >= 400
    evidence.shown = ours.ask("GET", path, Authorization=bearer)[1]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """An order from its message to the signed report through real processes, and all that can go wrong beside it."""
    site, found = Installation(tmp_path_factory.mktemp("home")), Evidence()
    token = mint(site.settings, "dr", "Dr. Ada", ["radiologist"], 1)
    with ExitStack() as running:
        running.callback(site.services.close)
        ours = Ours(site, running.enter_context(refusing_ehr(found.undelivered)))
        running.callback(ours.end)
        ours.await_ready()
        with Wire(ours.mllp) as wire:
            found.answers = [wire.ask(payload) for payload in (order(), *malformed())]
        with Wire(ours.mllp) as wire:
            wire.send(f"{NAME} {MRN}\r\n".encode() * 2000 + b"\x0b" + f"MSH|{NAME}".encode())
        place_image(site)
        report = the_report(site)
        spoil(ours, token, report.id, found)
        # No worker yet: the relay's wake-up stays where it was put.
        wait_until(lambda: bool(site.messages()))
        for folder in broker_folders(site.settings.home):
            found.broker |= {str(path): decoded(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
        with worker_process(site.settings) as worker:
            wait_until(lambda: site.state(report) is JobState.SUCCEEDED)
            worker.end()
            found.logs["work"] = worker.log
        edit_and_sign(ours, token, report.id, found)
        wait_until(lambda: bool(found.undelivered) and "outbox.undelivered" in ours.log("relay").read_text())
        found.metrics = ours.ask("GET", "/metrics", Authorization=f"Bearer {token}")[1]
        ours.end()
        found.logs |= {name: ours.log(name).read_text() for name in ("listen", "relay", "serve")}
        home = site.settings.home
        found.stored = "".join(path.read_bytes().decode("utf-8", "replace") for path in home.glob("inlay.sqlite*"))
        yield found


def test_what_is_planted_is_stored_and_shown(evidence: Evidence) -> None:
    """The order came through: its data stand in the database, and a radiologist reads them in the report."""
    assert set(OF_THE_ORDER) | {PROCEDURE, TYPED} <= planted_in(evidence.stored)
    assert {REASON, TYPED, ACCESSION, MRN, NAME} <= planted_in(evidence.shown)


@pytest.mark.parametrize(
    ("process", "event"),
    [("listen", "message.answered"), ("relay", "outbox.undelivered"), ("serve", "http.request"), ("work", "job.ended")],
)
def test_no_log_line_holds_what_is_planted(process: str, event: str, evidence: Evidence) -> None:
    """At the finest level no process says on stdout or stderr whom it works for, also where it refuses or fails."""
    assert event in evidence.logs[process]
    assert [line for line in evidence.logs[process].splitlines() if planted_in(line)] == []


def test_no_broker_file_holds_what_is_planted(evidence: Evidence) -> None:
    """Wake-ups and queue tables, unpacked, name a job and nothing of its order."""
    unpacked = {path: with_base64(text) for path, text in evidence.broker.items()}
    assert any("job_id" in text for text in unpacked.values())
    assert {path for path, text in unpacked.items() if planted_in(f"{path}\n{text}")} == set()


def test_no_metric_holds_what_is_planted(evidence: Evidence) -> None:
    """Metrics count requests and jobs under names of ours only, also those of unknown paths."""
    assert "inlay_http_requests_total" in evidence.metrics
    assert 'status="404"' in evidence.metrics
    assert planted_in(evidence.metrics) == set()


def test_no_error_body_holds_what_is_planted(evidence: Evidence) -> None:
    """Errors of API and FHIR, headers included, quote nothing of path, query, body or report."""
    assert {400, 401, 404, 412, 415, 421, 423} <= {status for status, _, _ in evidence.errors}
    assert [(status, asked) for status, asked, _ in evidence.errors if not 400 <= status < 500] == []
    assert [(asked, planted_in(text)) for _, asked, text in evidence.errors if planted_in(text)] == []


def test_no_acknowledgement_holds_what_is_planted(evidence: Evidence) -> None:
    """Negative answers name segment and field, and quote nothing of what stood there."""
    accepted, *others = evidence.answers
    good = read_acknowledgement(accepted)
    assert good is not None
    assert good.positive
    read = [read_acknowledgement(answer) for answer in others]
    refused = [answer for answer, ack in zip(others, read, strict=True) if ack is None or not ack.positive]
    assert sum(b"ERR|" in answer for answer in refused) > 10
    assert [answer for answer in evidence.answers if planted_in(decoded(answer))] == []


def test_nothing_planted_reaches_the_model(tmp_path: Path) -> None:
    """A draft and an infill ask the model with pixels, section names and report text: nothing of the order is there."""
    web, model = Web(tmp_path), FakeModel()
    worker = make_worker(web.site.settings, model)
    with listening(web.site.services) as port, Wire(port) as wire:
        wire.ask(order())
    place_image(web.site)
    assert worker.work_off() == 1
    report = web.report(the_report(web.site).id)
    assert {REASON, NAME} <= planted_in(json.dumps(report))
    items = {"sections": [{"name": "impression", "items": [{"gap": {}}]}]}
    answer = web.call("POST", f"/reports/{report['id']}/infill", body=items, match=f'"{report["version"]}"')
    assert answer.status_code == 202, answer.text
    assert worker.work_off() == 1
    assert len(model.asked) == 2
    assert "The findings are normal." in repr(model.asked[1])
    assert planted_in(repr(model.asked)) == set()
    web.site.services.close()


def test_no_prompt_holds_what_is_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped checkpoint drafts for the order: its prompt, decoded again, is the instruction and no more."""
    site = Installation(tmp_path, demo_model_on_any_study=True, steps=1)
    prompts: list[Prompt] = []

    def kept(*given: Any, **named: Any) -> Prompt:
        prompts.append(build_prompt(*given, **named))
        return prompts[-1]

    monkeypatch.setattr("inlay_model.encoding.build_prompt", kept)
    engine = load_model(site.settings)
    assert isinstance(engine, Engine)
    with listening(site.services) as port, Wire(port) as wire:
        wire.ask(order())
    place_image(site)
    assert make_worker(site.settings, engine).work_off() == 1
    assert site.job(the_report(site)).state is JobState.SUCCEEDED
    (prompt,) = prompts
    text = str(engine.checkpoint.tokenizer.decode(list(prompt.ids)))
    assert "Write the radiology report." in text
    assert planted_in(text) == set()
    site.services.close()


def test_the_search_finds_what_is_hidden() -> None:
    """Planted data are seen in every form that the collections could hold them in."""
    packed = json.dumps({"body": base64.b64encode(f'[{{"name": "{NAME}"}}]'.encode()).decode()})
    assert planted_in(with_base64(packed)) == {NAME}
    for text in (REASON.upper(), quote(REASON), json.dumps(REASON), unicodedata.normalize("NFD", REASON)):
        assert planted_in(text) == {REASON}
    assert planted_in(decoded(REASON.encode("latin-1"))) == {REASON}
