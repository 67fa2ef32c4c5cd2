"""A report version as a transaction for another FHIR server: the report and its Provenance, both or neither.

https://hl7.org/fhir/R4/http.html#transaction. What both servers know is named by identifier: nothing here has our ids.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from inlay_core.application.ports import ReportRow
from inlay_core.domain.job import Job
from inlay_fhir.elements import Json, filled
from inlay_fhir.mapping.diagnostic_report import diagnostic_report
from inlay_fhir.mapping.naming import UID_SYSTEM, assigner_system, identifier
from inlay_fhir.mapping.provenance import provenance
from inlay_fhir.site import FhirSite

REPORT_SYSTEM: Final = "urn:x-inlay:report"
VERSION_SYSTEM: Final = "urn:x-inlay:version"


@dataclass(frozen=True, slots=True)
class Remote:
    """The report as the other server has it: its id there, its ETag, and which of our versions it is (0: unknown)."""

    id: str
    etag: str
    version: int


def search_of(report_id: str) -> str:
    """The search that finds the report there, and the condition under which it is created."""
    return f"identifier={quote(REPORT_SYSTEM, safe='')}%7C{quote(report_id, safe='')}"


def remote_of(resource: Json, etag: str | None = None) -> Remote:
    """What a search there found. Raises KeyError for what is no stored resource."""
    meta = resource.get("meta", {})
    stated = (tag.get("code", "") for tag in meta.get("tag", []) if tag.get("system") == VERSION_SYSTEM)
    version = next((int(code) for code in stated if code.isascii() and code.isdecimal()), 0)
    return Remote(str(resource["id"]), etag or f'W/"{meta["versionId"]}"', version)


def transaction(site: FhirSite, row: ReportRow, jobs: Sequence[Job], remote: Remote | None) -> Json:
    """The Bundle: an update of what is there if nobody has changed it meanwhile, else a create unless it is there."""
    # The same at each attempt, so that what is sent again is the same.
    report_url, provenance_url = (_urn(row, kind) for kind in ("report", "provenance"))
    if remote is None:
        request = {"method": "POST", "url": "DiagnosticReport", "ifNoneExist": search_of(row.report.id)}
    else:
        request = {"method": "PUT", "url": f"DiagnosticReport/{remote.id}", "ifMatch": remote.etag}
    resource = _report(site, row, jobs)
    if remote is not None:
        resource = {"resourceType": "DiagnosticReport", "id": remote.id, **resource}
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"fullUrl": report_url, "resource": resource, "request": request},
            {
                "fullUrl": provenance_url,
                "resource": _provenance(row, jobs, report_url),
                "request": {"method": "POST", "url": "Provenance"},
            },
        ],
    }


def _urn(row: ReportRow, kind: str) -> str:
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'inlay:{row.report.id}:{row.report.version}:{kind}')}"


def _report(site: FhirSite, row: ReportRow, jobs: Sequence[Job]) -> Json:
    ours, order = diagnostic_report(site, row, jobs), row.order
    patient = order.patient
    system = assigner_system(site, patient.assigner)
    wanted = "|".join(quote(part, safe="") for part in (system, patient.identifier) if part)
    numbers = (
        identifier(site, "PLAC", order.placer_number, order.assigner),
        identifier(site, "ACSN", order.accession_number, order.accession_assigner),
    )
    based_on = [{"type": "ServiceRequest", "identifier": number} for number in numbers if number]
    uid = order.study_instance_uid
    study = {"type": "ImagingStudy", "identifier": {"system": UID_SYSTEM, "value": f"urn:oid:{uid}"}}
    tag = {"system": VERSION_SYSTEM, "code": str(row.report.version)}
    return filled(
        **{name: value for name, value in ours.items() if name not in ("id", "meta", "basedOn", "imagingStudy")}
        | {
            "meta": filled(security=ours["meta"].get("security"), tag=[tag]),
            "identifier": [{"system": REPORT_SYSTEM, "value": row.report.id}, *ours.get("identifier", [])],
            # A conditional reference: the transaction fails as a whole where that server does not know the patient.
            "subject": {"reference": f"Patient?identifier={wanted}"},
            "basedOn": based_on[:1],
            "imagingStudy": [study] if "imagingStudy" in ours else None,
        }
    )


def _provenance(row: ReportRow, jobs: Sequence[Job], report_url: str) -> Json:
    """The Provenance with the report of this Bundle as its target; models and inputs by their digests."""
    ours = provenance(row.report, jobs)
    entities = [entity for entity in ours.get("entity", []) if entity["role"] != "revision"]
    agents = [{**agent, "who": _logical(agent["who"])} for agent in ours["agent"]]
    targets = [{**target, "reference": report_url} for target in ours["target"]]
    kept = {name: value for name, value in ours.items() if name not in ("id", "meta")}
    return filled(**kept | {"target": targets, "agent": agents, "entity": entities})


def _logical(who: Json) -> Json:
    return {name: value for name, value in who.items() if name != "reference"}
