"""Whether the queue costs more on years of old work: its queries on an empty and on a full PostgreSQL, by turns.

Run as `python -m inlay_testkit.bench_queue [--reports N] [--rounds N] [--json]`. Both databases are on one server,
which does not wait for the disk (both would alike), and have the same work that waits. Nothing of a round is committed
but an order. Pages are what PostgreSQL says that the reading statements of a query touch, whatever the machine does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, event

from inlay_api.metrics import SHOWN_ITEMS, SHOWN_JOBS
from inlay_core.application import drafting
from inlay_core.application.administration import NEWEST_DELIVERIES
from inlay_core.application.ports import DEFAULT_SITE, Destination, ReportSearch, Sort
from inlay_core.application.publishing import wake_workers
from inlay_core.application.queries import attendance, read_report, search_reports
from inlay_core.application.transaction import Act
from inlay_core.domain.job import OPEN_STATES, JobKind, JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.switch import Allowance
from inlay_core.persistence import schema
from inlay_core.persistence.engine import open_database
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_testkit.bench_hl7 import machine
from inlay_testkit.capacity import percentile
from inlay_testkit.core import RADIOLOGIST, RELAY, WORKER, Ward, order_command
from inlay_testkit.old_work import fill
from inlay_testkit.peers import postgres_database, postgres_server

# What waits on an ordinary morning.
QUEUED, WAITING, DRAFTED = 20, 5, 10
LIMIT = 1.5
_ALL = Allowance(frozenset(JobKind))
_BATCH = 100

Act_ = Callable[[], object]


def main() -> int:
    """Measure and print; status 1 where a query's p99 is more than `LIMIT` times that on the empty database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=1_000_000, help="old ones, each with order, job, message ...")
    parser.add_argument("--rounds", type=int, default=500, help="of each query on each database")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measured(options.reports, options.rounds, lambda line: print(f"bench: {line}", file=sys.stderr))
    report = {"reports": options.reports, "rounds": options.rounds, "machine": machine(), "queries": figures}
    print(json.dumps(report, indent=1) if options.json else _table(figures))
    return 0 if all(row["p99_ratio"] <= LIMIT for row in figures.values() if row["is_queue"]) else 1


def measured(reports: int, rounds: int, say: Callable[[str], None], few: int = 0) -> dict[str, dict[str, Any]]:
    """Milliseconds and pages of each query on both databases, and ratios; the `empty` one has `few` old reports."""
    with ExitStack() as opened:
        server = opened.enter_context(postgres_server())
        engines: dict[str, Engine] = {}
        for name in ("empty", "full"):
            engine = open_database(opened.enter_context(postgres_database(server, name)))
            opened.callback(engine.dispose)
            schema.upgrade(engine)
            engines[name] = engine
        fill(engines["full"], reports, say)
        fill(engines["empty"], few, say)
        acts = {name: queries(SqlUnitOfWork(engine)) for name, engine in engines.items()}
        touched = {
            query: {f"{name}_pages": pages(engine, acts[name][query]) for name, engine in engines.items()}
            for query in acts["empty"]
        }
        took: dict[str, dict[str, list[float]]] = {name: {"empty": [], "full": []} for name in acts["empty"]}
        for number in range(rounds):
            for query, by_engine in took.items():
                for name in ("empty", "full") if number % 2 else ("full", "empty"):
                    began = time.perf_counter()
                    acts[name][query]()
                    by_engine[name].append((time.perf_counter() - began) * 1000)
            if (number + 1) % _BATCH == 0:
                say(f"round {number + 1}/{rounds}")
        return {query: {**_row(query, by_engine), **touched[query]} for query, by_engine in took.items()}


def pages(engine: Engine, act: Act_) -> int:
    """Pages of tables and indexes that the selects and updates of an act touch (EXPLAIN (ANALYZE, BUFFERS))."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE", "WITH")):
            seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    total = 0
    with engine.connect() as connection:
        for statement, parameters in seen:
            explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            plan = explained.scalar_one()[0]["Plan"]
            total += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        connection.rollback()
    return total


def queries(uow: SqlUnitOfWork) -> dict[str, Act_]:
    """What the queue and its surroundings ask, on a database with some work that waits."""
    ward = _waiting(uow)
    now = ward.clock()
    lease = now + timedelta(seconds=60)
    counter = iter(range(10**9))
    with uow:
        report = uow.reports.search(ReportSearch(statuses=(Status.DRAFTED,)), Sort.OLDEST, 0, 1).rows[0].report

    def undone(act: Callable[[SqlUnitOfWork], object]) -> Act_:
        def run() -> None:
            with uow:
                act(uow)

        return run

    def worklist() -> None:
        search = ReportSearch(statuses=(Status.DRAFTED, Status.IN_REVIEW))
        attendance(uow, RADIOLOGIST, search_reports(uow, RADIOLOGIST, search, sort=Sort.WORKLIST))

    return {
        "claim a job": undone(lambda u: u.jobs.claim(now, lease, _ALL, [report.id])),
        "claim wake-ups": undone(lambda u: u.outbox.claim(Destination.CELERY, now, lease, 50)),
        "claim a result": undone(lambda u: u.outbox.claim(Destination.ORU, now, lease, 1)),
        "find forgotten jobs": undone(lambda u: u.jobs.unwoken(now, now, _ALL, 100)),
        "find expired leases": undone(lambda u: u.jobs.expired(now, 100)),
        "find jobs without images": undone(lambda u: u.jobs.in_state(JobState.WAITING_IMAGES, 100)),
        "count open jobs": undone(lambda u: u.jobs.count(OPEN_STATES)),
        "age of the queue": undone(lambda u: (u.jobs.queued_since(), u.outbox.pending_since())),
        "jobs of a report": undone(lambda u: u.jobs.of_report(report.id)),
        "take an order": lambda: ward.receive(order_command(f"n{next(counter)}", study_instance_uid=None)),
        "read a report": lambda: read_report(uow, RADIOLOGIST, report.id),
        "worklist": worklist,
        "metrics": undone(lambda u: (u.jobs.count(SHOWN_JOBS), u.outbox.count(SHOWN_ITEMS))),
        "state for administrators": undone(lambda u: (u.jobs.census(now), u.outbox.census(NEWEST_DELIVERIES))),
    }


# Not the queue's own: what people and monitoring ask now and then.
_ASIDE = frozenset({"worklist", "metrics", "state for administrators", "read a report"})


def _waiting(uow: SqlUnitOfWork) -> Ward:
    """Some drafts, some jobs that wait for images, and a queue."""
    site = DEFAULT_SITE
    ward = Ward(uow, site=site, prefix="now")
    for number in range(DRAFTED):
        ward.drafted(f"d{number}", study_instance_uid=None)
    for number in range(WAITING):
        ward.order(f"w{number}", study_instance_uid=None)
        claimed = drafting.claim_next(*ward.trio, WORKER, site=site)
        assert claimed is not None
        drafting.images_missing(*ward.trio, WORKER, claimed.job.id, fence=claimed.job.fence)
    for number in range(QUEUED):
        report = ward.order(f"q{number}", study_instance_uid=None)
        with uow:
            (job,) = uow.jobs.of_report(report.id)
            wake_workers(Act(uow, ward.clock(), ward.new_id, RELAY, site), job)
            uow.commit()
    return ward


def _row(query: str, by_engine: Mapping[str, list[float]]) -> dict[str, Any]:
    found = {
        f"{name}_{label}_ms": round(percentile(values, share), 3)
        for name, values in by_engine.items()
        for label, share in (("p50", 0.5), ("p99", 0.99))
    }
    ratios = {f"{p}_ratio": round(found[f"full_{p}_ms"] / found[f"empty_{p}_ms"], 2) for p in ("p50", "p99")}
    return {**found, **ratios, "is_queue": query not in _ASIDE}


def _table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    columns: tuple[str, ...] = ("empty_p50_ms", "full_p50_ms", "p50_ratio", "empty_p99_ms", "full_p99_ms", "p99_ratio")
    columns += ("empty_pages", "full_pages")
    lines = [("query", *(name.replace("_", " ") for name in columns)), ["---"] * (len(columns) + 1)]
    lines += [(query, *(str(row[name]) for name in columns)) for query, row in figures.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
