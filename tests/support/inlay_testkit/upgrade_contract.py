"""What an upgrade from the first schema to the newest promises, on each database alike."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, inspect

from inlay_core.application.drafting import claim_next
from inlay_core.application.trail import seal_trail, verify_trail
from inlay_core.domain.lifecycle import Status
from inlay_core.persistence import schema
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_testkit.core import WORKER, Ward, order_command
from inlay_testkit.first_release import RAW, TEXT, fill_first_release


class UpgradeContract:
    """Subclasses give the fixture `empty`: a database without a schema."""

    @pytest.fixture
    def upgraded(self, empty: Engine) -> Engine:
        """The first release's data under the newest schema."""
        fill_first_release(empty)
        schema.upgrade(empty)
        return empty

    def test_what_the_first_release_stored_is_read_by_todays_code(self, upgraded: Engine) -> None:
        """Reports with their text, orders, patients and messages are as they were; the trail verifies."""
        with SqlUnitOfWork(upgraded, read_only=True) as uow:
            signed, waiting = uow.reports.get("r0"), uow.reports.get("r1")
            assert signed is not None
            assert waiting is not None
            assert (signed.status, waiting.status) == (Status.SIGNED, Status.REGISTERED)
            assert signed.signature is not None
            assert [fragment.text for fragment in signed.sections[0].fragments] == [TEXT]
            order = uow.orders.by_placer("RIS", "P1")
            assert order is not None
            assert (order.patient.identifier, order.steps) == ("MRN1", ())
            assert [message.envelope.raw for message in uow.messages.received()] == [RAW] * 3
            assert [str(event.tag) for event in uow.audit.of_report("r0")] == ["intake:report:registered"]
        found = verify_trail(SqlUnitOfWork(upgraded))
        assert (found.holds, found.sealed, found.unsealed) == (True, 3, 0)

    def test_work_goes_on_where_the_first_release_left_it(self, upgraded: Engine) -> None:
        """Jobs that waited are claimed, new orders come in, and the chain grows from its old end."""
        ward = Ward(SqlUnitOfWork(upgraded), prefix="new")
        claimed = claim_next(*ward.trio, WORKER)
        assert claimed is not None
        assert claimed.job.id.startswith("j")
        ward.receive(order_command("77"))
        seal_trail(ward.uow)
        found = verify_trail(ward.uow)
        assert found.holds
        assert found.sealed > 3

    def test_each_migration_only_adds(self, empty: Engine) -> None:
        """Expand, deploy, contract: no migration takes away a table or column that the code before it reads."""
        known: dict[str, set[str]] = {}
        for revision in schema.revisions():
            schema.upgrade(empty, revision)
            found = {
                name: {column["name"] for column in inspect(empty).get_columns(name)}
                for name in inspect(empty).get_table_names()
            }
            assert not [(t, c) for t, columns in known.items() for c in columns - found.get(t, set())], revision
            known = found

    def test_what_a_migration_adds_to_a_table_may_stay_empty(self, empty: Engine) -> None:
        """Processes of the version before write rows without the new columns, so none of those is demanded."""
        known: dict[str, set[str]] = {}
        for revision in schema.revisions():
            schema.upgrade(empty, revision)
            for table in inspect(empty).get_table_names():
                columns = inspect(empty).get_columns(table)
                demanded = {c["name"] for c in columns if not c["nullable"] and c["default"] is None}
                assert table not in known or not demanded - known[table], (revision, table)
                known[table] = {column["name"] for column in columns}
