"""Traces: which work belongs together, from process to process. Nothing is made here until a process has a backend.

The trace of a job begins where its order came in and is kept with its row, so that relay and worker go on with it.
What a span may tell is listed below: ids that we made, codes and numbers. Nothing of an order or a patient has a place.
W3C Trace Context: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Final, Literal, Protocol, TypedDict, Unpack

Kind = Literal["internal", "server", "client", "producer", "consumer"]
"""How the work of a span stands to that of others, as OpenTelemetry names it."""

Value = str | int | float | bool


class Attributes(TypedDict, total=False):
    """All that a span may tell. Texts are ids of ours, codes, and names that the site's configuration gives."""

    job_id: str
    report_id: str
    message_id: str
    item_id: str
    job_kind: str
    priority: str
    state: str
    code: str
    ack: str
    destination: str
    stage: str
    method: str
    route: str
    status: int
    attempts: int
    version: int
    messages: int
    orders: int
    images: int
    bytes: int
    steps: int
    known: bool


# Where OpenTelemetry has a name for it, that one is used; the others are `inlay.` and their name.
_NAMES: Final[Mapping[str, str]] = {
    name: {
        "method": "http.request.method",
        "route": "http.route",
        "status": "http.response.status_code",
    }.get(name, f"inlay.{name}")
    for name in Attributes.__annotations__
}

# Version, trace, parent, flags. A later version may have more behind them, which is not for us.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?")


class Opened(Protocol):
    """A span under way, as its backend sees it."""

    @property
    def traceparent(self) -> str | None:
        """What those who go on with the work are given; None where nobody should."""
        ...

    def end(self, attributes: Mapping[str, Value], failure: str | None, at: int) -> None:
        """It ended at that moment (nanoseconds since 1970), with a code where it failed."""
        ...


class Backend(Protocol):
    """Where spans go."""

    def begin(self, name: str, kind: Kind, parent: str | None, at: int) -> Opened:
        """A span began at that moment (nanoseconds since 1970)."""
        ...

    def close(self) -> None:
        """Send what is left, and end."""
        ...


# Spans of one thread are nested; work that is handed on is given its trace by name.
_CURRENT: Final[ContextVar[str | None]] = ContextVar("traceparent", default=None)


def current() -> str | None:
    """The traceparent of the span that this thread is in; None where nothing is traced."""
    return _CURRENT.get()


@contextmanager
def under(traceparent: str | None) -> Iterator[None]:
    """What is done here belongs to that span."""
    before = _CURRENT.set(traceparent)
    try:
        yield
    finally:
        _CURRENT.reset(before)


def traceparent_of(header: str) -> str | None:
    """A header as we pass it on, in version 00; None for one that is not as it should be, which is to be ignored."""
    found = _TRACEPARENT.fullmatch(header.strip())
    return f"00-{found[1]}" if found else None


class Span:
    """A piece of work. Without a backend it holds nothing."""

    __slots__ = ("_attributes", "_failure", "_opened")

    def __init__(self, opened: Opened | None = None) -> None:
        self._opened = opened
        self._attributes: dict[str, Value] = {}
        self._failure: str | None = None

    @property
    def traceparent(self) -> str | None:
        """What those who go on with the work are given."""
        return self._opened.traceparent if self._opened else None

    def set(self, **attributes: Unpack[Attributes]) -> None:
        """Tell more of it. What is on no list is dropped, also where no type checker looked."""
        if self._opened is not None:
            told = {_NAMES[name]: value for name, value in attributes.items() if name in _NAMES}
            self._attributes |= {name: value for name, value in told.items() if isinstance(value, Value)}

    def fail(self, code: str) -> None:
        """It failed, with that code."""
        self._failure = code

    def end(self, at: datetime | None = None) -> None:
        """It is over, since that moment; nothing is told of it afterwards."""
        if self._opened is not None:
            self._opened.end(self._attributes, self._failure, _nanoseconds(at))
            self._opened = None


_NO_SPAN: Final = Span()


class Tracer:
    """Begins spans; without a backend it gives spans that hold nothing, and costs nothing."""

    def __init__(self, backend: Backend | None = None) -> None:
        self._backend = backend

    @property
    def is_on(self) -> bool:
        """Whether anything is traced."""
        return self._backend is not None

    def begin(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        parent: str | None = None,
        began: datetime | None = None,
        **attributes: Unpack[Attributes],
    ) -> Span:
        """A span that whoever asked for it ends, below `parent`, else below the thread's present one."""
        if self._backend is None:
            return _NO_SPAN
        span = Span(self._backend.begin(name, kind, parent or current(), _nanoseconds(began)))
        span.set(**attributes)
        return span

    @contextmanager
    def span(
        self, name: str, *, kind: Kind = "internal", parent: str | None = None, **attributes: Unpack[Attributes]
    ) -> Iterator[Span]:
        """A span around the work of this thread. An error fails it by its code, or its type; its text is not told."""
        if self._backend is None:
            yield _NO_SPAN
            return
        span = self.begin(name, kind=kind, parent=parent, **attributes)
        try:
            with under(span.traceparent):
                yield span
        except BaseException as error:
            span.fail(failure_of(error))
            raise
        finally:
            span.end()

    def past(
        self,
        name: str,
        began: datetime,
        ended: datetime,
        *,
        parent: str | None = None,
        **attributes: Unpack[Attributes],
    ) -> None:
        """A span that is over, for instance the wait between two moments that are stored."""
        # Clocks of two machines differ: a wait is never told as less than nothing.
        self.begin(name, parent=parent, began=began, **attributes).end(max(began, ended))

    def close(self) -> None:
        """Send what is left."""
        if self._backend is not None:
            self._backend.close()


NO_TRACER: Final = Tracer()
"""Traces nothing."""


def failure_of(error: BaseException) -> str:
    """The code of an error of ours, else its type: never its text, which may quote what it met."""
    code = getattr(error, "code", None)
    is_ours = type(error).__module__.startswith("inlay_")
    return code if is_ours and isinstance(code, str) else type(error).__name__


def _nanoseconds(moment: datetime | None) -> int:
    return time.time_ns() if moment is None else round(moment.timestamp() * 1_000_000) * 1000
