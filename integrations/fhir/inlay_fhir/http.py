"""A FHIR request and its answer as plain values: whoever mounts the router turns its framework's into these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from inlay_fhir.mapping.core import Actor
from inlay_fhir.scopes import Scopes

ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
"""https://hl7.org/fhir/R4/datatypes.html#id; anything else names nothing that we have."""


HEADERS: Final = (
    "Accept",
    "Content-Type",
    "If-Match",
    "If-None-Exist",
    "If-None-Match",
    "Prefer",
    "X-Request-Id",
)
"""The headers of requests that mean something here."""


@dataclass(frozen=True, slots=True)
class FhirRequest:
    """One request to the FHIR endpoint, its sender authenticated.

    `path` is below the mount (`/DiagnosticReport/1`). `query` holds decoded pairs in the order of the URL, repeats
    included. Names of `headers` are looked up without regard to case. `base_url` is the endpoint as the client names
    it (`https://host/fhir`, no slash at the end); links and full URLs begin with it. `scopes` are those of a system's
    token; None where roles alone decide.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes
    actor: Actor
    base_url: str
    scopes: Scopes | None = None

    def header(self, name: str) -> str | None:
        """The value of a header, whatever its capitals."""
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == wanted), None)

    @property
    def request_id(self) -> str | None:
        """The client's X-Request-Id, when it looks like an id rather than like somebody's name with blanks."""
        stated = self.header("X-Request-Id") or ""
        return stated if ID.fullmatch(stated) else None


@dataclass(frozen=True, slots=True)
class FhirResponse:
    """The answer. `body` is what is sent, byte for byte; it is empty for HEAD, 304 and nothing else."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
