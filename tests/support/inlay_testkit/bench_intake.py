"""How long an order waits for its acknowledgement at half of what the listener takes at most.

Run as `python -m inlay_testkit.bench_intake [--messages N] [--rounds N] [--json]`. First eight connections send as fast
as they are answered: that is the capacity. Then orders come at half of that rate, at random moments (Poisson), whoever
is still waiting; each is timed from the moment at which it was due, so that a queue in front of the sender counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from inlay_testkit.bench_hl7 import CONNECTIONS, flood, listener, machine
from inlay_testkit.capacity import percentile
from inlay_testkit.mllp import Wire, order_message
from inlay_testkit.peers import postgres_database, postgres_server

LIMIT = 5.0
# Connections of the second part: enough that one is free when an order is due.
_SENDERS = 16


def main() -> int:
    """Measure and print; status 1 where p99 is more than `LIMIT` times p50 in the middle round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000, help="orders per round")
    parser.add_argument("--rounds", type=int, default=5, help="of both parts, by turns; the median ratio counts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    found = measured(options.messages, options.rounds)
    report = {"machine": machine(), "load_before": load, "messages": options.messages, **found}
    print(json.dumps(report, indent=1) if options.json else "\n".join(f"{k:<24} {v}" for k, v in report.items()))
    return 0 if report["median_ratio"] <= LIMIT else 1


def measured(messages: int, rounds: int) -> dict[str, Any]:
    """Capacity, and milliseconds at half of it, round by round, on a PostgreSQL that waits for its disk."""
    found = []
    with (
        postgres_server(durable=True) as server,
        postgres_database(server, "bench") as url,
        listener(url) as served,
    ):
        flood(served.port, "warm", CONNECTIONS * 10)
        for number in range(rounds):
            capacity = messages / flood(served.port, f"full{number}x", messages)
            waits = at_rate(served.port, f"half{number}x", messages, capacity / 2, random.Random(number))
            p50, p99 = (percentile(waits, share) * 1000 for share in (0.5, 0.99))
            row = {"per_second_at_most": capacity, "p50_ms": p50, "p99_ms": p99, "ratio": p99 / p50}
            found.append({name: round(value, 2) for name, value in row.items()})
    ratios = sorted(row["ratio"] for row in found)
    return {"median_ratio": ratios[len(ratios) // 2], "rounds": found}


def at_rate(port: int, prefix: str, messages: int, per_second: float, chance: random.Random) -> list[float]:
    """Seconds from when each order was due to its acknowledgement."""
    due, now = [], 0.0
    for _ in range(messages):
        now += chance.expovariate(per_second)
        due.append(now)
    numbers = iter(range(messages))
    lock = threading.Lock()
    waits: list[float] = []
    began = time.perf_counter() + 0.2

    def send() -> None:
        with Wire(port, 60) as wire:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                time.sleep(max(0.0, began + due[number] - time.perf_counter()))
                answer = wire.ask(order_message(f"{prefix}{number}"))
                waits.append(time.perf_counter() - began - due[number])
                if b"|AA|" not in answer:
                    raise RuntimeError("an order was not taken")

    _together([threading.Thread(target=send) for _ in range(_SENDERS)])
    if len(waits) != messages:
        raise RuntimeError(f"{messages - len(waits)} orders were not acknowledged")
    return waits


def _together(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
