"""The allow-list of the logs."""

# ruff: noqa: TRY301 (raising here is what is tested)

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from inlay_core.domain.errors import Invalid
from inlay_core.logs import ALLOWED_KEYS, configure_logs, error_facts, get_logger

NAME = "Testperson^Tina"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where the configured logs go; everything is put back afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook)
    stream = io.StringIO()
    configure_logs("test", level="info", stream=stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level, sys.excepthook, threading.excepthook = before
    structlog.reset_defaults()


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    """The lines as objects."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_listed_keys(lines: io.StringIO) -> None:
    """Known keys are logged with time, level and process."""
    get_logger("inlay_core.test").info("job.claimed", job_id="j1", fence=3)
    (line,) = read(lines)
    assert {key: line[key] for key in ("event", "job_id", "fence", "level", "process")} == {
        "event": "job.claimed",
        "job_id": "j1",
        "fence": 3,
        "level": "info",
        "process": "test",
    }
    assert line["timestamp"].endswith("Z")


def test_unknown_keys_are_dropped(lines: io.StringIO) -> None:
    """A key that nobody put on the list does not reach the log, whatever it holds; objects show their type only."""
    get_logger("x").info("order.received", patient=NAME, accession=NAME, _name=NAME, reason=object(), count=2)
    (line,) = read(lines)
    assert NAME not in lines.getvalue()
    assert (line["reason"], line["count"]) == ("object", 2)
    assert set(line) <= ALLOWED_KEYS


def test_long_texts_are_cut(lines: io.StringIO) -> None:
    """A text that is longer than a fact about the program is cut."""
    get_logger("x").info("odd", code="x" * 1000)
    assert len(read(lines)[0]["code"]) == 201


def test_exceptions_are_logged_without_what_they_say(lines: io.StringIO) -> None:
    """Type, code and place of an error are logged, never its message; ours and a library's alike."""
    try:
        try:
            raise ValueError(NAME)
        except ValueError as error:
            raise Invalid("required-missing", "A required field is missing.", "PID-3") from error
    except Invalid:
        get_logger("x").exception("intake.refused")
        logging.getLogger("somelib").exception("cannot read %s", NAME)
    ours, theirs = read(lines)
    assert (ours["error_type"], ours["error_code"], ours["error_place"]) == (
        "inlay_core.domain.errors.Invalid",
        "required-missing",
        "PID-3",
    )
    assert ours["error_at"].startswith("test_logs.py:")
    assert (theirs["event"], theirs["logger"], theirs["error_code"]) == ("library", "somelib", "required-missing")
    assert NAME not in lines.getvalue()


def test_of_libraries_only_known_ones_say_their_text_unformatted(lines: io.StringIO) -> None:
    """Celery's text is logged without its arguments; of an unknown library only name and level are."""
    logging.getLogger("celery.worker").warning("Task %s", NAME)
    logging.getLogger("talkative").warning(f"Invalid value for VR PN: {NAME}")  # noqa: G004 (that is how they write)
    logging.getLogger("talkative").debug("never shown")
    assert [line["event"] for line in read(lines)] == ["Task %s", "library"]
    assert NAME not in lines.getvalue()


def test_warnings_and_uncaught_errors_do_not_print_values(
    lines: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """What Python would print with its values goes through the same filter."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn(NAME, stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0 if NAME else None)
    thread.start()
    thread.join()
    try:
        raise RuntimeError(NAME)
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, None)
    logging.captureWarnings(capture=False)
    events = [(line["event"], line.get("error_type")) for line in read(lines)]
    assert events == [
        ("library", None),
        ("process.uncaught", "builtins.ZeroDivisionError"),
        ("process.uncaught", "builtins.RuntimeError"),
    ]
    assert NAME not in lines.getvalue()
    assert NAME not in capsys.readouterr().err


def test_the_innermost_frames_are_named_first() -> None:
    """`error_at` leads to the line that raised."""

    def inner() -> None:
        raise KeyError(NAME)

    with pytest.raises(KeyError) as caught:
        inner()
    assert error_facts(caught.value)["error_at"].split(" < ")[0].endswith(" inner")


def test_no_key_that_could_hold_a_person_is_listed() -> None:
    """Nobody adds a name, an identifier or a text to the list without meeting this test."""
    for part in ("name", "patient", "mrn", "accession", "text", "url", "query", "body", "value", "birth", "address"):
        assert not [key for key in ALLOWED_KEYS if part in key.split("_")]
