"""FHIR beside a bare Flask route in one run: a report is read, with its token checked and the reading recorded.

Run as `python -m inlay_testkit.bench_fhir [--json]`. `inlay serve` is the real process on a PostgreSQL that waits for
its disk. The bare route answers the same bytes, under the same gunicorn with as many threads, and does nothing else.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inlay_testkit.bench_hl7 import cpu_seconds, machine
from inlay_testkit.peers import free_port, postgres_database, postgres_server, running
from inlay_testkit.server import Server

CONNECTIONS = 8
FIRST_READS = 8 * CONNECTIONS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, default=800, help="reads per round and server")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; the median ratio counts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {**reading(options.reads, options.rounds), "machine": machine()}
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        print("\n".join(f"{name:<36} {value}" for name, value in figures.items()))


def reading(reads: int, rounds: int) -> dict[str, Any]:
    """Reads per second over eight connections, alternating: FHIR and the bare route; the median of the ratios.

    One report is read again and again; what the first read of a report takes, its PDF included, is measured besides.
    """
    with (
        tempfile.TemporaryDirectory(prefix="inlay-bench-") as home,
        postgres_server(durable=True) as postgres,
        postgres_database(postgres, "bench") as url,
        serving(Path(home), url) as server,
    ):
        paths = [f"/fhir/DiagnosticReport/{server.site.ward.drafted(str(n)).id}" for n in range(FIRST_READS + 1)]
        path, headers = paths.pop(), {"Authorization": f"Bearer {server.token_of('ehr')}"}
        body = _read(http.client.HTTPConnection("127.0.0.1", server.port), path, headers)
        first = FIRST_READS / _seconds(server.port, paths, headers)
        with bare_route(body, Path(home)) as (port, pid):
            targets = ((server.port, path, _worker(server)), (port, "/report/1", pid))
            for target, of_target, _ in targets:
                _seconds(target, [of_target] * CONNECTIONS * 20, headers)
            before = [cpu_seconds(worker) for *_, worker in targets]
            measured = [
                [reads / _seconds(target, [of_target] * reads, headers) for target, of_target, _ in targets]
                for _ in range(rounds)
            ]
            cpu = [cpu_seconds(worker) - was for (*_, worker), was in zip(targets, before, strict=True)]
        recorded = _recorded(server)
    asked = 1 + FIRST_READS + CONNECTIONS * 20 + reads * rounds
    if recorded != asked:
        raise RuntimeError(f"{asked} reads are not {recorded} records")
    ratios = sorted(ours / bare for ours, bare in measured)
    fhir, bare = (sorted(column)[rounds // 2] for column in zip(*measured, strict=True))
    return {
        "fhir_reads_per_second": round(fhir, 1),
        "bare_flask_per_second": round(bare, 1),
        "read_ratio": round(ratios[rounds // 2], 3),
        "server_cpu_microseconds": [round(each / reads / rounds * 1e6) for each in cpu],
        "cpu_ratio": round(cpu[1] / cpu[0], 3),
        "lowest_and_highest_ratio": [round(ratios[0], 3), round(ratios[-1], 3)],
        "first_reads_per_second": round(first, 1),
        "bytes_per_report": len(body),
    }


@contextmanager
def serving(home: Path, url: str) -> Iterator[Server]:
    """`inlay serve` on that database."""
    server = Server(home, database_url=url, log_level="warning")
    try:
        yield server
    finally:
        server.close()


@contextmanager
def bare_route(body: bytes, folder: Path) -> Iterator[tuple[int, int]]:
    """Port and worker process of a Flask application with one route, in gunicorn as `inlay serve` sets it up."""
    (folder / "body").write_bytes(body)
    port = free_port()
    command = [sys.executable, "-c", _BARE, str(port), str(folder / "body")]
    with running(command, folder / "bare.log", lambda: (folder / "pid").exists() and _listens(port)):
        yield port, int((folder / "pid").read_text(encoding="ascii"))


def _worker(server: Server) -> int:
    """The process that answers."""
    pid = server.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


_BARE = """
import os
import sys
from flask import Flask, Response
from inlay_api.server import Server
from inlay_core.settings import Settings

body = open(sys.argv[2], "rb").read()
app = Flask("bare")

@app.get("/report/<identity>")
def report(identity):
    return Response(body, content_type="application/fhir+json")

class Bare(Server):
    def load(self):
        open(os.path.dirname(sys.argv[2]) + "/pid", "w").write(str(os.getpid()))
        return app

Bare(Settings(http_port=int(sys.argv[1])), 1).run()
"""


def _seconds(port: int, paths: Sequence[str], headers: dict[str, str]) -> float:
    """The time that these reads take over eight connections at once, each after the answer to the last."""
    barrier = threading.Barrier(CONNECTIONS + 1)

    def run(mine: Sequence[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.connect()
        barrier.wait()
        for path in mine:
            _read(connection, path, headers)
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        waiting = [pool.submit(run, paths[n::CONNECTIONS]) for n in range(CONNECTIONS)]
        barrier.wait()
        begun = time.perf_counter()
        for future in waiting:
            future.result()
        return time.perf_counter() - begun


def _read(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> bytes:
    connection.request("GET", path, headers=headers)
    with connection.getresponse() as answer:
        body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"a read was answered {answer.status}")
    return body


def _recorded(server: Server) -> int:
    """How many readings the trail holds."""
    with server.site.services.reader() as uow:
        return sum(str(event.tag) == "reader:report:read" for event in uow.audit.unsealed())


if __name__ == "__main__":
    main()
