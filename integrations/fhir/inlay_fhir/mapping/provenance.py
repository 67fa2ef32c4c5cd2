"""Who and what made a version of a report, as a Provenance. Its id is the report's id, a dot and the version.

https://hl7.org/fhir/R4/provenance.html; reason, role and entities as in "AI Transparency on FHIR" (AI Provenance).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from inlay_core.domain.errors import NotFound
from inlay_core.domain.fragment import Origin
from inlay_core.domain.job import Job
from inlay_core.domain.lifecycle import Event
from inlay_core.domain.report import Report, Signature
from inlay_fhir.elements import (
    AI_ASSERTED,
    ARTIFICIAL_INTELLIGENCE,
    Json,
    attachment,
    coding,
    concept,
    filled,
    instant,
)
from inlay_fhir.mapping.device import device_reference
from inlay_fhir.mapping.labels import element_targets
from inlay_fhir.mapping.naming import author, hashed, person

_PARTICIPANT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_OPERATION: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_VERIFICATION: Final[Json] = {
    "system": "urn:iso-astm:E1762-95:2013",
    "code": "1.2.840.10065.1.12.1.5",
    "display": "Verification Signature",
}
_SIGNING: Final = frozenset({Event.SIGN, Event.AMEND, Event.CORRECT, Event.APPEND})
# What the author of a version did, where it was not writing: verifiers get an agent of their own.
_PARTS: Final[Mapping[Event | None, str]] = MappingProxyType(
    {None: "enterer", Event.START: "assembler", Event.DRAFT: "assembler", Event.INFILL: "assembler"}
)
# A run record is shown without what a site put into the prompt beyond the section names.
_PRIVATE: Final = frozenset({"context"})


def provenance_id(report: Report) -> str:
    """The id of the Provenance of a version."""
    return f"{report.id}.{report.version}"


def parse_provenance_id(identity: str) -> tuple[str, int]:
    """(report id, version) of a Provenance id. Raises NotFound for what is none."""
    report_id, _, version = identity.rpartition(".")
    # Nine digits: no report has a billion versions, and databases hold such numbers.
    if not report_id or not version.isascii() or not version.isdecimal() or len(version) > 9 or version[0] == "0":
        raise NotFound("unknown-provenance", "No such Provenance.", "Provenance.id")
    return report_id, int(version)


def provenance(report: Report, jobs: Iterable[Job]) -> Json:
    """How a version of a report came about. `jobs` are those of the report."""
    runs = _runs(report, jobs)
    signature = report.signature if report.event in _SIGNING else None
    target = f"DiagnosticReport/{report.id}/_history/{report.version}"
    return filled(
        resourceType="Provenance",
        id=provenance_id(report),
        meta=filled(versionId="1", lastUpdated=instant(report.updated_at)),
        contained=[_run_document(number, job) for number, job in enumerate(runs, 1)],
        target=[{"reference": target}, *element_targets(report, target)],
        occurredDateTime=instant(report.updated_at),
        recorded=instant(report.updated_at),
        reason=[concept(AI_ASSERTED)] if runs or report.has_model_text else None,
        activity=concept(coding(_OPERATION, "CREATE" if report.version == 1 else "UPDATE")),
        agent=[*_authors(report), *_models(report, runs)],
        entity=[*_earlier(report), *(entity for n, job in enumerate(runs, 1) for entity in _inputs(n, job))],
        signature=[_signature(signature)] if signature else None,
    )


def _runs(report: Report, jobs: Iterable[Job]) -> list[Job]:
    """The jobs whose words stand in this version, and the one whose result made it, as far as they left records."""
    makers = {f.job_id for section in report.sections for f in section.fragments if f.origin is Origin.MODEL}
    return [job for job in jobs if job.run_record is not None and job.id in makers | {report.job_id}]


def _authors(report: Report) -> list[Json]:
    who = author(report.author)
    agents: list[Json] = []
    if report.event is not Event.SIGN:
        part = _PARTS.get(report.event, "author")
        agents.append({"type": concept(coding(_PARTICIPANT, part)), "who": who})
    if report.event in _SIGNING:
        agents.append({"type": concept(coding(_PARTICIPANT, "verifier")), "who": who})
    return agents


def _models(report: Report, runs: list[Job]) -> list[Json]:
    """The models, each once, as authors in the role artificial intelligence."""
    devices: list[Json] = [device_reference(job.run_record or {}) for job in runs]
    if not devices and report.has_model_text:
        devices = [device_reference({})]
    once = {json.dumps(device, sort_keys=True): device for device in devices}
    return [
        {
            "type": concept(coding(_PARTICIPANT, "author")),
            "role": [concept(ARTIFICIAL_INTELLIGENCE)],
            "who": device,
        }
        for device in once.values()
    ]


def _earlier(report: Report) -> list[Json]:
    if report.version == 1:
        return []
    before = f"DiagnosticReport/{report.id}/_history/{report.version - 1}"
    return [{"role": "revision", "what": {"reference": before}}]


def _inputs(number: int, job: Job) -> list[Json]:
    """What went into a run: the images and the prompt by digest, and the record of the run itself."""
    run: Mapping[str, Any] = job.run_record or {}
    digests = [(digest, "Input image") for digest in run.get("image_digests") or ()]
    digests += [(run["prompt_digest"], "Prompt")] if run.get("prompt_digest") else []
    digests += [(run["model_digest"], "Model")] if run.get("model_digest") else []
    inputs = [{"role": "derivation", "what": hashed(digest, display)} for digest, display in digests]
    return [*inputs, {"role": "derivation", "what": {"reference": f"#run-{number}", "display": "Run record"}}]


def _run_document(number: int, job: Job) -> Json:
    record = {key: value for key, value in (job.run_record or {}).items() if key not in _PRIVATE}
    data = json.dumps(record, sort_keys=True).encode("utf-8")
    return {
        "resourceType": "DocumentReference",
        "id": f"run-{number}",
        "status": "current",
        "type": concept(text="Run record"),
        "description": f"Run record of the job {job.id}",
        "content": [{"attachment": attachment(data, "application/json", title="Run record")}],
    }


def _signature(signature: Signature) -> Json:
    """The attestation. Inlay signs by authentication and hash chain, so there is no cryptographic `data`."""
    return {
        "type": [_VERIFICATION],
        "when": instant(signature.signed_at),
        "who": person(signature.signer_id, signature.signer_name),
    }
