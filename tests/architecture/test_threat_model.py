from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explain" / "threat-model.md"
ROWS = [
    [cell.strip() for cell in line.strip("|\n ").split("|")]
    for line in PAGE.read_text(encoding="utf-8").partition("## The table")[2].partition("\n## ")[0].splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| boundary"))
]


def _tests_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2][:40])
def test_each_mitigation_has_its_test(row: list[str]) -> None:
    """Each row names a boundary, a letter of STRIDE, a threat, a mitigation, and a test that is there."""
    boundary, letter, threat, mitigation, named = row
    assert boundary
    assert threat
    assert mitigation
    assert letter in set("STRIDE")
    matched = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", named)
    assert matched is not None, named
    assert matched[2] in _tests_of(ROOT / matched[1]), named


def test_every_letter_of_stride_is_thought_of() -> None:
    """No kind of threat was left out."""
    assert {row[1] for row in ROWS} == set("STRIDE")
    assert len(ROWS) > 40
