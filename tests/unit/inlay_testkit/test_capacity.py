"""The simulation of the GPUs' queue, held against closed forms where there are any."""

import math
import random
from functools import partial
from itertools import pairwise

import pytest

from inlay_testkit.capacity import (
    DAY_SECONDS,
    STAT,
    URGENT,
    Study,
    erlang_c,
    gpus_needed,
    hospital_day,
    mean_wait_md1,
    mean_wait_mmc,
    percentile,
    poisson_studies,
    simulate,
)
from inlay_testkit.capacity_table import main

COUNT = 60_000


def mean(values: list[float]) -> float:
    """The mean."""
    return math.fsum(values) / len(values)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (2, 1.4), (5, 3.0)])
def test_mean_wait_is_that_of_mmc(servers: int, load: float) -> None:
    """With random service times, the simulated mean wait is Erlang's, within ten per cent."""
    studies = poisson_studies(7, COUNT, load, lambda chance: chance.expovariate(1.0))
    assert mean(simulate(studies, servers).all()) == pytest.approx(mean_wait_mmc(servers, load, 1.0), rel=0.1)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_mean_wait_is_that_of_md1(load: float) -> None:
    """With constant service times and one server, it is Pollaczek's and Khinchine's, within ten per cent."""
    studies = poisson_studies(11, COUNT, load / 2.0, lambda _: 2.0)
    assert mean(simulate(studies, 1).all()) == pytest.approx(mean_wait_md1(load / 2.0, 2.0), rel=0.1)


def test_one_server_follows_lindleys_recursion() -> None:
    """Each wait is the one before, and that one's service, less the time in between; exactly, with any services."""
    studies = poisson_studies(13, 2_000, 0.8, lambda chance: chance.uniform(0.1, 2.0))
    expected = [0.0]
    for before, after in pairwise(studies):
        expected.append(max(0.0, expected[-1] + before.service - (after.arrival - before.arrival)))
    assert simulate(studies, 1).all() == pytest.approx(expected)


def test_several_servers_follow_kiefers_and_wolfowitzs_recursion() -> None:
    """With servers sorted by what is left to do, each wait is what is left at the least busy one."""
    studies = poisson_studies(17, 2_000, 2.5, lambda chance: chance.uniform(0.1, 2.0))
    left, clock, expected = [0.0] * 3, 0.0, []
    for study in studies:
        left = sorted(max(0.0, each - (study.arrival - clock)) for each in left)
        clock = study.arrival
        expected.append(left[0])
        left[0] += study.service
    assert simulate(studies, 3).all() == pytest.approx(expected)


def test_studies_that_come_at_once_do_not_wait_for_the_past() -> None:
    """Two that come at the same moment to two idle servers wait for nothing."""
    assert simulate([Study(10.0, 0, 1.0), Study(10.0, 0, 1.0)], 2).all() == [0.0, 0.0]


def test_erlang_c_of_one_server_is_its_load() -> None:
    """In M/M/1 the share that waits is the load."""
    assert erlang_c(1, 0.7) == pytest.approx(0.7)


def test_urgent_overtakes_and_nobody_is_interrupted() -> None:
    """What is begun goes on; of what waits, the most urgent is next, and of these the oldest."""
    studies = [Study(0.0, 2, 10.0), Study(1.0, 2, 10.0), Study(2.0, 1, 10.0), Study(3.0, 1, 10.0)]
    waits = simulate(studies, 1)
    assert waits.by_priority == {2: [0.0, 29.0], 1: [8.0, 17.0]}


def test_priorities_leave_the_total_of_waits_as_it_is() -> None:
    """With equal service times, order of service moves waits from one class to another and makes none."""
    plain = poisson_studies(3, 5_000, 0.8, lambda _: 1.0)
    chance = random.Random(5)
    mixed = [Study(each.arrival, chance.randrange(3), each.service) for each in plain]
    assert math.fsum(simulate(mixed, 1).all()) == pytest.approx(math.fsum(simulate(plain, 1).all()))


def test_a_day_is_the_same_for_the_same_seed() -> None:
    """A seed names a day: studies within it, infills after their draft, more by day than by night."""
    of_seed = partial(hospital_day, studies=2_000, draft_seconds=2.0, infills_per_study=1.0, infill_seconds=1.0)
    day = of_seed(1)
    assert day == of_seed(1)
    assert day != of_seed(2)
    drafts = [work for work in day if work.service == 2.0]
    assert len(drafts) == 2_000
    assert len(day) == pytest.approx(4_000, rel=0.05)
    assert all(0.0 <= work.arrival < DAY_SECONDS for work in drafts)
    morning = sum(9 <= work.arrival / 3600 < 12 for work in drafts)
    assert morning > 5 * sum(work.arrival / 3600 < 3 for work in drafts)


def test_gpus_needed_are_the_fewest() -> None:
    """One GPU fewer does not keep the promise, and these do."""
    day = hospital_day(1, 2_000, draft_seconds=60.0, infills_per_study=1.0, infill_seconds=20.0)
    needed = gpus_needed(day, within_seconds=30.0)
    assert percentile(simulate(day, needed).all(), 0.99) <= 30.0
    assert percentile(simulate(day, needed - 1).all(), 0.99) > 30.0


def test_percentiles_are_values_that_occurred() -> None:
    """Nearest rank: no value is made up between two."""
    assert [percentile([3.0, 1.0, 2.0, 4.0], share) for share in (0.0, 0.5, 0.51, 1.0)] == [1.0, 2.0, 3.0, 4.0]
    assert math.isnan(percentile([], 0.5))


def test_a_row_of_the_table_says_what_a_study_costs(capsys: pytest.CaptureFixture[str]) -> None:
    """One GPU for 200 studies is 120 GPU hours per 1,000, and 24 hours at the given price through 200."""
    main(["--draft", "0.5", "--infill", "0.3", "--studies", "200", "--price", "2"])
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    assert cells[:4] == ["0.5", "0.3", "200", "1"]
    assert cells[-2:] == ["120.0", "0.2400"]


def test_an_infill_is_as_urgent_as_in_the_queue() -> None:
    """Urgent, and STAT for a STAT study: never before STAT drafts, never behind routine ones."""
    day = hospital_day(2, 500, draft_seconds=2.0, infills_per_study=2.0, infill_seconds=1.0)
    ranks = {study.priority for study in day if study.service == 1.0}
    assert ranks == {STAT, URGENT}
    assert {study.priority for study in day if study.service == 2.0} == {0, 1, 2}
