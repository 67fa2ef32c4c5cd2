"""Two adapters of the progress port: a throttled database row, and Redis publish/subscribe.

Sequences are milliseconds, so that a job that starts again is still ahead of what its watchers saw; of two canvases
within one, the second is a millisecond ahead of the clock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from inlay_core.application.ports import NewUnitOfWork, StepProgress
from inlay_core.domain.errors import DomainError
from inlay_core.domain.ids import Clock
from inlay_core.redis_servers import redis_client

# Watchers of a finished job still find its last canvas for this long.
_KEEP_SECONDS: Final = 600
_CHANNEL: Final = "inlay:progress:"
# Between two looks at the row. A look takes a millisecond and its pause is what a watcher waits for beside the worker;
# where nothing came for two seconds, the job waits for something else.
_LOOK_SECONDS: Final = 0.02
_IDLE_LOOK_SECONDS: Final = 0.1
_LOOKS_UNTIL_IDLE: Final = 100


class RowProgress:
    """Canvases in one database row per job, written at most every `min_seconds` (and at the last step)."""

    def __init__(
        self,
        new_uow: NewUnitOfWork,
        new_reader: NewUnitOfWork,
        clock: Clock,
        *,
        min_seconds: float = 0.1,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._new_uow = new_uow
        self._new_reader = new_reader
        self._clock = clock
        self._min_seconds = min_seconds
        self._sleep = sleep
        self._last: dict[str, int] = {}

    def publish(self, job_id: str, step: int, steps: int, text: str, accepted: Sequence[tuple[int, int]] = ()) -> None:
        """Write the row, unless the last one is too fresh. A busy database costs a canvas, not the job."""
        now = self._clock()
        sequence = max(int(now.timestamp() * 1000), self._last.get(job_id, 0) + 1)
        fresh_since = sequence - self._min_seconds * 1000
        if self._last.get(job_id, 0) > fresh_since and step < steps:
            return
        # Most jobs stop before their last step, and some fail: what is not fresh any more is forgotten.
        kept = {job: told for job, told in tuple(self._last.items()) if told > fresh_since}
        self._last = kept if step >= steps else kept | {job_id: sequence}
        try:
            with self._new_uow() as uow:
                uow.progress.put(StepProgress(job_id, step, steps, text, tuple(accepted), sequence), now)
                uow.commit()
        except DomainError:
            return

    def follow(self, job_id: str, after: int = 0) -> Iterator[StepProgress | None]:
        """Look at the row again and again; None where nothing is new."""
        in_vain = 0
        while True:
            with self._new_reader() as uow:
                found = uow.progress.get(job_id)
            if found is not None and found.sequence > after:
                after, in_vain = found.sequence, 0
                yield found
            else:
                in_vain += 1
                yield None
                self._sleep(_LOOK_SECONDS if in_vain < _LOOKS_UNTIL_IDLE else _IDLE_LOOK_SECONDS)


class RedisProgress:
    """Canvases by publish/subscribe; the newest one is kept for those who come late."""

    def __init__(self, url: str, clock: Clock, *, master: str = "", wait_seconds: float = 0.5) -> None:
        import redis

        self._failure: type[Exception] = redis.RedisError
        self._redis: Any = redis_client(url, master, socket_timeout=5, socket_connect_timeout=2)
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._sequence = 0

    def publish(self, job_id: str, step: int, steps: int, text: str, accepted: Sequence[tuple[int, int]] = ()) -> None:
        """Tell those who listen. A Redis that is away costs a canvas, not the job."""
        # Jobs share it: what matters is that each is told later than before.
        self._sequence = sequence = max(int(self._clock().timestamp() * 1000), self._sequence + 1)
        body = json.dumps([sequence, step, steps, text, [list(span) for span in accepted]])
        try:
            self._redis.set(_CHANNEL + job_id, body, ex=_KEEP_SECONDS)
            self._redis.publish(_CHANNEL + job_id, body)
        except self._failure:
            return

    def follow(self, job_id: str, after: int = 0) -> Iterator[StepProgress | None]:
        """Listen; None where nothing came for a while (or Redis is away)."""
        while True:
            try:
                with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    subscription.subscribe(_CHANNEL + job_id)
                    latest = self._redis.get(_CHANNEL + job_id)
                    while True:
                        found = _decoded(job_id, latest)
                        if found is not None and found.sequence > after:
                            after = found.sequence
                            yield found
                        elif found is None:
                            yield None
                        message = subscription.get_message(timeout=self._wait_seconds)
                        latest = message["data"] if message else None
            except self._failure:
                yield None
                time.sleep(self._wait_seconds)

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()


def _decoded(job_id: str, body: bytes | None) -> StepProgress | None:
    if body is None:
        return None
    sequence, step, steps, text, accepted = json.loads(body)
    return StepProgress(job_id, step, steps, text, tuple((start, end) for start, end in accepted), sequence)
