from __future__ import annotations

import pytest

from inlay_testkit.licences import INSTALLED_ONLY, PERMISSIVE, Licensed, everything, parts

LISTED = everything()


def test_every_dependency_has_a_licence_that_fits() -> None:
    """Of all that is installed, what tests need included, nothing is GPL, proprietary or unknown."""
    assert len(LISTED) > 60
    assert [each for each in LISTED if not each.fits] == []


def test_what_is_only_installed_is_named() -> None:
    """Copyleft of files stays where it is: a new one is a decision, not an accident."""
    found = {each.name for each in LISTED if set(parts(each.licence)) & INSTALLED_ONLY and each.licence != "NVIDIA"}
    assert found <= {"certifi", "hypothesis", "pathspec", "psycopg", "psycopg-binary", "tqdm"}


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-2.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception AND (MIT OR Apache-2.0)", True),
        ("AGPL", False),
        ("unknown", False),
        ("LGPL-3.0-only", True),
    ],
)
def test_expressions_are_read(expression: str, fits: bool) -> None:
    """All parts of a conjunction must fit; of a choice, one."""
    assert Licensed("x", "1", expression).fits is fits


def test_the_lists_do_not_overlap() -> None:
    """What may be copied and what may only be installed are told apart."""
    assert not PERMISSIVE & INSTALLED_ONLY
