import json
from collections.abc import Iterator
from itertools import chain, count, repeat
from typing import Any

import pytest

from inlay_api import events
from inlay_core.application.ports import StepProgress
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.job import JobState


class Time:
    """Time that passes by sleeping, and by looking at steps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """What time it is."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def canvas(step: int, steps: int = 4) -> StepProgress:
    """A canvas of a step."""
    return StepProgress("j", step, steps, f"text\n{step}", ((0, 2),), sequence=100 + step)


def told(steps: list[StepProgress | None], states: list[JobState], clock: Time | None = None) -> list[str]:
    """The events (`:` is a comment) of a stream whose job is seen in these states, in the last one for ever."""
    clock = clock or Time()

    def come() -> Iterator[StepProgress | None]:
        for step in chain(steps, repeat(None)):
            clock.sleep(0.0 if step else 0.5)
            yield step

    def look() -> tuple[JobState, dict[str, Any]]:
        return (states.pop(0) if len(states) > 1 else states[0]), {"reason": None, "queue_position": None}

    names = []
    for frame in events.frames(come(), look, clock=clock, sleep=clock.sleep):
        lines = frame.decode().splitlines()
        assert frame.endswith(b"\n\n")
        names += [":" if line.startswith(":") else line[7:] for line in lines if line.startswith((":", "event: "))]
    return names


def test_every_step_then_the_result() -> None:
    """All canvases come in order, and the result ends the stream as soon as the job has one."""
    seen = told(
        [None, canvas(1), canvas(2), None, canvas(3), canvas(4)],
        [JobState.QUEUED, JobState.RUNNING, JobState.RUNNING, JobState.RUNNING, JobState.SUCCEEDED],
    )
    assert seen == ["state", "state", "step", "step", "step", "step", "result"]


def test_a_canvas_that_came_with_the_end_is_not_lost() -> None:
    """The last canvas may be written between looking for one and looking at the job: it is still shown."""
    assert told([None, canvas(3), None], [JobState.RUNNING, JobState.FAILED]) == ["state", "state", "step", "result"]


def test_a_queue_that_moves_is_told() -> None:
    """The place in the queue comes with the state, and again whenever it is another one."""
    places: list[int | None] = [3, 3, 2, None]

    def look() -> tuple[JobState, dict[str, Any]]:
        place = places.pop(0)
        return (JobState.QUEUED if place else JobState.SUCCEEDED), {"reason": None, "queue_position": place}

    clock = count(step=events.STANDING_SECONDS)
    sent = b"".join(events.frames(repeat(None), look, clock=lambda: next(clock)))
    found = [json.loads(line[6:]) for line in sent.decode().splitlines() if line.startswith("data: ")]
    assert [one["queue_position"] for one in found[:-1]] == [3, 2, None]


def test_canvases_are_looked_for_more_closely_than_the_job() -> None:
    """Whoever looks for canvases fifty times a second does not read the job and its place in the queue as often."""
    clock, looks = Time(), []

    def come() -> Iterator[None]:
        for _ in range(100):
            clock.sleep(0.02)
            yield None

    def look() -> tuple[JobState, dict[str, Any]]:
        looks.append(clock.now)
        return JobState.RUNNING, {"reason": None, "queue_position": None}

    list(events.frames(come(), look, clock=clock, sleep=clock.sleep))
    assert 8 <= len(looks) <= 11


def test_a_job_that_has_ended_tells_its_result_at_once() -> None:
    """Whoever comes late gets the last canvas and the result."""
    assert told([canvas(4)], [JobState.SUCCEEDED]) == ["state", "step", "result"]
    assert told([], [JobState.CANCELLED]) == ["state", "result"]


def test_a_silent_stream_is_kept_alive_and_ends_in_time() -> None:
    """A waiting job costs a comment every ten seconds, and no thread for longer than five minutes."""
    clock = Time()
    seen = told([], [JobState.WAITING_IMAGES], clock)
    assert seen[0] == "state"
    assert set(seen[1:]) == {":"}
    assert 25 <= len(seen) <= 31
    assert clock.now <= events.LONGEST_SECONDS + 1


def test_a_database_that_goes_away_ends_the_stream_without_a_result() -> None:
    """The client is not told a result that is not known; it comes back by itself."""

    def look() -> tuple[JobState, dict[str, Any]]:
        raise Unavailable("busy", "The database is busy.")

    assert list(events.frames(iter([None]), look)) == [b"retry: 1000\n\n"]


def test_line_breaks_stay_inside_the_data() -> None:
    """A canvas with line breaks, of whatever kind, is one line of data."""
    text = "a\r\nb\u2028c\n\nd"
    ended = JobState.SUCCEEDED, {"reason": None, "queue_position": None}
    frames = events.frames(iter([StepProgress("j", 1, 1, text, sequence=7)]), lambda: ended)
    frame = next(frame for frame in frames if b"event: step" in frame)
    assert frame.count(b"\n") == 4
    assert b"\r" not in frame
    assert frame.startswith(b"id: 7\n")


@pytest.mark.parametrize(("word", "sequence"), [("17", 17), ("", 0), ("x", 0), ("-4", 0), ("9" * 30, 0), ("²", 0)])
def test_last_event_id_is_a_sequence_or_the_beginning(word: str, sequence: int) -> None:
    """What is no id of ours means: from the beginning."""
    assert events.sequence_of(word) == sequence
