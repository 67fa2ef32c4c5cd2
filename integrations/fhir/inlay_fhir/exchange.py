"""What an interaction is given and what it gives back; the router turns the one from and the other into HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from inlay_fhir.elements import Json
from inlay_fhir.http import FhirRequest, FhirResponse
from inlay_fhir.mapping.core import Actor, Job, Report, Standing
from inlay_fhir.recent import Recent
from inlay_fhir.site import FhirSite
from inlay_fhir.store import Access, FhirStore


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request on its way to an interaction. `variables` are the parts of the path: id, version.

    `again` answers another request of the same sender: the entries of a batch.
    """

    request: FhirRequest
    store: FhirStore
    site: FhirSite
    again: Callable[[FhirRequest], FhirResponse]
    # Answers to reads by the ids of their reports; each is good for as long as its report stands like that.
    kept: Recent[str, tuple[Standing, Answer]]
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def actor(self) -> Actor:
        """Who asks."""
        return self.request.actor

    @property
    def identity(self) -> str:
        """The id in the path."""
        return self.variables["id"]

    def read_again(self) -> Answer | None:
        """What the last read of this report was answered, if it still stands so: then the reading is recorded."""
        kept = self.kept.get(self.identity)
        if kept is None:
            return None
        standing, answer = kept
        (access,) = answer.accesses
        if not self.store.read_again(self.actor, standing, access.of(self.request)):
            return None
        return replace(answer, accesses=())

    def jobs_of(self, report: Report) -> tuple[Job, ...]:
        """The report's jobs where they matter: for words of the model, or for a result that made this version."""
        if not (report.has_model_text or report.job_id):
            return ()
        return tuple(self.store.jobs(self.actor, report.id))


@dataclass(frozen=True, slots=True)
class Answer:
    """A resource, what the trail has to know of it, and its version for the ETag (None: from the bytes)."""

    resource: Json
    accesses: tuple[Access, ...] = ()
    version: str | None = None
    last_modified: datetime | None = None
    cacheable: bool = True
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    # Whether the version still stands for all that is shown; else the client gets it anew, whichever it has.
    settled: bool = True
    # The whole resource as it is sent, where it was made before.
    whole: bytes | None = None
    # Something was changed: the client may prefer to get nothing back, and no condition of a read applies.
    written: bool = False


Interact = Callable[[Exchange], Answer]
