"""What happens on a simulated hospital day, as a pure function of a seed: when orders and images come, who asks what.

Hours follow the profile of the capacity simulation; some orders come in bursts on top, as from a RIS that was away.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from inlay_core.domain.order import Priority
from inlay_testkit.capacity import DAY_SECONDS, PRIORITIES, moments, poisson

# Hour of the day and share of all studies that come within a minute of it.
BURSTS = ((8.5, 0.02), (13.0, 0.03), (18.5, 0.02))
BURST_SECONDS = 60.0
# From the order to its images: the patient walks, the machine sends.
IMAGES_SECONDS = (120.0, 1200.0)
INFILLS_PER_STUDY = 1.0
# What nobody finishes on this day stays a draft.
SIGNED_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class PlannedStudy:
    """A study: seconds from the begin of the run to its order and its images, and what its reader does to the draft."""

    number: int
    priority: Priority
    ordered: float
    imaged: float
    infills: int
    is_signed: bool


def plan(seed: int, studies: int, compress: float) -> list[PlannedStudy]:
    """The day, run `compress` times as fast as the clock, in the order of its orders."""
    chance = random.Random(seed)
    ordered = sorted(moment / compress for moment in (*_bursts(chance, studies), *_rest(chance, studies)))
    return [_planned(chance, number, moment, compress) for number, moment in enumerate(ordered)]


def day_of(seconds: float, compress: float) -> str:
    """A moment of the run as the day's clock shows it."""
    minutes = int(seconds * compress) // 60
    return f"{minutes // 60:02}:{minutes % 60:02}"


def priorities_of(studies: Sequence[PlannedStudy]) -> dict[str, int]:
    """How many there are of each priority."""
    return {str(one): sum(study.priority is one for study in studies) for one in Priority}


def _bursts(chance: random.Random, studies: int) -> list[float]:
    return [
        hour * 3600.0 + chance.uniform(0.0, BURST_SECONDS)
        for hour, share in BURSTS
        for _ in range(round(share * studies))
    ]


def _rest(chance: random.Random, studies: int) -> list[float]:
    in_bursts = sum(round(share * studies) for _, share in BURSTS)
    return list(moments(chance, studies - in_bursts))


def _planned(chance: random.Random, number: int, ordered: float, compress: float) -> PlannedStudy:
    (priority,) = chance.choices(tuple(Priority), PRIORITIES)
    imaged = ordered + chance.uniform(*IMAGES_SECONDS) / compress
    infills = poisson(chance, INFILLS_PER_STUDY)
    return PlannedStudy(number, priority, ordered, imaged, infills, chance.random() < SIGNED_SHARE)


def length(compress: float) -> float:
    """Seconds that a day lasts."""
    return DAY_SECONDS / compress
