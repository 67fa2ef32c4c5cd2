"""What a site chooses about its FHIR endpoint; built from the settings by whoever mounts the router."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, tzinfo

Pairs = tuple[tuple[str, str], ...]
MakePdf = Callable[[str, str, Pairs, Pairs], bytes | None]
"""A PDF of (title, notice, facts, sections); None when it could not show every character."""


@dataclass(frozen=True, slots=True)
class FhirSite:
    """The choices, with defaults that a site which chose nothing gets.

    `draft_status` is `partial` (INLAY_FHIR_DRAFT_STATUS: may be unverified) or `preliminary` (verified early results).
    `assigner_system` precedes the name of an assigner that is neither a URI nor an OID, to make an identifier system.
    """

    draft_status: str = "partial"
    version: str = "0"
    assigner_system: str = "urn:x-inlay:assigner:"
    # A page that nobody asked a size for, and the largest that anybody gets: a report is some 5 KB as FHIR.
    default_count: int = 20
    max_count: int = 200
    # The zone of times on printed forms.
    zone: tzinfo = UTC
    pdf: MakePdf | None = None
    # Where subscribers may be told: INLAY_SUBSCRIPTION_ORIGINS.
    origins: tuple[str, ...] = ()
