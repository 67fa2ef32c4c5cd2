"""Server-sent events (HTML standard, 9.2): a job's canvases from the progress port, then its result.

A stream holds a thread, so there are only so many, and none lives for ever; the client comes back with Last-Event-ID.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from flask import Response, request

from inlay_api.answers import json_bytes
from inlay_api.desk import Desk
from inlay_api.present import Body
from inlay_core.application.ports import StepProgress
from inlay_core.domain.errors import DomainError, Unavailable
from inlay_core.domain.job import JobState

END: Final = "end"
"""The id of the last event."""

# Proxies cut connections that are silent for half a minute or more.
HEARTBEAT_SECONDS: Final = 10.0
# Where the job stands, its place in the queue included, changes more slowly than its canvases come.
STANDING_SECONDS: Final = 0.2
# A job may wait for images for days; nobody needs a thread to watch that. It also bounds how long a token that has
# expired meanwhile is honoured.
LONGEST_SECONDS: Final = 300.0
# After the last canvas the result is a transaction away: looking closely for so long saves the reader a wait.
CLOSE_LOOK_SECONDS: Final = 0.3
_CLOSE_PAUSE_SECONDS: Final = 0.02
_RETRY_MILLISECONDS: Final = 1000

Look = Callable[[], tuple[JobState, Body]]


def stream(desk: Desk, job_id: str, look: Look, *, after: int) -> Response:
    """The response; raises Unavailable when too many streams are open."""
    if request.method == "HEAD":
        return Response(content_type="text/event-stream")
    if not desk.streams.acquire(blocking=False):
        raise Unavailable("too-many-streams", "Too many live streams are open; poll the job instead.")
    desk.metrics.streams.inc()
    body = frames(desk.services.progress.follow(job_id, after), look)
    answer = Response(body, content_type="text/event-stream")
    # Proxies that buffer would turn live canvases into one late lump.
    answer.headers["X-Accel-Buffering"] = "no"

    @answer.call_on_close
    def release() -> None:
        desk.metrics.streams.dec()
        desk.streams.release()

    return answer


def frames(
    steps: Iterator[StepProgress | None],
    look: Look,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[bytes]:
    """The bytes of the stream. `steps` yields None when nothing came; then, now and then, the job is looked at."""
    began = spoke = looked = clock()
    yield f"retry: {_RETRY_MILLISECONDS}\n\n".encode()
    try:
        state, body = look()
        yield _state_frame(state, body)
        for step in steps:
            if step is not None:
                yield _frame("step", step_body(step), str(step.sequence))
                spoke = clock()
                if step.step >= step.steps and not (ended := _close_look(look, clock, sleep))[0].is_open:
                    state, body = ended
                    break
                continue
            # Nothing came since the job was seen to have ended: all of its canvases were shown.
            if not state.is_open:
                break
            if clock() - looked < STANDING_SECONDS:
                continue
            before = _standing(state, body)
            looked = clock()
            state, body = look()
            if _standing(state, body) != before:
                yield _state_frame(state, body)
                spoke = clock()
            elif clock() - began > LONGEST_SECONDS:
                return
            elif clock() - spoke > HEARTBEAT_SECONDS:
                yield b": still here\n\n"
                spoke = clock()
        yield _frame("result", body, END)
    except DomainError:
        # The database is away for a moment. The stream ends without a result, and the client comes back.
        return


def _close_look(look: Look, clock: Callable[[], float], sleep: Callable[[float], None]) -> tuple[JobState, Body]:
    until = clock() + CLOSE_LOOK_SECONDS
    state, body = look()
    while state.is_open and clock() < until:
        sleep(_CLOSE_PAUSE_SECONDS)
        state, body = look()
    return state, body


def _standing(state: JobState, body: Body) -> Body:
    return {"state": str(state), "reason": body["reason"], "queue_position": body["queue_position"]}


def _state_frame(state: JobState, body: Body) -> bytes:
    return _frame("state", _standing(state, body))


def step_body(step: StepProgress) -> Body:
    """A canvas: the whole text, and which spans of it are settled."""
    return {
        "step": step.step,
        "steps": step.steps,
        "text": step.text,
        "accepted": [list(span) for span in step.accepted],
        "sequence": step.sequence,
    }


def sequence_of(last_event_id: str) -> int:
    """Where to go on; from the beginning for what is no sequence of ours."""
    word = last_event_id.strip()
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 19 else 0


def _frame(name: str, body: Body, event_id: str | None = None) -> bytes:
    head = f"id: {event_id}\n" if event_id is not None else ""
    # JSON has no line breaks outside of strings, and escapes them inside: one data line is enough.
    return head.encode() + f"event: {name}\ndata: ".encode() + json_bytes(body) + b"\n\n"
