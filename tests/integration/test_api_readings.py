"""Readings over the API: what several threads read at once is in the trail together, and before it is shown."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from werkzeug.test import TestResponse

from inlay_core.application import queries
from inlay_core.application.ports import UnitOfWork
from inlay_core.domain.audit import AuditEvent
from inlay_core.domain.errors import Unavailable
from inlay_testkit.web import API, Web

SECONDS = 20


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """An application over a fresh installation."""
    site = Web(tmp_path)
    yield site
    site.site.services.close()


def test_readings_that_wait_are_recorded_together(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one reading is recorded three more come, over the API and FHIR: they are the next record, an event each."""
    report = web.drafted()["id"]
    before = web.site.ward.tags(report).count("reader:report:read")
    token = {"Authorization": f"Bearer {web.token('radiologist')}"}
    first, goes_on = Event(), Event()
    groups: list[int] = []
    record = queries.record_accesses

    def held(uow: UnitOfWork, events: Sequence[AuditEvent]) -> None:
        groups.append(len(events))
        if len(groups) == 1:
            first.set()
            assert goes_on.wait(SECONDS)
        record(uow, events)

    def read(path: str) -> TestResponse:
        return web.app.test_client().get(path, headers=token)

    monkeypatch.setattr(queries, "record_accesses", held)
    paths = [f"{API}/reports/{report}", f"{API}/reports/{report}/checks", f"{API}/reports/{report}/versions"]
    waiting = web.app.extensions["inlay"].readings._together._queue
    with ThreadPoolExecutor(len(paths) + 1) as pool:
        answers = [pool.submit(read, paths[0])]
        assert first.wait(SECONDS)
        answers += [pool.submit(read, path) for path in (*paths[1:], f"/fhir/DiagnosticReport/{report}")]
        tick = Event()
        while len(waiting) < len(paths) and not any(answer.done() for answer in answers):
            tick.wait(0.001)
        goes_on.set()
        assert [answer.result(SECONDS).status_code for answer in answers] == [200] * 4
    assert groups == [1, 3]
    assert web.site.ward.tags(report).count("reader:report:read") == before + 4


def test_what_cannot_be_recorded_is_not_shown(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the trail takes nothing, the reading is refused, and nothing of the report is in the answer."""
    report = web.drafted()
    assert "heart is normal" in web.get(f"/reports/{report['id']}").text

    def away(_uow: UnitOfWork, _events: Sequence[AuditEvent]) -> None:
        raise Unavailable("database-unavailable", "It is away.")

    monkeypatch.setattr(queries, "record_accesses", away)
    answer = web.get(f"/reports/{report['id']}")
    assert answer.status_code == 503
    assert "heart is normal" not in answer.text
