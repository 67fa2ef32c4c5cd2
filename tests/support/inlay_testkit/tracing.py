"""A backend of traces in memory: what was begun, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | int | float | bool


@dataclass
class Recorded:
    """A span that is over. Times are nanoseconds since 1970."""

    name: str
    kind: str
    parent: str | None
    traceparent: str | None
    began: int
    ended: int = 0
    attributes: Mapping[str, Value] = field(default_factory=dict)
    failure: str | None = None
    into: list[Recorded] = field(default_factory=list, repr=False)

    def end(self, attributes: Mapping[str, Value], failure: str | None, at: int) -> None:
        """Keep it."""
        self.attributes, self.failure, self.ended = dict(attributes), failure, at
        self.into.append(self)


class Recorder:
    """Keeps spans in the order of their ends."""

    def __init__(self) -> None:
        self.spans: list[Recorded] = []
        self.is_closed = False
        self._number = 0

    def begin(self, name: str, kind: str, parent: str | None, at: int) -> Recorded:
        """A span, in its parent's trace."""
        self._number += 1
        trace = parent.split("-")[1] if parent else f"{self._number:032x}"
        return Recorded(name, kind, parent, f"00-{trace}-{self._number:016x}-01", at, into=self.spans)

    def close(self) -> None:
        """Nothing is left."""
        self.is_closed = True

    def named(self, *names: str) -> list[Recorded]:
        """Spans of these names."""
        return [span for span in self.spans if span.name in names]
