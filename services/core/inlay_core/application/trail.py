"""The audit trail as a whole: sealing what was recorded, verifying the chain, exporting it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from inlay_core.application.ports import UnitOfWork
from inlay_core.application.transaction import Act, retried
from inlay_core.domain.audit import Kind, Tag, Verification
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId


@retried
def seal_trail(uow: UnitOfWork, *, limit: int = 1000) -> int:
    """Chain up to `limit` committed events; return how many. Of several sealers one works, the others get 0."""
    with uow:
        sealed = uow.audit.seal(limit)
        uow.commit()
        return sealed


def verify_trail(uow: UnitOfWork) -> Verification:
    """Walk the whole chain; the answer names the first break and counts the events that are not chained yet."""
    with uow:
        return uow.audit.verify()


def export_trail(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor) -> Iterator[str]:
    """The trail as JSON lines: every link with its event, then the unsealed tail. The export itself is recorded."""
    require(actor, Permission.READ_AUDIT)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        act.record(Tag.ADMIN_AUDIT_EXPORTED, (Kind.AUDIT, "trail"))
        uow.commit()
    with uow:
        for link, canonical in uow.audit.links():
            event = json.loads(canonical) if canonical is not None else None
            line = {"position": link.position, "previous": link.previous, "hash": link.hash, "event": event}
            yield json.dumps(line, sort_keys=True)
        for unsealed in uow.audit.unsealed():
            yield json.dumps({"position": None, "event": json.loads(unsealed.canonical())}, sort_keys=True)
