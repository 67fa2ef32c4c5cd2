from __future__ import annotations

from pathlib import Path

from inlay_hl7.ack import MESSAGES, VERSIONS
from inlay_hl7.mapping.orders import ACTIONS, STATUSES
from inlay_hl7.mapping.places import DEFAULTS, LOCATIONS
from inlay_hl7.mapping.reference import page


def test_the_conformance_page_is_the_current_one() -> None:
    """What the stored page says is what the code does: `python docs/generate.py` writes it anew."""
    stored = Path(__file__).parents[3] / "docs" / "reference" / "hl7-conformance.md"
    assert stored.read_text(encoding="utf-8") == page()


def test_the_page_names_everything_that_is_taken() -> None:
    """Every message, version, order control, status and key with its default locations stands on it."""
    text = page()
    assert all(f"{kind}^{event}" in text for kind, event in MESSAGES)
    assert all(version in text for version in VERSIONS)
    assert all(f"| {code} |" in text for code in (*ACTIONS, *STATUSES))
    for name in LOCATIONS:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert all(str(at) in row for kind in ("ORM", "OMI", "OMG") for at in getattr(DEFAULTS[kind], name))
