"""The exchange of tests/peers with fhirpy: a task as JSON on standard input, what it saw as JSON on standard output."""

import json
import sys
from typing import Any

from fhirpy import SyncFHIRClient
from fhirpy.base.exceptions import AuthorizationError, MultipleResourcesFound, OperationOutcome, ResourceNotFound

task = json.load(sys.stdin)


def client(role: str, **headers: str) -> SyncFHIRClient:
    """A client with that role's token."""
    return SyncFHIRClient(task["url"], authorization=f"Bearer {task['tokens'][role]}", extra_headers=headers)


def issue(error: Exception) -> str:
    """The first issue of the OperationOutcome in an error."""
    resource = error.resource if isinstance(error, OperationOutcome) else json.loads(str(error))
    assert resource["resourceType"] == "OperationOutcome"
    code: str = resource["issue"][0]["code"]
    return code


ehr = client("ehr")
report, other = task["report"], task["other"]
seen: dict[str, Any] = {"version": ehr.execute("metadata", "get")["fhirVersion"]}
found = ehr.resources("DiagnosticReport").search(category="LP29684-5").limit(2)
seen["total"] = found.count()
seen["paged"] = sorted(resource.id for resource in found)
one = ehr.reference("DiagnosticReport", report).to_resource()
seen["read"] = [one.id, one.status]
one.refresh()  # With If-None-Match: the answer is 304, and the copy stays.
seen["again"] = one.id
seen["vread"] = ehr.execute(f"DiagnosticReport/{report}/_history/1", "get")["status"]
history = ehr.execute(f"DiagnosticReport/{report}/_history", "get")
seen["history"] = [entry["resource"]["meta"]["versionId"] for entry in history["entry"]]
# fhirpy's own conditional create puts the condition into the URL, which is not FHIR's; the header is.
ris = client("ris", **{"If-None-Exist": f"identifier={task['condition']}"})
order = {"resource_type": "ServiceRequest", **task["order"]}
created, same = (ris.resource(**order).create() for _ in range(2))
seen["created"] = created.id == same.id
reader = client("radiologist", **{"If-Match": 'W/"3"'})
job = reader.reference("DiagnosticReport", other).execute("$infill", data=task["infill"])
seen["infill"] = [job["resourceType"], job["status"]]
signed = reader.reference("DiagnosticReport", report).execute("$sign", data={"resourceType": "Parameters"})
seen["signed"] = [signed["status"], signed["meta"]["versionId"]]
errors: dict[str, str] = {}
seen["errors"] = errors
try:
    reader.reference("DiagnosticReport", report).execute("$sign", data={"resourceType": "Parameters"})
except MultipleResourcesFound as error:  # fhirpy's name for every 412.
    errors["stale"] = issue(error)
try:
    ehr.reference("DiagnosticReport", "nothing").to_resource()
except ResourceNotFound as error:
    errors["unknown"] = issue(error)
try:
    ehr.resources("DiagnosticReport").search(date="last-week").fetch()
except OperationOutcome as error:
    errors["unreadable"] = issue(error)
try:
    SyncFHIRClient(task["url"]).resources("DiagnosticReport").fetch()
except AuthorizationError as error:
    errors["stranger"] = issue(error)
print(json.dumps(seen))
