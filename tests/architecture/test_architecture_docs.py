"""The documentation agrees with the code and with itself."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_page_is_current(name: str) -> None:
    """A page that comes from the code is what the code says now; `make docs` writes it."""
    assert (DOCS / "reference" / name).read_text(encoding="utf-8") == PAGES[name]()


def markdown_files() -> list[Path]:
    """The pages at the root and under docs/."""
    return [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]


@pytest.mark.parametrize("page", markdown_files(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that exists."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_decision_records_are_listed_and_numbered_once() -> None:
    """Each record is in the index, and no number is used twice."""
    records = sorted(path.name for path in (DOCS / "decisions").glob("[0-9]*.md"))
    assert len({int(name[:4]) for name in records}) == len(records)
    index = (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")
    assert [name for name in records if f"({name})" not in index] == []
