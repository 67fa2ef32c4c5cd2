"""The day's radiologists: they poll the worklist over HTTP, read drafts, lock a sentence, resubmit, and sign.

Everything goes through the API with a token of their own, over a connection that stays open, as a browser's does.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inlay_cli.demonstration.web import Caller
from inlay_testkit.day.plan import PlannedStudy

SENTENCE = "Written by hand, number {}. "
# Real time, however compressed the day is: as often as a page asks on a busy screen.
POLL_SECONDS = 1.0
_WORKLIST = "/api/v1/reports?status=drafted&sort=worklist&limit=50"
_STREAM_SECONDS = 120.0
_TIMEOUT_SECONDS = 60.0

Took = Callable[[str, float], None]
"""Notes that a stage took so many seconds."""


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answered {status}")
        self.status = status


class Screen:
    """One person's connection. Not for several threads at once."""

    def __init__(self, port: int, token: str) -> None:
        self.caller = Caller("127.0.0.1", port, token)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, str]:
        """Status (2xx or 304), body and ETag; raises Refused."""
        payload = None if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items() if value}
        content = {} if body is None else {"Content-Type": "application/json"}
        for again in (True, False):
            try:
                self._connection.request(method, path, payload, self._headers | content | given)
                answer = self._connection.getresponse()
                text = answer.read()
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # The server may close a connection between two requests; one that was sent twice meets its ETag.
                self._connection.close()
                if not again:
                    raise
        if not 200 <= answer.status < 300 and answer.status != 304:
            raise Refused(answer.status)
        return answer.status, json.loads(text) if text else None, answer.getheader("ETag", "")

    def close(self) -> None:
        """Switch it off."""
        self._connection.close()


class Readers:
    """Several radiologists who share one worklist: each draft is taken by one of them, the most urgent first.

    `edits` are sentences that were acknowledged as stored, by report; `signing` the reports whose signature was asked.
    """

    def __init__(self, port: int, tokens: Sequence[str], studies: Sequence[PlannedStudy], took: Took) -> None:
        self.edits: dict[str, str] = {}
        self.signing: set[str] = set()
        self.read = 0
        self.infills = 0
        self.failure: BaseException | None = None
        self._port = port
        self._took = took
        self._plans = {f"ACC{study.number}": study for study in studies}
        self._taken: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(token,), name="reader") for token in tokens]

    @property
    def is_done(self) -> bool:
        """Whether every study of the plan was read; raises what kept somebody from it."""
        if self.failure is not None:
            raise self.failure
        return self.read == len(self._plans)

    def start(self) -> None:
        """Come to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Go home, after what is on the screen."""
        self._stopped.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _work(self, token: str) -> None:
        screen, tag = Screen(self._port, token), ""
        try:
            while not self._stopped.is_set():
                status, page, tag = self._timed("worklist read", screen, _WORKLIST, If_None_Match=tag)
                row = self._choose(page["reports"]) if status == 200 else None
                if row is None:
                    self._stopped.wait(POLL_SECONDS)
                    continue
                # The same worklist may hold another draft that nobody has taken.
                tag = ""
                self._read(screen, row)
        except BaseException as failure:  # noqa: BLE001 - the main thread raises it
            self.failure = failure
        finally:
            screen.close()

    def _choose(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        with self._lock:
            for row in rows:
                if row["id"] not in self._taken:
                    self._taken.add(row["id"])
                    return row
        return None

    def _read(self, screen: Screen, row: Mapping[str, Any]) -> None:
        plan, path = self._plans[row["order"]["accession_number"]], f"/api/v1/reports/{row['id']}"
        _, report, tag = self._timed("report read", screen, path)
        _, report, tag = screen.ask("POST", f"{path}/open", {}, If_Match=tag)
        for number in range(plan.infills):
            report, tag = self._resubmit(screen, path, report, tag, number)
        if plan.is_signed:
            self.signing.add(report["id"])
            self._timed("sign", screen, f"{path}/sign", "POST", {}, If_Match=tag)
        with self._lock:
            self.read += 1

    def _resubmit(self, screen: Screen, path: str, report: Any, tag: str, number: int) -> tuple[Any, str]:
        """Lock a sentence by hand and have the rest of the findings written again around what is locked."""
        sentence = SENTENCE.format(f"{report['id'][:8]}-{number}")
        kept = [{"id": each["id"], "locked": each["locked"]} for each in _findings(report)]
        edit = {"name": "findings", "fragments": [{"text": sentence, "locked": True}, *kept]}
        _, report, tag = self._timed("edit", screen, f"{path}/fragments", "PUT", {"sections": [edit]}, If_Match=tag)
        self.edits[report["id"]] = sentence
        locks = [{"lock": each["id"]} for each in _findings(report) if each["locked"]]
        asked = {"sections": [{"name": "findings", "items": [*locks, {"gap": {"max_tokens": 20}}]}]}
        began = time.perf_counter()
        _, job, _ = screen.ask("POST", f"{path}/infill", asked, If_Match=tag)
        self._watch(screen, job["id"], began)
        self.infills += 1
        _, report, tag = self._timed("report read", screen, path)
        return report, tag

    def _watch(self, screen: Screen, job_id: str, began: float) -> None:
        is_first = True
        for name, _ in screen.caller.events(f"/api/v1/jobs/{job_id}/events", _STREAM_SECONDS):
            if name == "step" and is_first:
                self._took("infill to first canvas", time.perf_counter() - began)
                is_first = False
        self._took("infill to last event", time.perf_counter() - began)

    def _timed(
        self, stage: str, screen: Screen, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[int, Any, str]:
        began = time.perf_counter()
        answer = screen.ask(method, path, body, **headers)
        self._took(stage, time.perf_counter() - began)
        return answer


def _findings(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    fragments: list[dict[str, Any]] = next(each for each in report["sections"] if each["name"] == "findings")[
        "fragments"
    ]
    return fragments
