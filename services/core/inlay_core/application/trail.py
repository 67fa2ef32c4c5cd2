"""The audit trail as a whole: sealing what was recorded, signing where the chain stands, verifying, exporting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from inlay_core.application.ports import Notary, UnitOfWork
from inlay_core.application.transaction import Act, retried
from inlay_core.domain.audit import Break, Checkpoint, Kind, Tag, Verification
from inlay_core.domain.errors import Invalid, Race
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId


@retried
def seal_trail(uow: UnitOfWork, *, limit: int = 1000) -> int:
    """Chain up to `limit` committed events; return how many. Of several sealers one works, the others get 0."""
    with uow:
        sealed = uow.audit.seal(limit)
        uow.commit()
        return sealed


def verify_trail(uow: UnitOfWork, notary: Notary | None = None, kept: Iterable[str] = ()) -> Verification:
    """Walk the chain; the answer names the first break and counts the events that are not chained yet.

    With a notary the chain is held to the stored checkpoints and to those in `kept`, which were exported before:
    whoever could cut the chain could remove the stored ones. Raises Invalid for a kept one that nobody trusted signed.
    """
    with uow:
        if notary is None:
            return uow.audit.verify()
        # Most of those that were kept are stored as well.
        checkpoints = {notary.read(token) for token in kept}
        for token in uow.audit.checkpoints():
            try:
                checkpoints.add(notary.read(token))
            except Invalid:
                found = uow.audit.verify(checkpoints)
                forged = Break(found.sealed + found.purged, None, "checkpoint-not-signed")
                return replace(found, first_break=found.first_break or forged)
        return uow.audit.verify(checkpoints)


def make_checkpoint(uow: UnitOfWork, clock: Clock, notary: Notary) -> str | None:
    """Sign and store where the chain stands; None where nothing was chained since the last checkpoint."""
    with uow:
        head = uow.audit.head()
        if head is None:
            return None
        checkpoint = Checkpoint(head.position, head.hash, clock())
        token = notary.sign(checkpoint)
        try:
            uow.audit.keep(checkpoint, token)
            uow.commit()
        except Race:
            return None
        return token


def kept_checkpoints(uow: UnitOfWork, actor: Actor) -> Sequence[str]:
    """The stored checkpoints in their signed form, the oldest first."""
    require(actor, Permission.READ_AUDIT)
    with uow:
        return uow.audit.checkpoints()


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
