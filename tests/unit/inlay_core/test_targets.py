from __future__ import annotations

from pathlib import Path

import pytest

from inlay_core.application.ports import ResultFilter, Told
from inlay_core.domain.errors import Invalid
from inlay_core.settings import Settings
from inlay_core.targets import ResultTarget, read_targets, result_targets

TEXT = """
[target.ris]
address = "ris.example:2576"
statuses = ["signed", "corrected"]
sites = ["HOSP"]
modalities = ["DX", "CR"]
receiving_application = "RIS"
timeout_seconds = 5
pdf = true

[target.archive]
address = "[::1]:2577"
version = "2.3.1"
"""


def test_targets_are_read_with_their_filters() -> None:
    """Each table is a target with its own destination in the outbox; what is left out does not restrict."""
    ris, archive = read_targets(TEXT)
    assert ris == ResultTarget(
        ResultFilter("oru:ris", frozenset({Told.SIGNED, Told.CORRECTED}), frozenset({"HOSP"}), frozenset({"DX", "CR"})),
        "ris.example",
        2576,
        5.0,
        receiving_application="RIS",
        pdf=True,
    )
    assert (archive.destination, archive.host, archive.port, archive.version) == ("oru:archive", "::1", 2577, "2.3.1")
    assert archive.filter == ResultFilter("oru:archive")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[target.ris", "no TOML"),
        ("[targets.ris]", r"targets: unknown table; write \[target.NAME\]"),
        ("[target.ris]", "target.ris.address: missing"),
        ("[target.RIS]\naddress = 'h:1'", "target.RIS: a name has at most 27"),
        ("[target.a]\naddress = 'h'", "target.a.address: no address; write host:port"),
        ("[target.a]\naddress = 'h:1'\nstatus = ['signed']", "target.a.status: unknown; did you mean statuses"),
        ("[target.a]\naddress = 'h:1'\nstatuses = ['singed']", "did you mean signed"),
        ("[target.a]\naddress = 'h:1'\nsites = 'HOSP'", "target.a.sites: expected a list"),
        ("[target.a]\naddress = 'h:1'\npdf = 'yes'", "target.a.pdf: expected true or false"),
        ("[target.a]\naddress = 'h:1'\ntimeout_seconds = 0", "target.a.timeout_seconds: expected seconds"),
        ("[target.a]\naddress = 'h:1'\nversion = '3'", "target.a.version: no version"),
        ("[target.a]\naddress = 'h:1'\n[target.a.tls]", "target.a.tls.ca: missing"),
        ("[target.a]\naddress = 'h:1'\n[target.a.tls]\nca = '/nowhere'", "target.a.tls.ca: no such file"),
        ("[target.a]\naddress = 'h:1'\n[target.a.tls]\nca = '/x'\nkey = '/x'", "certificate and key belong together"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(text: str, says: str, tmp_path: Path) -> None:
    """A file with a mistake stops the process, and says file, key, problem and what to do."""
    with pytest.raises(ValueError, match=says):
        read_targets(text)
    path = tmp_path / "targets.toml"
    path.write_text(text)
    with pytest.raises(Invalid) as refused:
        result_targets(Settings(hl7_targets=str(path)))
    assert refused.value.place == "INLAY_HL7_TARGETS"
    assert str(path) in refused.value.message


def test_the_one_target_of_the_settings_comes_first(tmp_path: Path) -> None:
    """INLAY_ORU_TARGET alone is enough for one target without filters, and the file adds further ones."""
    path = tmp_path / "targets.toml"
    path.write_text(TEXT)
    targets = result_targets(Settings(oru_target="h:1", hl7_targets=str(path), oru_timeout_seconds=3.0))
    assert [target.destination for target in targets] == ["oru", "oru:ris", "oru:archive"]
    assert [target.timeout_seconds for target in targets] == [3.0, 5.0, 3.0]
    assert result_targets(Settings()) == ()


def test_a_missing_file_is_named() -> None:
    """A path that leads nowhere is no empty configuration."""
    with pytest.raises(Invalid, match="cannot be read"):
        result_targets(Settings(hl7_targets="/nowhere.toml"))
