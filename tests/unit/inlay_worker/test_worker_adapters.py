from datetime import UTC, datetime
from pathlib import Path

import pytest

from inlay_core.application.ports import Claimed, ImageWanted
from inlay_core.domain.errors import Invalid
from inlay_core.domain.job import Job, JobKind
from inlay_core.domain.order import Priority
from inlay_worker.adapters import Choice, Rule, read_choice, to_load

RULES = (Rule("/a/north-ct", "NORTH", "CT"), Rule("/a/north", site="NORTH"), Rule("/a/mr", modality="MR"))


def claimed(site: str, modality: str | None) -> Claimed:
    """A job of an order from this site, of this modality."""
    job = Job("j-1", "r-1", JobKind.DRAFT, 1, Priority.ROUTINE, datetime(2026, 1, 1, tzinfo=UTC))
    return Claimed(job, ImageWanted(None, "A1", modality), site=site)


@pytest.mark.parametrize(
    ("site", "modality", "folder"),
    [
        ("NORTH", "CT", "/a/north-ct"),
        ("NORTH", "DX", "/a/north"),
        ("SOUTH", "MR", "/a/mr"),
        ("SOUTH", "CT", "/a/all"),
        ("SOUTH", None, "/a/all"),
    ],
)
def test_the_first_rule_that_fits_decides(site: str, modality: str | None, folder: str) -> None:
    """Site and modality of the order choose the adapter; where no rule fits, it is the one for all."""
    assert Choice(RULES, "/a/all").of(claimed(site, modality)) == folder
    assert Choice(RULES).of(claimed("SOUTH", "CT")) is None


def test_one_adapter_for_all_is_added_for_good() -> None:
    """Without rules nothing changes between jobs, so no second copy of the weights is kept."""
    assert to_load(Choice()) is None
    assert to_load(Choice(default="/a/all")) == "/a/all"
    assert Choice(default="/a/all").by_job is None
    assert to_load(Choice(RULES[:1], "/a/all")) == {"/a/north-ct": "/a/north-ct", "/a/all": "/a/all"}


def test_a_rule_alone_still_leaves_the_bare_checkpoint_for_others() -> None:
    """With one rule and no default, other jobs are written without an adapter."""
    wanted = Choice(RULES[2:]).by_job
    assert wanted is not None
    assert [wanted(claimed("NORTH", "MR")), wanted(claimed("NORTH", "CT"))] == ["/a/mr", None]


def test_rules_are_read_from_the_file(tmp_path: Path) -> None:
    """The documented example, and an installation without rules."""
    file = tmp_path / "adapters.toml"
    file.write_text('[[adapter]]\nfolder = "/x"\nsite = "NORTH"\nmodality = "CT"\n\n[[adapter]]\nfolder = "/y"\n')
    assert read_choice("", str(file)) == Choice((Rule("/x", "NORTH", "CT"), Rule("/y")))
    assert read_choice("/z", "") == Choice((), "/z")


@pytest.mark.parametrize(
    "written",
    [
        "[[adapter]\n",
        "",
        '[adapter]\nfolder = "/x"',
        '[[adapter]]\nsite = "NORTH"',
        '[[adapter]]\nfolder = "/x"\nfacility = "NORTH"',
        '[[adapter]]\nfolder = "/x"\nsite = ""',
        'default = "/x"\n[[adapter]]\nfolder = "/x"',
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, written: str) -> None:
    """A misspelt key must not mean that everybody gets the bare checkpoint; the setting is named."""
    file = tmp_path / "adapters.toml"
    file.write_text(written)
    with pytest.raises(Invalid) as refused:
        read_choice("", str(file))
    assert refused.value.place == "INLAY_ADAPTERS"
    with pytest.raises(Invalid):
        read_choice("", str(tmp_path / "missing.toml"))
