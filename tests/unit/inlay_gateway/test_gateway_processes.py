from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from inlay_core.domain.errors import Invalid, Unavailable
from inlay_core.settings import Settings
from inlay_gateway import listen
from inlay_gateway.answers import senders_of
from inlay_gateway.reception import Reception
from inlay_gateway.relay import Duty, work
from inlay_testkit.core import StillClock, counting_ids
from inlay_testkit.memory import Memory
from inlay_testkit.mllp import order_message


def test_a_duty_survives_its_errors_and_ends_when_told() -> None:
    """A round that fails is repeated after a rest; a duty that has work goes on without its pause."""
    stopped = threading.Event()
    rounds: list[str] = []

    def busy() -> int:
        rounds.append("busy")
        if len(rounds) > 50 and rounds.count("failing") > 2:
            stopped.set()
        return 1

    failures = iter([Unavailable("away", "x"), ValueError("x")])

    def failing() -> int:
        rounds.append("failing")
        if error := next(failures, None):
            raise error
        return 0

    work([Duty("busy", 60.0, busy), Duty("failing", 0.0, failing)], stopped, rest=0.01)
    assert rounds.count("busy") >= 40
    assert rounds.count("failing") > 2


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        (Settings(mllp_charset="klingon"), "INLAY_MLLP_CHARSET"),
        (Settings(hl7_mapping="/nowhere.toml"), "INLAY_HL7_MAPPING"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: Settings, place: str) -> None:
    """An unknown character set or a missing file stops the listener before it listens."""
    with pytest.raises(Invalid) as caught:
        senders_of(settings)
    assert caught.value.place == place


def test_a_mapping_with_a_mistake_stops_the_listener(tmp_path: Path) -> None:
    """A key that is unknown is an error with its place, not a mapping that silently does not hold."""
    path = tmp_path / "hl7.toml"
    path.write_text("[default]\nacession_number = ['OBR-18']\n")
    with pytest.raises(Invalid, match=r"default\.acession_number"):
        senders_of(Settings(hl7_mapping=str(path)))
    path.write_text("[default]\naccession_number = ['OBR-20']\n")
    assert senders_of(Settings(hl7_mapping=str(path))).default.mapping().accession_number[0].field == 20


@pytest.mark.parametrize("module", ["inlay_gateway.listen", "inlay_gateway.relay"])
def test_the_gateway_starts_without_the_model_and_the_web(module: str) -> None:
    """Importing a gateway process loads neither torch nor Flask, which its start within two seconds depends on."""
    program = f"import sys, {module}; print(sorted({{'torch', 'flask', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("payload", "level", "flags"),
    [
        (order_message("1"), "info", []),
        (order_message("1").replace(b"\r", b"\n"), "warning", ["lf-segment-end"]),
        (b"\xef\xbb\xbf" + order_message("1"), "warning", ["byte-order-mark"]),
        (
            order_message("1").replace(b"UNICODE UTF-8", b"").replace(b"Testperson", b"M\xfcller"),
            "info",
            ["charset-fallback"],
        ),
    ],
)
def test_what_was_tolerated_is_logged_as_a_warning(
    payload: bytes, level: str, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deviation of an accepted message is named; only what somebody configured is no warning."""
    logged: list[tuple[str, list[str]]] = []

    class Log:
        """Remembers level and flags."""

        def __getattr__(self, name: str) -> Any:
            return lambda _event, **keys: logged.append((name, keys["flags"]))

    monkeypatch.setattr(listen, "LOG", Log())
    reception = Reception(Memory(), StillClock(), counting_ids(), senders_of(Settings()))
    listen._log_answer(reception.take(payload, "peer"), len(payload), "peer", 0.1)
    assert logged == [(level, flags)]
