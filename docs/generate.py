"""Writes the reference pages that come from the code (`make docs`); a test compares them with what is stored."""

from pathlib import Path

from inlay_api import openapi
from inlay_core.domain import lifecycle
from inlay_core.settings import reference
from inlay_fhir.reference import page as fhir_page
from inlay_hl7.mapping.reference import page as hl7_page

REFERENCE = Path(__file__).parent / "reference"


def lifecycle_page() -> str:
    """The table of transitions, as a diagram."""
    return (
        "# Life of a report\n\n"
        "Generated from `services/core/inlay_core/domain/lifecycle.py`; do not edit.\n"
        "An arrow is labelled with the events that take it. What has no arrow is refused.\n\n"
        f"```mermaid\n{lifecycle.diagram()}```\n"
    )


def api_page() -> str:
    """The table of calls."""
    return openapi.page(openapi.all_routes())


PAGES = {
    "settings.md": reference,
    "lifecycle.md": lifecycle_page,
    "fhir-capability.md": fhir_page,
    "api.md": api_page,
    "hl7-conformance.md": hl7_page,
}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
