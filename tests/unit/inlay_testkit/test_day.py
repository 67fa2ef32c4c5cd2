"""The plan of a load run's day, and what is said of its stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from inlay_core.domain.job import JobKind
from inlay_core.domain.order import Priority
from inlay_model import DraftRequest
from inlay_testkit.day.course import Sample, every, thinned, told
from inlay_testkit.day.holding import Held, children, held, in_rollup
from inlay_testkit.day.plan import BURST_SECONDS, IMAGES_SECONDS, day_of, plan, priorities_of
from inlay_testkit.day.stages import Service, Turn, ends_of, passed_over, records_of, simulated, stages_of, summary
from inlay_testkit.day.worker import Pace, PacedModel
from inlay_testkit.installation import Installation

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def service(priority: Priority, queued: float, claimed: float, done: float, accession: str = "A") -> Service:
    """A draft that was done."""
    return Service(accession, JobKind.DRAFT, priority, at(queued), at(claimed), at(done))


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    """A seed names a day: so many studies within it, images after their orders, urgent ones the fewer."""
    day = plan(1, 500, 96.0)
    assert day == plan(1, 500, 96.0)
    assert day != plan(2, 500, 96.0)
    assert [study.number for study in day] == list(range(500))
    assert [study.ordered for study in day] == sorted(study.ordered for study in day)
    assert all(0.0 <= study.ordered <= 900.0 for study in day)
    delays = [(study.imaged - study.ordered) * 96.0 for study in day]
    assert IMAGES_SECONDS[0] <= min(delays) + 1e-6
    assert max(delays) - 1e-6 <= IMAGES_SECONDS[1]
    counted = priorities_of(day)
    assert sum(counted.values()) == 500
    assert counted["stat"] < counted["urgent"] < counted["routine"]


def test_a_burst_brings_a_share_of_the_day_within_a_minute() -> None:
    """Three per cent of 2,000 orders come within the minute after 13:00, many times the rate around it."""
    day = plan(3, 2_000, 1.0)
    one = 13 * 3600.0
    assert sum(one <= study.ordered <= one + BURST_SECONDS for study in day) >= 60
    assert sum(one - BURST_SECONDS <= study.ordered < one for study in day) < 15


def test_a_compressed_day_is_the_same_day_faster() -> None:
    """Only the times change, all by the same factor; the clock of the day does not."""
    slow, fast = plan(5, 50, 1.0), plan(5, 50, 100.0)
    assert [study.ordered / 100.0 for study in slow] == pytest.approx([study.ordered for study in fast])
    assert [study.infills for study in slow] == [study.infills for study in fast]
    assert (day_of(36.0, 100.0), day_of(864.0, 100.0)) == ("01:00", "24:00")


def test_an_urgent_job_that_is_passed_over_is_seen() -> None:
    """A routine job that is claimed while a STAT one has been waiting counts; one claimed before it came does not."""
    stat = service(Priority.STAT, 10.0, 15.0, 16.0)
    before, meanwhile, after = (service(Priority.ROUTINE, 0.0, moment, moment + 1) for moment in (9.0, 12.0, 16.0))
    assert passed_over([stat, before, after]) == 0
    assert passed_over([stat, before, meanwhile, after]) == 1
    assert passed_over([stat, service(Priority.STAT, 11.0, 12.0, 13.0)]) == 0


def test_waiting_begins_when_there_is_something_to_do() -> None:
    """A draft that was queued before its images came has waited since the images."""
    done = [service(Priority.STAT, 0.0, 10.0, 12.0)]
    stages = stages_of(done, {"A": at(-1.0)}, {"A": at(8.0)}, [0.5], {"sign": [0.1, 0.3]})
    assert stages["queue wait, stat draft"]["p50"] == 2.0
    assert stages["order and images to queued"]["max"] == 0.0
    assert stages["drafting"]["p99"] == 2.0
    assert stages["sign"] == {"count": 2, "p50": 0.1, "p95": 0.3, "p99": 0.3, "max": 0.3}
    assert "queue wait, infill" not in stages
    assert summary([3.0, 1.0, 2.0])["p50"] == 2.0


def test_the_simulation_of_what_was_measured_is_what_was_measured() -> None:
    """One worker, three jobs at once, no time lost between them: the simulation waits exactly as long."""
    turns = [Turn(Priority.ROUTINE, at(0.0), at(2.0 * n), 2.0) for n in range(3)]
    (mean,) = [row for row in simulated(turns, 1) if (row["priority"], row["figure"]) == ("all", "mean")]
    assert (mean["measured"], mean["simulated"], mean["deviation"]) == (2.0, 2.0, 0.0)


def test_jobs_and_claims_are_read_from_the_trail(tmp_path: Path) -> None:
    """A draft's moments in order, and its claim with the time at which the worker's log says that it ended."""
    site = Installation(tmp_path)
    report = site.order("1", wake=False)
    site.ward.draft()
    job = site.job(report)
    ended = site.services.clock() + timedelta(seconds=5)
    log = [
        "not of a worker",
        json.dumps({"event": "job.claimed", "job_id": job.id, "fence": job.fence}),
        json.dumps({"event": "job.ended", "job_id": job.id, "timestamp": ended.isoformat()}),
    ]
    done, turns = records_of(site.services, ends_of(["\n".join(log)]))
    (one,) = done
    assert one.queued <= one.claimed <= one.done
    assert one.accession == "A1"
    (turn,) = turns
    assert turn.claimed == one.claimed
    assert turn.seconds == (ended - one.claimed).total_seconds()


def test_the_paced_engine_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many steps at the set pace, by the clock: what telling a step takes is not added. Its name says what it is."""
    slept: list[float] = []
    now = [0.0]
    monkeypatch.setattr("inlay_testkit.day.worker.time.monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("inlay_testkit.day.worker.time.sleep", sleep)
    pace = Pace(draft=4.0, infill=1.0, steps=4)
    model = PacedModel(Pace.from_env(pace.to_env()))

    def told(_: object) -> None:
        now[0] += 0.25

    (answer,) = model.batch([DraftRequest(images=(), sections=("findings",), on_step=told)])
    assert not isinstance(answer, Exception)
    assert slept == [1.0, 0.75, 0.75, 0.75]
    assert model.name == "paced"


def test_what_a_process_holds_is_what_its_pages_are_shared_among() -> None:
    """PSS and its anonymous part with what is swapped out, in MB; a kernel that tells less is a KeyError."""
    rollup = (
        "5594-7ffe ---p 00000000 00:00 0    [rollup]\n"
        "Rss:                90000 kB\nPss:                50000 kB\nPss_Anon:           30000 kB\nSwapPss:   1000 kB\n"
    )
    assert in_rollup(rollup) == (52.224, 31.744)
    with pytest.raises(KeyError):
        in_rollup("5594-7ffe ---p 00000000 00:00 0    [rollup]\nRss:    1 kB\n")


def test_a_child_counts_with_its_parent() -> None:
    """A process that is started here, and a file that is opened, are seen; one that has ended holds nothing."""
    alone = held(os.getpid(), alone=True)
    assert alone is not None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in children(os.getpid())
        both = held(os.getpid())
        child.communicate(b"\n")
    assert both is not None
    assert both.processes > alone.processes == 1
    assert both.pss > 0.0 < both.heap <= both.pss
    assert both.files > alone.files
    assert held(child.pid) is None


def test_growth_is_told_by_what_lasts() -> None:
    """Two megabytes more per hour are told as such in spite of a peak; what the warm-up loaded is not growth."""
    hours = [n / 100.0 for n in range(101)]
    held_then = [Held(100.0 * (n > 5) + 2.0 * hour + 500.0 * (n == 60), 1.0, 7, 1) for n, hour in enumerate(hours)]
    samples = [Sample(hour * 3600.0, {"relay": each}, 12) for hour, each in zip(hours, held_then, strict=True)]
    found = told(samples, 24.0)
    assert found["hour"][-1] == 24.0
    relay = found["processes"]["relay"]
    shown = {name: relay["pss_mb"][name] for name in ("warm", "middle", "end", "growth_per_hour")}
    assert shown == {"warm": 100.2, "middle": 101.0, "end": 102.0, "growth_per_hour": pytest.approx(2.0, abs=0.01)}
    assert relay["files"]["growth_per_hour"] == 0.0
    assert len(relay["heap_mb"]["course"]) == 101
    assert found["connections"]["end"] == 12
    (only,) = samples[:1]
    assert told([only], 24.0)["processes"]["relay"]["pss_mb"]["growth_per_hour"] == 0.0


def test_a_long_course_is_thinned_to_its_peaks() -> None:
    """So many moments at most, each the fullest of its neighbours; a short course stays as it is."""
    course = [{"hour": n / 100.0, "queued": 9 if n == 1_234 else 1, "stat": 0} for n in range(3_700)]
    thin = thinned(course, 100)
    assert len(thin) == 100
    assert course[1_234] in thin
    assert [moment["hour"] for moment in thin] == sorted(moment["hour"] for moment in thin)
    assert thinned(course[:50], 100) == course[:50]
    assert thinned([], 100) == []


@pytest.mark.parametrize(("compress", "seconds"), [(24.0, 30.0), (96.0, 7.5), (4_320.0, 1.0)])
def test_a_long_day_is_looked_at_less_often(compress: float, seconds: float) -> None:
    """Every 30 seconds of an hour, every second of a rehearsal."""
    assert every(compress) == seconds
