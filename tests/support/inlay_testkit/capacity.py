"""How long studies wait for a GPU: a seeded simulation of the queue, and the closed forms that it is checked against.

Pure. Times are in seconds. Arrivals are random and independent (Poisson), thinned by the hour of the day where a
profile is given; the most urgent class is served first, and nobody who is being served is interrupted.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

DAY_SECONDS = 86_400.0
# Share of a day's studies by hour, as an emergency and ward service has them: a flat night, a peak late in the morning.
# An assumption, not a measurement; it only has to be stated, and a site may put its own in.
DAY_PROFILE = (1, 1, 1, 1, 1, 2, 4, 6, 8, 9, 9, 8, 7, 7, 7, 6, 5, 4, 3, 3, 2, 2, 2, 1)
# Shares of STAT, urgent and routine orders: an assumption as well.
PRIORITIES = (0.1, 0.2, 0.7)
STAT, URGENT = 0, 1


@dataclass(frozen=True, slots=True)
class Study:
    """One piece of work for a GPU: when it comes, how urgent it is (0 first), how long it takes."""

    arrival: float
    priority: int
    service: float


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds from arrival to the begin of the service, per priority, in order of service."""

    by_priority: dict[int, list[float]]

    def all(self) -> list[float]:
        """The waits of everybody."""
        return [wait for waits in self.by_priority.values() for wait in waits]


def erlang_c(servers: int, load: float) -> float:
    """The share that waits in M/M/c with `load` = arrival rate x mean service < servers (Erlang 1917)."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return servers * blocked / (servers - load * (1.0 - blocked))


def mean_wait_mmc(servers: int, arrivals_per_second: float, service: float) -> float:
    """The mean wait in M/M/c."""
    load = arrivals_per_second * service
    return erlang_c(servers, load) * service / (servers - load)


def mean_wait_md1(arrivals_per_second: float, service: float) -> float:
    """The mean wait in M/D/1 (Pollaczek-Khinchine with constant service)."""
    load = arrivals_per_second * service
    return load * service / (2.0 * (1.0 - load))


def simulate(studies: Sequence[Study], servers: int) -> Waits:
    """Serve studies (in order of arrival) on so many GPUs; the most urgent that waits is next, then the oldest."""
    free = [0.0] * servers
    waiting: list[tuple[int, float, float]] = []
    waits: dict[int, list[float]] = {}
    coming = iter(studies)
    following = next(coming, None)
    now = 0.0
    while following is not None or waiting:
        now = max(now, free[0])
        if not waiting and following is not None:
            now = max(now, following.arrival)
        while following is not None and following.arrival <= now:
            heapq.heappush(waiting, (following.priority, following.arrival, following.service))
            following = next(coming, None)
        priority, arrival, service = heapq.heappop(waiting)
        waits.setdefault(priority, []).append(now - arrival)
        heapq.heapreplace(free, now + service)
    return Waits(waits)


def poisson_studies(
    seed: int, count: int, arrivals_per_second: float, service: Callable[[random.Random], float]
) -> list[Study]:
    """So many studies of one priority at a constant rate."""
    chance = random.Random(seed)
    now, studies = 0.0, []
    for _ in range(count):
        now += chance.expovariate(arrivals_per_second)
        studies.append(Study(now, 0, service(chance)))
    return studies


def hospital_day(
    seed: int,
    studies: int,
    *,
    draft_seconds: float,
    infills_per_study: float,
    infill_seconds: float,
    priorities: Sequence[float] = PRIORITIES,
) -> list[Study]:
    """A day of work for the GPUs: drafts by the profile of hours, and infills soon afterwards.

    `priorities` are the shares of STAT, urgent and routine drafts. An infill is urgent, that of a STAT study STAT, as
    in `inlay_core`. Service times are constant: a draft is so many denoising steps, whatever it says. An infill comes
    between one and thirty minutes after its draft.
    """
    chance = random.Random(seed)
    work = []
    for moment in moments(chance, studies):
        (priority,) = chance.choices(range(len(priorities)), priorities)
        work.append(Study(moment, priority, draft_seconds))
        soon = (moment + chance.uniform(60.0, 1800.0) for _ in range(poisson(chance, infills_per_study)))
        work.extend(Study(later, min(priority, URGENT), infill_seconds) for later in soon)
    return sorted(work, key=lambda study: study.arrival)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so much of the values does not exceed; NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def gpus_needed(work: Sequence[Study], *, share: float = 0.99, within_seconds: float, most: int = 100_000) -> int:
    """The fewest GPUs with which that share of all work begins within so many seconds of its arrival.

    Raises ValueError where `most` are not enough.
    """
    low = max(1, math.floor(sum(study.service for study in work) / DAY_SECONDS))
    high = low
    while not _suffices(work, high, share, within_seconds):
        low, high = high + 1, high * 2
        if low > most:
            raise ValueError("not with that many GPUs")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _suffices(work, middle, share, within_seconds) else (middle + 1, high)
    return low


def _suffices(work: Sequence[Study], servers: int, share: float, within: float) -> bool:
    return percentile(simulate(work, servers).all(), share) <= within


def moments(chance: random.Random, count: int) -> Iterator[float]:
    """So many moments of a day, in seconds, by the profile of its hours."""
    hours = chance.choices(range(len(DAY_PROFILE)), DAY_PROFILE, k=count)
    for hour in hours:
        yield (hour + chance.random()) * DAY_SECONDS / len(DAY_PROFILE)


def poisson(chance: random.Random, mean: float) -> int:
    """A Poisson number (Knuth): how many exponential gaps fit into one."""
    number, passed = 0, chance.expovariate(1.0)
    while passed < mean:
        number += 1
        passed += chance.expovariate(1.0)
    return number
