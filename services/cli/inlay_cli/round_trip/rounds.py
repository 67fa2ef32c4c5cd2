"""The rounds: an order with its image, watched until its draft is with the RIS; then infills between locks."""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from inlay_cli.demonstration.flow import fragments
from inlay_cli.demonstration.phantom import FINDINGS, SEED, phantom_file
from inlay_cli.demonstration.ris import ANSWER_SECONDS, Results, order_message
from inlay_cli.demonstration.site import Site, place
from inlay_cli.demonstration.web import Caller
from inlay_cli.round_trip.stages import Seen, Stages, draft_stages, infill_stages
from inlay_hl7.client import MllpClient

POLL_SECONDS = 0.1
TELL_SECONDS = 15.0
# A file of the watched folder counts once it has been left alone for half a second (inlay_dicom.folder).
SETTLE_SECONDS = 1.0
LOCKED = ("The heart is mildly enlarged. ", "No pneumothorax.")
# Two or three sentences. Both bounds alike: the length is given, and none is searched for.
GIVEN_TOKENS = 40
GAPS: Mapping[str, Mapping[str, int]] = {
    "infill, length given": {"min_tokens": GIVEN_TOKENS, "max_tokens": GIVEN_TOKENS},
    "infill, length searched for": {},
}
DRAFT = "order to draft"
# Of a run record: what a run did, and what did it.
RUN = ("kind", "steps_taken", "forward_passes", "gap_lengths", "seconds")
WRITER = ("model", "model_digest", "device", "dtype", "precision", "canvas_length", "threads", "versions")


class RoundFailed(Exception):
    """A job that did not succeed, or an answer that was not the expected one."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What an order names."""

    accession_number: str
    study: str


@dataclass
class Rounds:
    """What the rounds have shown so far: stages by part, facts of run records in the same order, locks, failures."""

    site: Site
    results: Results
    radiologist: Caller
    # Seconds for anything that is waited for.
    patience: float
    stages: dict[str, list[Stages]] = field(default_factory=dict)
    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    writer: dict[str, Any] = field(default_factory=dict)
    locks_asked: int = 0
    locks_kept: int = 0
    failed: list[str] = field(default_factory=list)
    examinations: dict[int, Examination] = field(default_factory=dict)

    def prepare(self, numbers: Sequence[int]) -> None:
        """Place the images of these rounds and let them settle: an order is measured whose images are there."""
        for number in numbers:
            examination = Examination(f"RT{uuid.uuid4().hex[:10].upper()}", f"2.25.{uuid.uuid4().int}")
            self.examinations[number] = examination
            # Another picture in each round: the worker remembers the encoding of one that it has seen.
            image = phantom_file(examination.study, examination.accession_number, FINDINGS, seed=SEED + number)
            place(image, self.site.images, f"{examination.accession_number}.dcm")
        time.sleep(SETTLE_SECONDS)

    def play(self, number: int) -> None:
        """One round; what fails is kept and told, and the next round goes on."""
        try:
            report_id = self._draft(self.examinations[number])
            etag = self._lock(report_id)
            for part, gap in GAPS.items():
                etag = self._infill(report_id, part, gap, etag)
        except Exception as problem:  # noqa: BLE001 - one failed round must not cost the figures of the others.
            self.failed.append(f"round {number}: {type(problem).__name__}: {problem}")

    def _draft(self, examination: Examination) -> str:
        accession_number = examination.accession_number
        payload = order_message(uuid.uuid4().hex[:20], accession_number, examination.study)
        with MllpClient(*self.site.mllp, timeout=ANSWER_SECONDS) as client:
            sent = time.time()
            answer = client.send(payload)
            acknowledged = time.time()
        if not answer.positive:
            raise RoundFailed(f"the order was answered with {answer.code}")
        search = {"accession_number": accession_number}
        (report,) = self.radiologist.post("/api/v1/reports/search", search).body["reports"]
        seen = self._watch(DRAFT, self._newest_job(report["id"]))
        received = self.results.wait("R", self.patience, accession_number)
        self._keep(DRAFT, draft_stages(sent, acknowledged, seen, received.arrived))
        return str(report["id"])

    def _newest_job(self, report_id: str) -> str:
        return str(self.radiologist.get(f"/api/v1/reports/{report_id}").body["jobs"][-1]["id"])

    def _lock(self, report_id: str) -> str:
        """Two locked sentences with something to change between them; the version that this makes."""
        path = f"/api/v1/reports/{report_id}"
        texts = ((LOCKED[0], True), ("To be written. ", False), (LOCKED[1], True))
        edits = [{"text": text, "locked": locked} for text, locked in texts]
        body = {"sections": [{"name": "findings", "fragments": edits}]}
        self.radiologist.put(f"{path}/fragments", body, self.radiologist.get(path).etag)
        return str(self.radiologist.get(path).etag)

    def _infill(self, report_id: str, part: str, gap: Mapping[str, int], etag: str) -> str:
        path = f"/api/v1/reports/{report_id}"
        before = _locked(self.radiologist.get(path).body)
        first, last = before
        items = [{"lock": first}, {"gap": dict(gap)}, {"lock": last}]
        sent = time.time()
        accepted = self.radiologist.post(f"{path}/infill", {"sections": [{"name": "findings", "items": items}]}, etag)
        answered = time.time()
        seen = self._watch(part, accepted.body["id"])
        after = self.radiologist.get(path)
        kept = _locked(after.body)
        self.locks_asked += len(before)
        self.locks_kept += sum(kept.get(name) == text for name, text in before.items())
        self._keep(part, infill_stages(sent, answered, seen))
        return str(after.etag)

    def _watch(self, part: str, job_id: str) -> Seen:
        """Listen until the stream ends, then read what the service says of the job."""
        first: tuple[float, float] | None = None
        canvases = 0
        ended = None
        for name, data in self.radiologist.events(f"/api/v1/jobs/{job_id}/events", self.patience):
            now = time.time()
            if name == "step":
                canvases += 1
                # A canvas' sequence is when it left the worker, in milliseconds (inlay_core.progress).
                first = first or (now, data["sequence"] / 1000)
            elif name == "result":
                ended = now
        job = self.radiologist.get(f"/api/v1/jobs/{job_id}").body
        if job["state"] != "succeeded" or ended is None:
            raise RoundFailed(f"the job is {job['state']}: {job['reason']}")
        record = job["run_record"]
        self.runs.setdefault(part, []).append({**{name: record[name] for name in RUN}, "canvases_seen": canvases})
        self.writer = {name: record[name] for name in WRITER}
        return Seen(
            claimed=self._claimed(job_id),
            started=_moment(job["started_at"]),
            stored=_moment(job["finished_at"]),
            published=first[1] if first else None,
            first_canvas=first[0] if first else None,
            last_event=ended,
            engine=record["seconds"],
        )

    def _claimed(self, job_id: str) -> float | None:
        """When a worker took the job for the last time, as its log says: the database keeps only when it began."""
        lines = [line for line in logged(self.site.log, "job.claimed") if line.get("job_id") == job_id]
        return _moment(lines[-1]["timestamp"]) if lines else None

    def _keep(self, part: str, stages: Stages) -> None:
        self.stages.setdefault(part, []).append(stages)


def await_worker(site: Site, administrator: Caller, patience: float, tell: Callable[[str], None]) -> float:
    """Seconds until a worker has loaded its model; RoundFailed where one ends or none comes."""
    began = told = time.monotonic()
    while not administrator.get("/api/v1/administration").body["workers"]:
        if "inlay: work ended" in site.log.read_text(encoding="utf-8", errors="replace"):
            raise RoundFailed("the worker ended before it was ready; its log says why")
        now = time.monotonic()
        if now - began > patience:
            raise RoundFailed(f"no worker was ready within {patience:g} s")
        if now - told > TELL_SECONDS:
            tell(f"the worker loads its model, {now - began:.0f} s")
            told = now
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


def logged(log: Path, event: str = "") -> list[dict[str, Any]]:
    """The JSON lines of the processes' log, those of one event where it is named."""
    lines = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("{") and event in line:
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue  # Two processes wrote into one line.
    return [line for line in lines if event in {"", line.get("event")}]


def _locked(report: Mapping[str, Any]) -> dict[str, str]:
    return {fragment["id"]: fragment["text"] for fragment in fragments(report) if fragment["locked"]}


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
