"""The entry point: finding commands, help that teaches, errors without tracebacks."""

import argparse
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from inlay_cli import main as entry
from inlay_cli.parsing import address, how_many


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`inlay --help` names every command and where to start."""
    assert entry.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in entry.COMMANDS)
    assert "inlay demo" in printed


@pytest.mark.parametrize("name", sorted(entry.COMMANDS))
def test_every_command_teaches_by_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`inlay COMMAND --help` exits with 0 and shows the command in use."""
    try:
        status = entry.main([name, "--help"])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    printed = capsys.readouterr().out
    assert status == 0
    # `inlay model` hands everything to the model's own command line.
    expected = ("inlay model draft", "usage:") if name == "model" else (f"inlay {name}", "examples:")
    assert all(text in printed for text in expected)


@pytest.mark.parametrize("name", sorted(entry.COMMANDS))
def test_every_command_has_a_module(name: str) -> None:
    """The table names modules that exist and have `main`."""
    module = importlib.import_module(f"inlay_cli.commands.{entry.COMMANDS[name][0]}")
    assert callable(module.main)


def test_unknown_command_is_a_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped command gives one line on stderr and status 2."""
    assert entry.main(["surve"]) == 2
    printed = capsys.readouterr()
    assert printed.err == "inlay: there is no command 'surve'; `inlay --help` lists them\n"
    assert printed.out == ""


@pytest.mark.parametrize("missing", ["torch", "transformers.models.gemma"])
def test_an_installation_without_the_model_says_which_extra_is_missing(
    missing: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names the extra; any other missing module is a fault and keeps its traceback."""

    def without(name: str) -> Callable[[str, list[str]], int]:
        def run(_command: str, _arguments: list[str]) -> int:
            raise ModuleNotFoundError(name=name)

        return run

    monkeypatch.setattr(entry, "_run", without(missing))
    assert entry.main(["work"]) == entry.FAILED
    assert "inlay[model]" in capsys.readouterr().err
    monkeypatch.setattr(entry, "_run", without("flask"))
    with pytest.raises(ModuleNotFoundError):
        entry.main(["serve"])


def test_what_is_named_as_the_model_is_what_the_extra_brings() -> None:
    """The packages that lead to this advice are those of the extra `model`, by the names they are imported under."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = {re.split(r"[<>=]", each)[0].replace("-", "_") for each in project["optional-dependencies"]["model"]}
    assert extra == entry.MODEL_PACKAGES


def test_no_arguments_prints_help_and_is_a_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    """`inlay` alone shows the help, and a script notices."""
    assert entry.main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_module_and_entry_point_are_the_same_program() -> None:
    """`python -m inlay_cli --version` answers with the installed version."""
    from importlib import metadata

    result = subprocess.run(
        [sys.executable, "-m", "inlay_cli", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"inlay {metadata.version('inlay')}\n"


@pytest.mark.parametrize(
    ("text", "expected"), [("ris:2575", ("ris", 2575)), ("[::1]:80", ("::1", 80)), ("127.0.0.1:0", ("127.0.0.1", 0))]
)
def test_address_reads_host_and_port(text: str, expected: tuple[str, int]) -> None:
    """HOST:PORT is read with names, IPv4 and bracketed IPv6."""
    assert address(text) == expected


@pytest.mark.parametrize("text", ["ris", ":80", "ris:", "ris:x", "ris:70000"])
def test_address_refuses_what_is_none(text: str) -> None:
    """Anything else is refused by argparse's own error."""
    with pytest.raises(argparse.ArgumentTypeError):
        address(text)


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "²", "1.5", "1000000", "9" * 5000])
def test_a_number_of_processes_is_at_least_one_and_no_slip_of_the_keyboard(text: str) -> None:
    """`inlay serve --workers 0` would listen and answer nobody; the message says what would do."""
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 to 999999"):
        how_many(text)
    assert (how_many("4"), how_many("999999")) == (4, 999_999)
