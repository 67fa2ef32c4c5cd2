"""The exchange of tests/peers with SMART's fhirclient, whose models read answers strictly; see fhirpy_client.py."""

import json
import sys
from typing import Any

from fhirclient.client import FHIRClient
from fhirclient.models.bundle import Bundle
from fhirclient.models.capabilitystatement import CapabilityStatement
from fhirclient.models.diagnosticreport import DiagnosticReport
from fhirclient.models.operationoutcome import OperationOutcome
from fhirclient.models.parameters import Parameters
from fhirclient.models.servicerequest import ServiceRequest
from fhirclient.models.task import Task
from fhirclient.server import FHIRNotFoundException, FHIRServer, FHIRUnauthorizedException
from requests import HTTPError, Response

task = json.load(sys.stdin)


def server(role: str, **headers: str) -> FHIRServer:
    """A connection with that role's token; fhirclient itself has no way to be given one."""
    connected = FHIRClient({"app_id": "test", "api_base": task["url"]}).server
    connected.session.headers.update({"Authorization": f"Bearer {task['tokens'].get(role, '')}", **headers})
    return connected


def issue(response: Response | None) -> str:
    """The first issue of the OperationOutcome in an error."""
    assert response is not None
    code: str = OperationOutcome(response.json()).issue[0].code
    return code


ehr = server("ehr")
report, other = task["report"], task["other"]
seen: dict[str, Any] = {"version": CapabilityStatement.read_from("metadata", ehr).fhirVersion}
found = DiagnosticReport.where({"category": "LP29684-5", "_count": "2"})
seen["total"] = found.perform(ehr).total
seen["paged"] = sorted(resource.id for resource in found.perform_resources_iter(ehr))
one = DiagnosticReport.read(report, ehr)
seen["read"] = [one.id, one.status]
known = ehr.session.get(f"{task['url']}/DiagnosticReport/{report}", headers={"If-None-Match": one.meta.versionId})
seen["again"] = report if known.status_code == 304 else known.status_code
seen["vread"] = DiagnosticReport.read_from(f"DiagnosticReport/{report}/_history/1", ehr).status
history = Bundle.read_from(f"DiagnosticReport/{report}/_history", ehr)
seen["history"] = [entry.resource.meta.versionId for entry in history.entry]
ris = server("ris", **{"If-None-Exist": f"identifier={task['condition']}"})
answers = [ris.post_json("ServiceRequest", ServiceRequest(task["order"]).as_json()) for _ in range(2)]
created, same = (ServiceRequest(answer.json()) for answer in answers)
seen["created"] = [answer.status_code for answer in answers] == [201, 200] and created.id == same.id
reader = server("radiologist", **{"If-Match": 'W/"3"'})
job = Task(reader.post_json(f"DiagnosticReport/{other}/$infill", Parameters(task["infill"]).as_json()).json())
seen["infill"] = [job.resource_type, job.status]
signed = DiagnosticReport(reader.post_json(f"DiagnosticReport/{report}/$sign", Parameters().as_json()).json())
seen["signed"] = [signed.status, signed.meta.versionId]
errors: dict[str, str] = {}
seen["errors"] = errors
try:
    reader.post_json(f"DiagnosticReport/{report}/$sign", Parameters().as_json())
except HTTPError as error:
    errors["stale"] = issue(error.response)
try:
    DiagnosticReport.read("nothing", ehr)
except FHIRNotFoundException as error:
    errors["unknown"] = issue(error.response)
try:
    DiagnosticReport.where({"date": "last-week"}).perform(ehr)
except HTTPError as error:
    errors["unreadable"] = issue(error.response)
try:
    DiagnosticReport.where({}).perform(server("stranger"))
except FHIRUnauthorizedException as error:
    errors["stranger"] = issue(error.response)
print(json.dumps(seen))
