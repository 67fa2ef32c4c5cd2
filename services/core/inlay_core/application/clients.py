"""Systems that prove who they are: an assertion is good once, whichever process it comes to."""

from __future__ import annotations

from datetime import UTC, datetime

from inlay_core.application.ports import UnitOfWork
from inlay_core.application.transaction import retried
from inlay_core.domain.errors import Conflict
from inlay_core.domain.ids import Clock


@retried
def redeem_assertion(uow: UnitOfWork, clock: Clock, issuer: str, jti: str, expires: int) -> None:
    """Note that the assertion was used; raise Conflict when it was before. Those that are over are forgotten.

    `expires` is in seconds since 1970. A leeway of a minute is kept, so that a clock that lags revives nothing.
    """
    now = clock()
    with uow:
        if uow.assertions.is_used(issuer, jti):
            raise Conflict("assertion-used", "The assertion was used before.")
        uow.assertions.add(issuer, jti, datetime.fromtimestamp(expires + 60, UTC))
        uow.assertions.forget(now)
        uow.commit()
