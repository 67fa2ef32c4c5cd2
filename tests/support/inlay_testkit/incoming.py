"""The FHIR resources of `tests/data/fhir`, and a ward that they are sent to."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from inlay_core.domain.identity import Actor, Role
from inlay_fhir.http import FhirRequest, FhirResponse
from inlay_fhir.router import FhirRouter
from inlay_fhir.site import FhirSite
from inlay_testkit.core import Ward
from inlay_testkit.fhir import BASE, QueryStore
from inlay_testkit.memory import Memory

FOLDER: Final = Path(__file__).parents[2] / "data" / "fhir"
# May do everything, so that no body is refused for who sent it.
ANYBODY: Final = Actor("anybody", "Anybody", frozenset(Role))
_PATHS: Final = {
    "service-request": "/ServiceRequest",
    "imaging-study": "/ImagingStudy",
    "infill": "/DiagnosticReport/{report}/$infill",
    "subscription": "/Subscription",
    "batch": "/",
}
KINDS: Final = tuple(_PATHS)


def resource(kind: str) -> bytes:
    """The whole one of that kind."""
    return (FOLDER / f"{kind}.json").read_bytes()


def sent(kind: str, body: bytes) -> FhirResponse:
    """The answer to a body that is sent to where that kind is taken in, with one draft in the ward."""
    ward = Ward(Memory()())
    report = ward.drafted()
    router = FhirRouter(QueryStore(ward), FhirSite(origins=("https://ehr.example",)))
    headers = {"Content-Type": "application/fhir+json", "If-Match": f'W/"{report.version}"'}
    path = _PATHS[kind].format(report=report.id)
    return router.handle(FhirRequest("POST", path, (), headers, body, ANYBODY, BASE))
