"""A new key for messages that are stored already: batch by batch, so that it can be interrupted and taken up again."""

from __future__ import annotations

from inlay_core.application.ports import UnitOfWork
from inlay_core.application.transaction import Act
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId

# Rows per transaction, as in retention: no writer waits for longer than for a few milliseconds.
_BATCH = 200


def reencrypt_messages(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, *, batch: int = _BATCH) -> int:
    """Bring every message under the current key; return how many were not. What is under it stays as it is.

    Raises Invalid without keys, Unavailable for a message whose key is not in the ring: all before it are done then.
    """
    require(actor, Permission.KEEP_RECORDS)
    total, after = 0, ""
    while True:
        with uow:
            done = uow.messages.reencrypt(after, batch)
            if done is None:
                return total
            count, after = done
            act = Act(uow, clock(), new_id, actor)
            act.record(Tag.ADMIN_MESSAGE_REENCRYPTED, (Kind.MESSAGE, "stored"), detail={"count": count})
            uow.commit()
            total += count
