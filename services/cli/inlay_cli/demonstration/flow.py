"""The ten steps of the demonstration. Each one does something to the running system and returns what it has to tell.

A step that does not see what it must raises StepFailed; the flow ends there, with that step as the last one told.
"""

import hashlib
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from inlay_cli.demonstration.ris import Ris
from inlay_cli.demonstration.show import Show
from inlay_cli.demonstration.web import Caller

POLL_SECONDS = 0.1

# FHIR security label of what a machine wrote (http://terminology.hl7.org/CodeSystem/v3-ObservationValue).
MACHINE_MADE = "AIAST"

# The sections that the model writes; the indication is the order's.
GENERATED = ("findings", "impression")

Details = dict[str, Any]
T = TypeVar("T")


class StepFailed(Exception):
    """What a step expected and did not see."""


@dataclass(frozen=True)
class People:
    """Those who call Inlay over HTTP, each with a token of their role."""

    ehr: Caller
    radiologist: Caller


@dataclass
class Story:
    """Who takes part, and what the steps hand on to each other."""

    ris: Ris
    people: People
    place_images: Callable[[], Sequence[str]]
    verify_trail: Callable[[], Details]
    show: Show
    # Seconds for anything that is waited for.
    patience: float
    report: dict[str, Any] = field(default_factory=dict)
    etag: str = ""
    locked: dict[str, str] = field(default_factory=dict)

    def path(self, rest: str = "") -> str:
        """A path of the report in the workstation API."""
        return f"/api/v1/reports/{self.report['id']}{rest}"

    def reload(self) -> None:
        """Read the report as the radiologist sees it now."""
        answer = self.people.radiologist.get(self.path())
        self.report, self.etag = answer.body, answer.etag or ""


def order(story: Story) -> Details:
    """The RIS sends; the acknowledgement is awaited in the next step."""
    control_id = story.ris.send_order()
    return {"message": "ORM^O01", "control_id": control_id, "accession_number": story.ris.accession_number}


def acknowledgement(story: Story) -> Details:
    """A positive answer means that the order is on disk."""
    code, control_id = story.ris.await_acknowledgement()
    expect(code in {"AA", "CA"}, f"the order was answered with {code}")
    return {"code": code, "answers": control_id}


def images(story: Story) -> Details:
    """See the job wait, without holding a worker; put the study into the watched folder, and see it go on."""
    found = story.people.radiologist.post("/api/v1/reports/search", {"accession_number": story.ris.accession_number})
    reports = found.body["reports"]
    expect(len(reports) == 1, f"one report was expected for the order, there are {len(reports)}")
    story.report = reports[0]
    job_id = newest_job(story)["id"]
    before = state_after(story, job_id, {"queued", "running"})
    expect(before == "waiting-images", f"without images the job is {before}")
    files = story.place_images()
    after = state_after(story, job_id, {"waiting-images"})
    return {"files": list(files), "job_before": before, "job_after": after}


def draft(story: Story) -> Details:
    """Watch the model write until the report is drafted."""
    job, canvases = watch(story, newest_job(story)["id"])
    story.reload()
    expect(story.report["status"] == "drafted", f"the report is {story.report['status']}, not drafted")
    return {**told_of(job), "canvases": canvases, "version": story.report["version"], "text": texts(story.report)}


def fhir(story: Story) -> Details:
    """What the hospital's record system sees at once: a partial report, labelled as machine-made."""
    search = f"/fhir/DiagnosticReport?based-on:identifier={story.ris.accession_number}"
    entries = story.people.ehr.get(search).body.get("entry", [])
    found = [entry["resource"]["id"] for entry in entries if entry["resource"]["resourceType"] == "DiagnosticReport"]
    expect(len(found) == 1, f"one DiagnosticReport was expected, there are {len(found)}")
    answer = story.people.ehr.get(f"/fhir/DiagnosticReport/{found[0]}")
    labels = [label["code"] for label in answer.body["meta"].get("security", [])]
    expect(MACHINE_MADE in labels, f"the draft does not carry the label {MACHINE_MADE}")
    status = answer.body["status"]
    return {"resource": f"DiagnosticReport/{found[0]}", "status": status, "etag": answer.etag, "security": labels}


def lock(story: Story) -> Details:
    """Keep the first sentence of the findings and every second one after it; leave the impression open."""
    sections = [with_locks(section) for section in story.report["sections"]]
    story.people.radiologist.put(story.path("/fragments"), {"sections": sections}, story.etag)
    story.reload()
    story.locked = {fragment["id"]: fragment["text"] for fragment in fragments(story.report) if fragment["locked"]}
    expect(bool(story.locked), "no fragment is locked")
    return {"version": story.report["version"], "locked": list(story.locked.values())}


def infill(story: Story) -> Details:
    """Ask for everything that is not locked, watch, and compare the locked text byte for byte."""
    sections = [gaps_between_locks(section) for section in story.report["sections"] if section["name"] in GENERATED]
    accepted = story.people.radiologist.post(story.path("/infill"), {"sections": sections}, story.etag)
    job, canvases = watch(story, accepted.body["id"])
    story.reload()
    kept = [fragment["text"] for fragment in fragments(story.report) if fragment["locked"]]
    expect(kept == list(story.locked.values()), "locked text did not come back byte for byte")
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in kept]
    told = {**told_of(job), "canvases": canvases, "version": story.report["version"]}
    return {**told, "locks_kept": len(kept), "lock_digests": digests, "text": texts(story.report)}


def sign(story: Story) -> Details:
    """The radiologist signs the version that they saw."""
    story.people.radiologist.post(story.path("/sign"), {}, story.etag)
    story.reload()
    expect(story.report["status"] == "signed", f"the report is {story.report['status']}, not signed")
    return {"status": story.report["status"], "version": story.report["version"]}


def oru(story: Story) -> Details:
    """The RIS has got the draft, and gets the final result with the signed text."""
    final = story.ris.await_result("F", story.patience)
    statuses = story.ris.result_statuses()
    expect("R" in statuses, "no result with the status of a draft came before the final one")
    return {"message": "ORU^R01", "statuses": statuses, "text": list(final.lines)}


def audit(story: Story) -> Details:
    """Walk the chain of the whole trail, once the last events are chained."""
    told = until(
        story, story.verify_trail, lambda told: not (told["holds"] and told["unsealed"]), "events stay unchained"
    )
    expect(told["holds"], "the audit chain is broken")
    return told


STEPS: Sequence[tuple[str, Callable[[Story], Details]]] = (
    ("order", order),
    ("ack", acknowledgement),
    ("images", images),
    ("draft", draft),
    ("fhir", fhir),
    ("lock", lock),
    ("infill", infill),
    ("sign", sign),
    ("oru", oru),
    ("audit", audit),
)


def play(story: Story) -> bool:
    """Take every step in order; False when one failed, which is then the last one told."""
    for name, step in STEPS:
        story.show.begin(name)
        began = time.monotonic()
        try:
            details = step(story)
        except Exception as error:  # noqa: BLE001  # Whatever went wrong, the step that failed is to be told.
            reason = str(error) if isinstance(error, StepFailed) else f"{type(error).__name__}: {error}"
            story.show.end(name, time.monotonic() - began, {"reason": reason}, ok=False)
            return False
        story.show.end(name, time.monotonic() - began, details, ok=True)
    return True


def expect(condition: bool, otherwise: str) -> None:  # noqa: FBT001  # Reads like an assertion.
    """Raise StepFailed unless the condition holds."""
    if not condition:
        raise StepFailed(otherwise)


def until(story: Story, look: Callable[[], T], good: Callable[[T], bool], otherwise: str) -> T:
    """Look again and again until it is good; StepFailed when patience ends."""
    deadline = time.monotonic() + story.patience
    while not good(seen := look()):
        expect(time.monotonic() < deadline, f"{otherwise} within {story.patience:g} s")
        time.sleep(POLL_SECONDS)
    return seen


def newest_job(story: Story) -> dict[str, Any]:
    """The report's newest job, as the radiologist sees it."""
    jobs: list[dict[str, Any]] = story.people.radiologist.get(story.path()).body["jobs"]
    expect(bool(jobs), "the report has no job")
    return jobs[-1]


def state_after(story: Story, job_id: str, states: Container[str]) -> str:
    """The job's state as soon as it is none of these."""
    state = "unknown"
    for name, data in story.people.radiologist.events(f"/api/v1/jobs/{job_id}/events", story.patience):
        state = data["state"] if name in {"state", "result"} else state
        if state != "unknown" and state not in states:
            return state
    raise StepFailed(f"the job stayed {state}")


def watch(story: Story, job_id: str) -> tuple[dict[str, Any], int]:
    """Show each canvas of a job until it has succeeded; returns the job and how many canvases came."""
    canvases = 0
    for name, data in story.people.radiologist.events(f"/api/v1/jobs/{job_id}/events", story.patience):
        if name == "step":
            canvases += 1
            story.show.canvas(data["step"], data["steps"], data["text"])
    job: dict[str, Any] = story.people.radiologist.get(f"/api/v1/jobs/{job_id}").body
    expect(job["state"] == "succeeded", f"the job is {job['state']}: {job.get('reason')}")
    return job, canvases


def told_of(job: Mapping[str, Any]) -> Details:
    """What the run record says about the model and its work."""
    record = job.get("run_record") or {}
    return {"job": job["id"], "steps": record.get("steps_taken"), "seed": record.get("seed")}


def fragments(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All fragments of a report in order."""
    for section in report["sections"]:
        yield from section["fragments"]


def texts(report: Mapping[str, Any]) -> dict[str, str]:
    """Section name -> text, for sections that have any."""
    whole = {s["name"]: "".join(fragment["text"] for fragment in s["fragments"]) for s in report["sections"]}
    return {name: text for name, text in whole.items() if text}


def with_locks(section: Mapping[str, Any]) -> Details:
    """A section as the radiologist sends it back."""
    locks = section["name"] == "findings"
    return {
        "name": section["name"],
        "fragments": [
            {"id": fragment["id"], "text": fragment["text"], "locked": locks and index % 2 == 0}
            for index, fragment in enumerate(section["fragments"])
        ],
    }


def gaps_between_locks(section: Mapping[str, Any]) -> Details:
    """Locked fragments by their id, and one gap for each run of what is not locked."""
    items: list[dict[str, Any]] = []
    for fragment in section["fragments"]:
        if fragment["locked"]:
            items.append({"lock": fragment["id"]})
        elif not items or "gap" not in items[-1]:
            items.append({"gap": {}})
    return {"name": section["name"], "items": items}
