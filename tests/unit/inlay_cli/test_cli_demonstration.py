"""The parts of the demonstration that need no running system."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from inlay_cli.demonstration import flow
from inlay_cli.demonstration.flow import gaps_between_locks, play, texts, with_locks
from inlay_cli.demonstration.ris import Ris
from inlay_cli.demonstration.show import TITLES, JsonLines, Terminal
from inlay_cli.demonstration.site import place, plan
from inlay_cli.demonstration.web import parse_events
from inlay_hl7.building import Envelope, PatientFields

STEP_NAMES = ["order", "ack", "images", "draft", "fhir", "lock", "infill", "sign", "oru", "audit"]


def steps(*failing: str) -> list[tuple[str, Callable[[Any], dict[str, Any]]]]:
    """The ten steps by name; the named ones fail."""

    def fail(_story: Any) -> dict[str, Any]:
        raise flow.StepFailed("it did not come")

    return [(name, fail if name in failing else lambda _story: {"seen": 1}) for name in STEP_NAMES]


class Told:
    """A story that has only someone to tell it."""

    def __init__(self) -> None:
        self.output = io.StringIO()
        self.show = JsonLines(self.output)

    def rows(self) -> list[dict[str, Any]]:
        """The lines that were written."""
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


def test_steps_are_the_promised_ones_in_order() -> None:
    """The flow has the ten steps that scripts rely on, and each has a title for people."""
    assert [name for name, _ in flow.STEPS] == STEP_NAMES
    assert list(TITLES) == STEP_NAMES


def test_json_has_one_line_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is one JSON object with step, ok, seconds and what it has to tell."""
    monkeypatch.setattr(flow, "STEPS", steps())
    told: Any = Told()
    assert play(told)
    assert [row["step"] for row in told.rows()] == STEP_NAMES
    assert all(row["ok"] is True and row["seconds"] >= 0 and row["seen"] == 1 for row in told.rows())


def test_the_failing_step_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure nothing else is tried; the last line names the step and the reason."""
    monkeypatch.setattr(flow, "STEPS", steps("fhir", "sign"))
    told: Any = Told()
    assert not play(told)
    rows = told.rows()
    assert [row["step"] for row in rows] == STEP_NAMES[:5]
    assert rows[-1]["ok"] is False
    assert rows[-1]["reason"] == "it did not come"


def test_terminal_tells_times_reasons_and_canvases() -> None:
    """Without a terminal, the text has the title, some of the canvases, the time, and why it failed."""
    output = io.StringIO()
    show = Terminal(output)
    show.begin("draft")
    for step in range(1, 17):
        show.canvas(step, 16, f"canvas {step}")
    show.end("draft", 1.5, {"text": {"findings": "The lungs are [clear]."}}, ok=True)
    show.begin("fhir")
    show.end("fhir", 0.2, {"reason": "no such label"}, ok=False)
    printed = output.getvalue()
    assert TITLES["draft"] in printed
    assert [line.split(":")[0].strip() for line in printed.splitlines() if "canvas" in line] == [
        "step 1/16",
        "step 8/16",
        "step 16/16",
    ]
    assert "done in 1.50 s" in printed
    assert "Findings: The lungs are [clear]." in printed
    assert "FAILED in 0.20 s" in printed
    assert "reason: no such label" in printed


def test_events_are_read_as_the_standard_says() -> None:
    """Data may span lines; comments, retry hints and an unfinished last event are passed over."""
    stream = [b": hello\n", b"retry: 1\n", b"event: step\n", b'data: {"step":\n', b"data: 1}\n", b"\n"]
    stream += [b'data:{"a": 2}\r\n', b"\r\n", b'data: {"cut": true}\n']
    assert list(parse_events(iter(stream))) == [("step", {"step": 1}), ("message", {"a": 2})]


def section(name: str, *locked: bool) -> dict[str, Any]:
    """A section with one fragment per flag."""
    return {
        "name": name,
        "fragments": [{"id": f"f{i}", "text": f"Sentence {i}. ", "locked": flag} for i, flag in enumerate(locked)],
    }


def test_locks_keep_order_and_text() -> None:
    """The whole list goes back in order; every second sentence of the findings is locked, no other."""
    sent = with_locks(section("findings", False, False, False))
    assert [fragment["text"] for fragment in sent["fragments"]] == ["Sentence 0. ", "Sentence 1. ", "Sentence 2. "]
    assert [fragment["locked"] for fragment in sent["fragments"]] == [True, False, True]
    assert not any(fragment["locked"] for fragment in with_locks(section("impression", False, False))["fragments"])


def test_gaps_stand_for_runs_of_unlocked_text() -> None:
    """Locks are named by id; neighbouring unlocked fragments become one gap."""
    asked = gaps_between_locks(section("findings", True, False, False, True, False))
    assert asked["items"] == [{"lock": "f0"}, {"gap": {}}, {"lock": "f3"}, {"gap": {}}]


def test_texts_leave_empty_sections_out() -> None:
    """A section's text is its fragments put together; sections without text are not told."""
    report = {"sections": [section("findings", True, False), section("technique")]}
    assert texts(report) == {"findings": "Sentence 0. Sentence 1. "}


def test_the_radiograph_is_a_phantom_of_the_order(tmp_path: Path) -> None:
    """The file that is placed says that it is a phantom, a frontal chest film, and which study it belongs to."""
    from inlay_cli.demonstration.phantom import phantom_file
    from inlay_dicom.dataset import read_header

    file = tmp_path / "phantom.dcm"
    file.write_bytes(phantom_file("2.25.1", "DEMO1"))
    header = read_header(file)
    assert header.is_phantom
    assert (header.study_instance_uid, header.accession_number) == ("2.25.1", "DEMO1")
    assert (header.modality, header.view_position, header.photometric) == ("DX", "PA", "MONOCHROME2")
    assert header.complete


def test_the_ris_sends_an_order_and_takes_results() -> None:
    """What the RIS sends is answered, and a result that comes in is acknowledged and shown with its status."""
    from inlay_hl7.client import MllpClient
    from inlay_hl7.results import Result, ResultStatus, build_result

    with Ris("2.25.1") as ris, Ris("2.25.2") as other:
        ris.listener = ("127.0.0.1", other.port)
        control_id = ris.send_order()
        assert ris.await_acknowledgement() == ("AA", control_id)
        envelope = Envelope("C1", datetime(2026, 1, 1, tzinfo=UTC))
        patient = PatientFields("PHANTOM-1")
        result = Result(envelope, patient, ResultStatus.DRAFT, "r1", envelope.time, sections=(("findings", "Clear."),))
        with MllpClient("127.0.0.1", ris.port) as client:
            assert client.send(build_result(result)).positive
        assert "Clear." in ris.await_result("R", 5.0).lines
        assert ris.result_statuses() == ["R"]


def test_files_appear_whole_in_the_watched_folder(tmp_path: Path) -> None:
    """Nothing partial is ever seen in the folder: the file is moved into it."""
    folder = tmp_path / "images"
    folder.mkdir()
    place(b"all of it", folder, "a.dcm")
    assert [path.name for path in folder.iterdir()] == ["a.dcm"]
    assert (folder / "a.dcm").read_bytes() == b"all of it"
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_the_demonstration_ignores_the_settings_of_a_real_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configured database, broker or target is never touched by the demonstration; the chosen model is used."""
    monkeypatch.setenv("INLAY_DATABASE_URL", "postgresql://real")
    monkeypatch.setenv("INLAY_MODEL", "/models/mine")
    site = plan(tmp_path, 2576, [("127.0.0.1", 0), ("127.0.0.1", 0)])
    assert "INLAY_DATABASE_URL" not in site.environment
    assert site.environment["INLAY_MODEL"] == "/models/mine"
    assert site.environment["INLAY_ORU_TARGET"] == "127.0.0.1:2576"
    assert site.environment["INLAY_HOME"] == str(tmp_path)
    assert site.http[1] not in {0, site.mllp[1]}
