"""What a purge costs, and what it costs those who write meanwhile: `python -m inlay_testkit.bench_purge [MESSAGES]`.

A PostgreSQL of its own that waits for the disk; orders are taken one after the other, alone and beside the purge.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from datetime import timedelta

from sqlalchemy import Engine, text

from inlay_core.application.ports import Aged
from inlay_core.application.retention import purge_rows
from inlay_core.bootstrap import clock, new_id
from inlay_core.persistence import schema
from inlay_core.persistence.engine import open_database
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_testkit.core import ADMIN, Ward, order_command
from inlay_testkit.peers import postgres_server

_ORDERS = 200
_FILL = """
    INSERT INTO messages (id, received_at, peer, sending_application, sending_facility, control_id, sha256,
        message_type, declared_charset, used_charset, raw, ack, outcome, flags, order_ids)
    SELECT 'old-' || n, now() - interval '200 days' + n * interval '1 second', '', 'RIS', 'HOSP', n::text, md5(n::text),
        'ORM^O01', '', 'ascii', decode(repeat('41', 900), 'hex'), 'MSA', 'accepted', '[]', '["gone"]'
    FROM generate_series(1, :count) AS n
"""


def _orders(engine: Engine, prefix: str) -> dict[str, float]:
    """Milliseconds per order, taken one after the other."""
    ward = Ward(SqlUnitOfWork(engine), prefix=prefix)
    took = []
    for number in range(_ORDERS):
        began = time.perf_counter()
        ward.receive(order_command(f"{prefix}-{number}", study_instance_uid=None))
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    return {"p50_ms": round(statistics.median(took), 1), "p99_ms": round(took[int(len(took) * 0.99)], 1)}


def main() -> None:
    """Print one JSON object."""
    count = int(sys.argv[1]) if sys.argv[1:] else 50_000
    with postgres_server(durable=True) as url:
        engine = open_database(url)
        schema.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(_FILL), {"count": count})
        alone = _orders(engine, "alone")
        beside: dict[str, float] = {}
        thread = threading.Thread(target=lambda: beside.update(_orders(engine, "beside")))
        thread.start()
        began = time.perf_counter()
        found = purge_rows(SqlUnitOfWork(engine), clock, new_id, ADMIN, Aged.MESSAGES, days=90, dry_run=False)
        seconds = time.perf_counter() - began
        thread.join()
        engine.dispose()
    assert found.count == count
    assert found.newest is not None
    assert found.newest < clock() - timedelta(days=90)
    rate = round(count / seconds)
    print(
        json.dumps(
            {"purged": count, "seconds": round(seconds, 1), "per_second": rate, "alone": alone, "beside": beside}
        )
    )


if __name__ == "__main__":
    main()
