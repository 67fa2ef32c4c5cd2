"""What letting go of old rows promises, on the fake and on each real database alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from joserfc.jwk import ECKey

from inlay_core.application import publishing, retention, signing
from inlay_core.application.exporting import Batch, batch_refused, batch_taken, claim_batch
from inlay_core.application.ports import (
    Action,
    Aged,
    Delivery,
    Destination,
    NewUnitOfWork,
    ReportSearch,
    Sort,
    StepProgress,
)
from inlay_core.application.retention import purge_rows, purge_trail
from inlay_core.application.trail import make_checkpoint, seal_trail, verify_trail
from inlay_core.domain.errors import Forbidden, Invalid
from inlay_core.domain.lifecycle import UNSIGNED_STATUSES
from inlay_core.domain.report import Report
from inlay_core.notary import JwsNotary
from inlay_testkit.core import ADMIN, AUDITOR, RADIOLOGIST, RELAY, StillClock, Ward, order_command

DAY = 86_400.0


def a_notary() -> JwsNotary:
    """A notary with a key of its own."""
    key = ECKey.generate_key("P-256", private=True)
    key.ensure_kid()
    return JwsNotary(key)


NOTARY = a_notary()


class RetentionContract:
    """Subclasses give the fixture `new_uow`."""

    @pytest.fixture
    def ward(self, new_uow: NewUnitOfWork) -> Ward:
        """A ward with one open and one signed report, a hundred days ago."""
        ward = Ward(new_uow(), StillClock())
        self.sign(ward, ward.drafted("1"))
        ward.drafted("2")
        ward.clock.advance(100 * DAY)
        return ward

    @staticmethod
    def sign(ward: Ward, report: Report) -> Report:
        """Make it final."""
        return signing.sign(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version)

    @staticmethod
    def purge(ward: Ward, kind: Aged, *, days: int = 90, dry_run: bool = False) -> retention.Purged:
        """Let go."""
        return purge_rows(*ward.trio, ADMIN, kind, days=days, dry_run=dry_run)

    def test_messages_of_open_reports_stay(self, ward: Ward, new_uow: NewUnitOfWork) -> None:
        """Of two old messages the one whose report is signed goes; a dry run says so and changes nothing."""
        dry = self.purge(ward, Aged.MESSAGES, dry_run=True)
        assert (dry.count, dry.spared) == (1, 1)
        with new_uow() as uow:
            assert len(uow.messages.received()) == 2
        assert self.purge(ward, Aged.MESSAGES) == dry
        with new_uow() as uow:
            (kept,) = uow.messages.received()
        assert len(kept.order_ids) == 1
        assert self.purge(ward, Aged.MESSAGES).count == 0

    def test_young_rows_stay(self, ward: Ward) -> None:
        """What is younger than the term is not looked at."""
        for kind in Aged:
            found = self.purge(ward, kind, days=101)
            assert (found.count, found.spared) == (0, 0)

    def test_a_purge_goes_on_past_what_it_spares(self, ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
        """Batches that consist of spared rows only do not end it."""
        monkeypatch.setattr(retention, "BATCH", 1)
        ward.clock.advance(-50 * DAY)
        self.sign(ward, ward.drafted("3"))
        ward.clock.advance(100 * DAY)
        found = self.purge(ward, Aged.MESSAGES)
        assert (found.count, found.spared) == (2, 1)

    def test_jobs_that_wrote_a_text_stay(self, ward: Ward, new_uow: NewUnitOfWork) -> None:
        """A job with a run record says which model wrote what; one without a result goes when its report is closed."""
        ward.clock.advance(-100 * DAY)
        report = ward.order("3")
        ward.receive(order_command("3", action=Action.CANCEL))
        ward.clock.advance(100 * DAY)
        found = self.purge(ward, Aged.JOBS)
        assert found.count == 1
        with new_uow() as uow:
            assert uow.jobs.of_report(report.id) == []

    def test_what_was_delivered_goes_and_what_was_not_stays(self, ward: Ward, new_uow: NewUnitOfWork) -> None:
        """Delivered items of the outbox are let go; what still waits or was given up stays."""
        items = publishing.claim_deliveries(new_uow(), ward.clock, Destination.CELERY, limit=10)
        publishing.delivered(*ward.trio, RELAY, items[0].id)
        with new_uow() as uow:
            before = uow.outbox.count()
        ward.clock.advance(100 * DAY)
        assert self.purge(ward, Aged.OUTBOX).count == 1
        with new_uow() as uow:
            after = uow.outbox.count()
        assert after.get((Destination.CELERY, Delivery.DELIVERED), 0) == 0
        assert after[Destination.CELERY, Delivery.PENDING] == before[Destination.CELERY, Delivery.PENDING]

    def test_each_batch_is_in_the_trail(self, ward: Ward, new_uow: NewUnitOfWork) -> None:
        """Who let what go, how much and up to when is recorded with it; a dry run records nothing."""
        self.purge(ward, Aged.MESSAGES, dry_run=True)
        self.purge(ward, Aged.MESSAGES)
        with new_uow() as uow:
            told = [event for event in uow.audit.unsealed() if event.tag == "admin:message:purged"]
        (event,) = told
        assert (event.actor_id, event.detail) == (ADMIN.id, {"count": 1, "until": "2026-03-02"})

    def test_only_an_administrator_may(self, ward: Ward) -> None:
        """The auditor, who reads the trail, does not let it go."""
        with pytest.raises(Forbidden):
            purge_rows(*ward.trio, AUDITOR, Aged.MESSAGES, days=1, dry_run=True)
        with pytest.raises(Forbidden):
            purge_trail(ward.uow, ward.uow, *ward.trio[1:], AUDITOR, NOTARY, days=1, dry_run=True)

    def test_the_rest_of_the_trail_verifies_after_a_purge(
        self, new_uow: NewUnitOfWork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The beginning goes behind a signed cut, in several batches; the rest holds, and grows on."""
        monkeypatch.setattr(retention, "BATCH", 3)
        ward = Ward(new_uow(), StillClock())
        self.sign(ward, ward.drafted("1"))
        _seal(ward)
        make_checkpoint(ward.uow, ward.clock, NOTARY)
        old = verify_trail(ward.uow, NOTARY).sealed
        ward.clock.advance(100 * DAY)
        self.sign(ward, ward.drafted("2"))
        _seal(ward)
        total = verify_trail(ward.uow, NOTARY).sealed
        dry = self.cut(ward, new_uow, dry_run=True)
        assert dry.count == old
        assert verify_trail(ward.uow, NOTARY).sealed == total
        assert self.cut(ward, new_uow) == dry
        found = verify_trail(ward.uow, NOTARY)
        assert (found.holds, found.purged, found.sealed) == (True, old, total - old)
        _seal(ward)
        grown = verify_trail(ward.uow, NOTARY)
        assert (grown.holds, grown.unsealed, grown.sealed) == (True, 0, total - old + 1)
        assert not verify_trail(ward.uow).holds, "without the key nobody can tell a cut from a loss"

    def test_a_purge_that_was_interrupted_is_ended_by_the_next(
        self, new_uow: NewUnitOfWork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the cut is signed the chain holds at every moment; the next run removes what was left."""
        ward = Ward(new_uow(), StillClock())
        self.sign(ward, ward.drafted("1"))
        ward.clock.advance(100 * DAY)
        self.sign(ward, ward.drafted("2"))
        _seal(ward)

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(retention, "_remove_links", killed)
            with pytest.raises(KeyboardInterrupt):
                self.cut(ward, new_uow)
        found = verify_trail(ward.uow, NOTARY)
        assert found.holds
        assert found.purged
        assert self.cut(ward, new_uow).count == 0
        with new_uow() as uow:
            assert next(uow.audit.links())[0].position == found.purged + 1

    def test_the_trail_of_an_open_report_stays(self, ward: Ward, new_uow: NewUnitOfWork) -> None:
        """The cut ends before the first event of a report that nobody has answered for."""
        _seal(ward)
        with new_uow() as uow:
            (opened,) = uow.reports.search(ReportSearch(statuses=tuple(UNSIGNED_STATUSES)), Sort.OLDEST, 0, 10).rows
        before = ward.tags(opened.report.id)
        assert self.cut(ward, new_uow).count
        assert ward.tags(opened.report.id) == before

    def test_what_a_receiver_has_not_got_stays(self, new_uow: NewUnitOfWork) -> None:
        """The trail is not let go before it was exported."""
        ward = Ward(new_uow(), StillClock())
        self.sign(ward, ward.drafted("1"))
        _seal(ward)
        ward.clock.advance(100 * DAY)
        assert claim_batch(new_uow(), ward.clock, "archive", limit=1, lease_seconds=1) is not None
        assert self.cut(ward, new_uow).count == 0

    def test_a_receiver_goes_on_where_it_was(self, new_uow: NewUnitOfWork) -> None:
        """One sender at a time; what was taken is not due again, what was refused or left by a dead sender is."""
        ward = Ward(new_uow(), StillClock())
        ward.receive(order_command("1"))
        _seal(ward)

        def claim() -> Batch | None:
            return claim_batch(new_uow(), ward.clock, "archive", limit=2, lease_seconds=60)

        first = claim()
        assert first is not None
        assert [position for position, _ in first.events] == [1, 2]
        assert claim() is None, "another sender is at it"
        batch_refused(new_uow(), first)
        again = claim()
        assert again is not None
        assert again.events == first.events
        batch_taken(new_uow(), again)
        second = claim()
        assert second is not None
        assert second.after == 2
        ward.clock.advance(61)
        taken_over = claim()
        assert taken_over is not None
        assert taken_over.events == second.events
        batch_taken(new_uow(), second)
        assert claim() is None, "the lease of a sender that is late is no longer its own"

    def test_a_broken_trail_is_not_cut(self, new_uow: NewUnitOfWork, tamper: Callable[[], None]) -> None:
        """A cut would hide where the chain breaks: nothing is let go."""
        ward = Ward(new_uow(), StillClock())
        self.sign(ward, ward.drafted("1"))
        _seal(ward)
        ward.clock.advance(100 * DAY)
        tamper()
        with pytest.raises(Invalid) as refused:
            self.cut(ward, new_uow)
        assert refused.value.code == "trail-broken"

    @staticmethod
    def cut(ward: Ward, new_uow: NewUnitOfWork, *, dry_run: bool = False) -> retention.Purged:
        """Let the beginning of the trail go."""
        return purge_trail(new_uow(), new_uow(), *ward.trio[1:], ADMIN, NOTARY, days=90, dry_run=dry_run)


def _seal(ward: Ward) -> None:
    while seal_trail(ward.uow):
        pass


def put_canvas(ward: Ward, job_id: str) -> None:
    """A canvas of a job, as of now."""
    with ward.uow as uow:
        uow.progress.put(StepProgress(job_id, 1, 2, "text", (), 1), ward.clock())
        uow.commit()
