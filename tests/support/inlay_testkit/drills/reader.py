"""The drill's radiologist: edits and locks text, asks for infill around it, signs; remembers what was done."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from inlay_cli.demonstration.web import Answer, Caller, Refusal
from inlay_core.application import drafting, editing, signing
from inlay_core.application.ports import ReportSearch, Sort, UnitOfWork
from inlay_core.application.queries import search_reports
from inlay_core.bootstrap import Services
from inlay_core.domain.edits import FragmentEdit, SectionEdit
from inlay_core.domain.errors import DomainError
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.infill import Gap, InfillRequest, InfillSection, LockRef
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.report import Report
from inlay_testkit.core import RADIOLOGIST

SENTENCE = "Written by hand, number {}. "
_PAUSE_SECONDS = 0.2
_WORKLIST = 500


class Radiologist:
    """Takes each drafted report once: of three, one is edited and refilled, one is signed, one is left alone.

    `edits` is what was acknowledged as stored: report -> locked sentence. `signing` are those whose signature was asked
    for: where the answer got lost, it may be there or not.
    """

    def __init__(self, services: Services) -> None:
        self.edits: dict[str, str] = {}
        self.signing: set[str] = set()
        self.refills = 0
        self._services = services
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._work, name="radiologist")

    def end(self) -> None:
        """Go home."""
        self._stop.set()
        if self.thread.is_alive():
            self.thread.join()

    def _work(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            try:
                for report in self._drafted():
                    self._seen.add(report.id)
                    self._take(report)
            except (DomainError, SQLAlchemyError):
                # The database is away, or another writer was first: the next round sees how it stands.
                continue

    def _drafted(self) -> list[Report]:
        search = ReportSearch(statuses=(Status.DRAFTED,))
        page = search_reports(self._services.reader(), RADIOLOGIST, search, sort=Sort.OLDEST, limit=_WORKLIST)
        return [row.report for row in page.rows if row.report.id not in self._seen]

    def _take(self, report: Report) -> None:
        turn = len(self._seen) % 3
        if turn == 0:
            self._refill(self._edit(report))
        elif turn == 1:
            self.signing.add(report.id)
            signing.sign(*self._trio, RADIOLOGIST, report.id, expected_version=report.version)

    def _edit(self, report: Report) -> Report:
        sentence = SENTENCE.format(len(self._seen))
        section = next(section for section in report.sections if section.name == "findings")
        kept = tuple(FragmentEdit(fragment.id) for fragment in section.fragments)
        edit = SectionEdit("findings", (FragmentEdit(text=sentence, locked=True), *kept))
        after = editing.put_fragments(
            *self._trio, RADIOLOGIST, report.id, expected_version=report.version, edits=[edit]
        )
        self.edits[report.id] = sentence
        return after

    def _refill(self, report: Report) -> None:
        locked = next(f for s in report.sections for f in s.fragments if f.locked)
        request = InfillRequest((InfillSection("findings", (LockRef(locked.id), Gap(max_tokens=20))),))
        drafting.request_infill(
            *self._trio,
            RADIOLOGIST,
            report.id,
            expected_version=report.version,
            request=request,
            site=self._services.site,
        )
        self.refills += 1

    @property
    def _trio(self) -> tuple[UnitOfWork, Clock, NewId]:
        return self._services.uow(), self._services.clock, self._services.new_id


class WebRadiologist(Radiologist):
    """The same through the api, as a page does; who gets no answer asks again, and what was refused stays undone."""

    def __init__(self, services: Services, caller: Caller) -> None:
        super().__init__(services)
        self._caller = caller

    def _take(self, report: Report) -> None:
        turn, path = len(self._seen) % 3, f"/api/v1/reports/{report.id}"
        tag = f'"{report.version}"'
        with suppress(Refusal):
            if turn == 0:
                self._edit_and_refill(report.id, path, tag)
            elif turn == 1:
                self.signing.add(report.id)
                self._answered(lambda: self._caller.post(f"{path}/sign", {}, tag))

    def _edit_and_refill(self, report_id: str, path: str, tag: str) -> None:
        sentence = SENTENCE.format(len(self._seen))
        before = self._answered(lambda: self._caller.get(path)).body
        kept = [{"id": each["id"], "locked": each["locked"]} for each in _findings(before)]
        edit = {"sections": [{"name": "findings", "fragments": [{"text": sentence, "locked": True}, *kept]}]}
        after = self._answered(lambda: self._caller.put(f"{path}/fragments", edit, tag))
        self.edits[report_id] = sentence
        locks = [{"lock": each["id"]} for each in _findings(after.body) if each["locked"]]
        asked = {"sections": [{"name": "findings", "items": [*locks, {"gap": {"max_tokens": 20}}]}]}
        self._answered(lambda: self._caller.post(f"{path}/infill", asked, after.etag))
        self.refills += 1

    def _answered(self, ask: Callable[[], Answer]) -> Answer:
        while True:
            try:
                return ask()
            except (OSError, http.client.HTTPException):
                if self._stop.wait(_PAUSE_SECONDS):
                    raise Refusal from None


def _findings(report: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = next(each for each in report["sections"] if each["name"] == "findings")["fragments"]
    return found
