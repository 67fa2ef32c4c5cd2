"""HL7 side by side in one run: durable intake and a server that only parses, our reading and python-hl7's.

Run as `python -m inlay_testkit.bench_hl7 [--json]`. The listener is the real process on a PostgreSQL that waits for its
disk; hl7apy's own MLLP server parses and stores nothing, and closes its connection after each message. Both get the
same messages over as many connections, in rounds that alternate who is first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import hl7

from inlay_hl7.mapping.commands import commands_of
from inlay_hl7.mapping.places import RAD_4
from inlay_hl7.message import read
from inlay_testkit.mllp import Wire, order_message
from inlay_testkit.peers import free_port, postgres_database, postgres_server

CONNECTIONS = 8
START_SECONDS = 60.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=800, help="orders for each server per round")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds; the median counts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {**intake(options.messages, options.rounds), **parsing(options.rounds), "machine": machine()}
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        print("\n".join(f"{name:<36} {value}" for name, value in figures.items()))


def machine() -> str:
    """Kind of machine and day."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0))
    kind = f"{cores} cores ({model or platform.machine()})"
    return f"{kind}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"


def intake(messages: int, rounds: int) -> dict[str, float | list[float]]:
    """Messages per second over eight connections, in turns: our listener on PostgreSQL, and hl7apy's server.

    Beside the clock stands the CPU time of each server's process, which other work on the machine disturbs less.
    """
    with (
        postgres_server(durable=True) as database,
        postgres_database(database, "bench") as url,
        listener(url) as ours,
        parsing_server() as theirs,
    ):
        ours.flood("warm", CONNECTIONS * 10)
        theirs.flood("warm", CONNECTIONS * 2)
        measured: dict[Served, list[Speed]] = {ours: [], theirs: []}
        for number in range(rounds):
            for server in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                measured[server].append(server.flood(f"order{number}x", messages))
    ratios = [mine.by_clock / other.by_clock for mine, other in zip(measured[ours], measured[theirs], strict=True)]
    cpu_ratios = [mine.by_cpu / other.by_cpu for mine, other in zip(measured[ours], measured[theirs], strict=True)]
    return {
        "inlay_messages_per_second": _median(each.by_clock for each in measured[ours]),
        "inlay_messages_per_listener_cpu_second": _median(each.by_cpu for each in measured[ours]),
        "hl7apy_messages_per_second": _median(each.by_clock for each in measured[theirs]),
        "hl7apy_messages_per_server_cpu_second": _median(each.by_cpu for each in measured[theirs]),
        "intake_ratio": round(median(ratios), 2),
        "intake_ratio_of_each_round": [round(each, 2) for each in ratios],
        "intake_ratio_by_cpu_of_the_server": round(median(cpu_ratios), 2),
    }


def _median(values: Iterable[float]) -> float:
    return round(median(values), 1)


@dataclass(frozen=True, slots=True)
class Speed:
    """Messages per second, and per second of the server's CPU."""

    by_clock: float
    by_cpu: float


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is measured: its port and process, and whether it wants a connection for each message."""

    port: int
    pid: int
    reconnect: bool = False

    def flood(self, prefix: str, messages: int) -> Speed:
        """Send it that many orders over eight connections at once."""
        before = cpu_seconds(self.pid)
        seconds = flood(self.port, prefix, messages, reconnect=self.reconnect)
        return Speed(messages / seconds, messages / (cpu_seconds(self.pid) - before))


def flood(port: int, prefix: str, messages: int, *, reconnect: bool = False) -> float:
    """Send that many orders over eight connections at once, each after the answer to the last; the seconds it took."""
    barrier = threading.Barrier(CONNECTIONS + 1)
    each = messages // CONNECTIONS
    payloads = [[order_message(f"{prefix}{c}x{n}") for n in range(each)] for c in range(CONNECTIONS)]

    def run(mine: list[bytes]) -> None:
        barrier.wait()
        if reconnect:
            for payload in mine:
                with Wire(port, 60) as wire:
                    _check(wire.ask(payload))
            return
        with Wire(port, 60) as wire:
            for payload in mine:
                _check(wire.ask(payload))

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        running = [pool.submit(run, mine) for mine in payloads]
        barrier.wait()
        begun = time.perf_counter()
        for future in running:
            future.result()
        return time.perf_counter() - begun


def _check(answer: bytes) -> None:
    if b"|AA|" not in answer:
        raise RuntimeError("an order was not taken")


@contextmanager
def listener(database_url: str) -> Iterator[Served]:
    """`inlay listen` on that database."""
    with tempfile.TemporaryDirectory(prefix="inlay-bench-") as home:
        port = free_port()
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "INLAY_HOME": home,
            "INLAY_DATABASE_URL": database_url,
            "INLAY_MLLP_PORT": str(port),
            "INLAY_DICOM_PORT": str(free_port()),
            "INLAY_LOG_LEVEL": "warning",
        }
        inlay = [sys.executable, "-m", "inlay_cli"]
        subprocess.run([*inlay, "db", "upgrade"], env=environment, check=True, stdout=subprocess.DEVNULL)
        with Path(home, "log").open("wb") as log:
            process = subprocess.Popen([*inlay, "listen"], env=environment, stdout=log, stderr=log)
        try:
            _wait(port)
            yield Served(port, process.pid)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def parsing_server() -> Iterator[Served]:
    """hl7apy's own MLLP server, in a process, that parses each message and answers AA."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _HL7APY, str(port)])
    try:
        _wait(port)
        yield Served(port, process.pid, reconnect=True)
    finally:
        process.terminate()
        process.wait(30)


_HL7APY = """
import sys
from hl7apy.mllp import AbstractHandler, MLLPServer
from hl7apy.parser import parse_message

class Taken(AbstractHandler):
    def reply(self):
        control = parse_message(self.incoming_message).msh.msh_10.value
        return "\\x0bMSH|^~\\\\&|A|B|C|D|20260101||ACK^O01^ACK|1|P|2.3.1\\rMSA|AA|" + control + "\\r\\x1c\\r"

MLLPServer("127.0.0.1", int(sys.argv[1]), {"ORM^O01^ORM_O01": (Taken,)}, timeout=60).serve_forever()
"""


def _wait(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads."""
    fields = _lines(f"/proc/{pid}/stat")[0].rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def parsing(rounds: int) -> dict[str, float]:
    """Microseconds per order, alternating in one run: reading and mapping an ORM^O01, and python-hl7's parse alone."""
    raw = order_message("1", reason="Shortness of breath, cough")
    text = raw.decode()
    ours, read_only, theirs = [], [], []
    for _ in range(rounds):
        ours.append(_microseconds(lambda: commands_of(read(raw), RAD_4)))
        read_only.append(_microseconds(lambda: _every_field(raw)))
        theirs.append(_microseconds(lambda: hl7.parse(text)))
    middle = rounds // 2
    inlay, every, python_hl7 = sorted(ours)[middle], sorted(read_only)[middle], sorted(theirs)[middle]
    return {
        "inlay_read_and_map_microseconds": round(inlay, 1),
        "inlay_read_every_field_microseconds": round(every, 1),
        "python_hl7_parse_microseconds": round(python_hl7, 1),
        "parse_and_map_ratio": round(python_hl7 / inlay, 2),
        "parse_ratio": round(python_hl7 / every, 2),
    }


def _every_field(raw: bytes) -> None:
    """Decode the message and split every segment into its fields."""
    for segment in read(raw).segments:
        _ = segment.last


def _microseconds(work: Callable[[], object], times: int = 1500) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begun) / times * 1e6


if __name__ == "__main__":
    main()
