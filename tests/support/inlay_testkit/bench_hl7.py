"""HL7 side by side in one run: durable intake and a server that only parses, our reading and python-hl7's.

Run as `python -m inlay_testkit.bench_hl7 [--json]`. The listener is the real process on a PostgreSQL that waits for its
disk; hl7apy's own MLLP server parses and stores nothing, and closes its connection after each message.
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

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
    parser.add_argument("--messages", type=int, default=1600, help="orders for the listener per round")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; the median counts")
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


def intake(messages: int, rounds: int) -> dict[str, float]:
    """Messages per second over eight connections, alternating: our listener on PostgreSQL, and hl7apy's server."""
    fewer = max(messages // 10, CONNECTIONS * 5)
    with (
        postgres_server(durable=True) as server,
        postgres_database(server, "bench") as url,
        listener(url) as (port, pid),
        parsing_server() as other,
    ):
        flood(port, "warm", CONNECTIONS * 10)
        flood(other, "warm", CONNECTIONS * 2, reconnect=True)
        measured = []
        for number in range(rounds):
            before = cpu_seconds(pid)
            ours = messages / flood(port, f"order{number}x", messages)
            per_cpu = messages / (cpu_seconds(pid) - before)
            measured.append((ours, per_cpu, fewer / flood(other, f"order{number}x", fewer, reconnect=True)))
    ours, per_cpu, theirs = (sorted(column)[rounds // 2] for column in zip(*measured, strict=True))
    return {
        "inlay_messages_per_second": round(ours, 1),
        "inlay_messages_per_listener_cpu_second": round(per_cpu, 1),
        "hl7apy_messages_per_second": round(theirs, 1),
        "intake_ratio": round(sorted(each[0] / each[2] for each in measured)[rounds // 2], 2),
    }


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
def listener(database_url: str) -> Iterator[tuple[int, int]]:
    """Port and process id of `inlay listen` on that database."""
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
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def parsing_server() -> Iterator[int]:
    """Port of hl7apy's own MLLP server, in a process, that parses each message and answers AA."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _HL7APY, str(port)])
    try:
        _wait(port)
        yield port
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
