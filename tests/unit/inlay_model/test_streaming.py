"""Steps are told without holding up the loop."""

import threading
from typing import Any

import numpy as np
import pytest

from inlay_model import GenerationSettings, StepEvent
from inlay_model.request import Shown
from inlay_model.streaming import Stream
from inlay_model.transcript import spans_of


def numbered(count: int) -> list[StepEvent]:
    """Events 1 to `count`."""
    return [StepEvent(number, count, f"step {number}") for number in range(1, count + 1)]


def test_a_listener_that_is_blocked_holds_nobody_up_and_hears_the_last_canvas() -> None:
    """While a listener hangs in its first event all others are taken at once; it then hears the newest only."""
    entered, go_on = threading.Event(), threading.Event()
    told: list[int] = []

    def slow(event: StepEvent) -> None:
        told.append(event.step)
        entered.set()
        assert go_on.wait(10)

    events = numbered(50)
    with Stream(slow) as on_step:
        on_step(events[0])
        assert entered.wait(10)
        for event in events[1:]:
            on_step(event)
        assert on_step.heard == 50
        go_on.set()
    assert told == [1, 50]


def test_a_throttled_listener_hears_the_last_canvas_without_waiting_for_its_turn() -> None:
    """With an hour between two canvases, the first is told at once and the last at the end."""
    told: list[int] = []
    first = threading.Event()

    def tell(event: StepEvent) -> None:
        told.append(event.step)
        first.set()

    events = numbered(20)
    with Stream(tell, seconds=3600.0) as on_step:
        on_step(events[0])
        assert first.wait(10)
        for event in events[1:]:
            on_step(event)
    assert told == [1, 20]


def test_canvases_that_are_not_told_are_not_decoded() -> None:
    """Decoding happens in the listener's thread, once, and only for canvases that are looked at."""
    decoded: list[tuple[int, str]] = []

    def event(number: int) -> StepEvent:
        def show() -> Shown:
            decoded.append((number, threading.current_thread().name))
            return Shown(f"step {number}")

        return StepEvent.later(number, 9, show)

    texts: list[str] = []
    told = threading.Event()

    def tell(event: StepEvent) -> None:
        texts.append(event.text + event.text[:0])
        told.set()

    with Stream(tell, seconds=3600.0) as on_step:
        on_step(event(1))
        assert told.wait(10)
        for number in range(2, 10):
            on_step(event(number))
    assert texts == ["step 1", "step 9"]
    assert decoded == [(1, "stream"), (9, "stream")]


def test_an_error_of_the_listener_ends_the_telling_only() -> None:
    """A listener that raises is heard of through `error`; taking events goes on as before."""
    events = numbered(3)

    def tell(_: StepEvent) -> None:
        raise ValueError

    with Stream(tell) as on_step:
        for event in events:
            on_step(event)
    assert isinstance(on_step.error, ValueError)
    assert on_step.told == 0


def test_nothing_is_decoded_when_a_draft_is_told_and_nobody_looks(
    engine: Any, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft whose events are only counted never decodes a canvas for them; looked at later, they still can be."""
    decoded: list[int] = []
    monkeypatch.setattr("inlay_model.call.spans_of", lambda *given: decoded.append(1) or spans_of(*given))
    events: list[StepEvent] = []
    engine.draft([image], settings=GenerationSettings(steps=4), on_step=events.append)
    assert len(events) == 4
    assert decoded == []
    assert all(0 <= start < end <= len(event.text) for event in events for start, end in event.accepted)
    assert len(decoded) == 4
