"""Asks that wait at the same time are done at the same time: a trip to the database or the disk costs the same for one.

No thread of its own and no timer: whoever comes first does what waits, and nobody waits for others to come.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from inlay_core.domain.errors import Unavailable

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

# As many as threads of a server may wait, so a bound on what one transaction may hold.
_MOST: Final = 64


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Asked, Answer]):
    """One ask. `turn` is released when it is answered, or when its thread is to do what waits."""

    asked: Asked
    turn: threading.Lock = field(default_factory=threading.Lock)
    answer: Answer | Exception | None = None
    leads: bool = False

    def __post_init__(self) -> None:
        self.turn.acquire()


class Together(Generic[Asked, Answer]):
    """Answers asks of several threads, those that wait in one go.

    `do` answers several, in their order; an exception in the place of an answer is raised where it was asked. Where
    `do` itself raises, each is asked alone: one that cannot be answered is no other's trouble. Unavailable is for all.
    """

    def __init__(self, do: Callable[[Sequence[Asked]], Sequence[Answer | Exception]]) -> None:
        self._do = do
        self._lock = threading.Lock()
        self._queue: deque[_Waiting[Asked, Answer]] = deque()
        self._busy = False

    def ask(self, asked: Asked) -> Answer:
        """The answer; it may come with those of others. Raises what stands in its place."""
        mine: _Waiting[Asked, Answer] = _Waiting(asked)
        with self._lock:
            self._queue.append(mine)
            mine.leads, self._busy = not self._busy, True
        if not mine.leads:
            mine.turn.acquire()
        if mine.leads:
            self._lead()
        if isinstance(mine.answer, Exception):
            raise mine.answer
        return mine.answer  # type: ignore[return-value]  # answered: whoever leads does what stands before it

    def _lead(self) -> None:
        """Do what waits, oneself included, then let one of those that came meanwhile lead."""
        with self._lock:
            group = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST))]
        try:
            answers = self._answers([each.asked for each in group])
        except BaseException as error:
            answers = [_broken(error)] * len(group)
            raise
        finally:
            self._hand_over()
            for each, answer in zip(group, answers, strict=True):
                each.answer = answer
                each.turn.release()

    def _answers(self, asked: Sequence[Asked]) -> Sequence[Answer | Exception]:
        if len(asked) > 1:
            try:
                return self._do(asked)
            except Unavailable as error:
                return [error] * len(asked)
            except Exception:  # noqa: BLE001, S110 (which of them it was shows when each is asked alone)
                pass
        return [self._alone(each) for each in asked]

    def _alone(self, asked: Asked) -> Answer | Exception:
        try:
            return self._do([asked])[0]
        except Exception as error:  # noqa: BLE001 (raised again in the thread that asked)
            return error

    def _hand_over(self) -> None:
        with self._lock:
            following = self._queue[0] if self._queue else None
            self._busy = following is not None
        if following is not None:
            following.leads = True
            following.turn.release()


def _broken(error: BaseException) -> Exception:
    """What those are told whose leader was ended in the middle (a worker that is shut down)."""
    return RuntimeError(f"ended by {type(error).__name__}")
