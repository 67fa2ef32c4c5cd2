"""Switches: rows that stop generation at once, for every process; reading and signing go on.

One stops everything (the kill switch); others stop an intended use, a site, a modality or a model, or what has several
of these. They only ever take away from what the settings allow.
"""

from __future__ import annotations

from collections.abc import Sequence

from inlay_core.application.ports import Site, Switch, UnitOfWork
from inlay_core.application.transaction import Act, retried
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.switch import EVERYTHING, Allowance, Scope


def allowance(uow: UnitOfWork, site: Site) -> Allowance:
    """What may be generated now: what the site allows, less what switches stop.

    Raises Invalid for a switch that only a newer version knows: while nobody here knows what it stops, all is stopped.
    """
    stops = [Scope.named(switch.name) for switch in uow.switches.all() if switch.on]
    return Allowance(site.generation.kinds(), tuple(stops))


@retried
def stop_generation(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, scope: Scope = EVERYTHING) -> Switch:
    """Stop what the scope covers: queued jobs wait, running ones go back to the queue between two steps."""
    return _switch(uow, clock, new_id, actor, scope, on=True)


@retried
def resume_generation(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, scope: Scope = EVERYTHING) -> Switch:
    """Turn that switch off again. What the settings or other switches stop stays stopped."""
    return _switch(uow, clock, new_id, actor, scope, on=False)


def switches(uow: UnitOfWork, actor: Actor) -> Sequence[Switch]:
    """Every switch that was ever set, by name; of those that are off it is told who turned them off."""
    require(actor, Permission.READ_SWITCHES)
    with uow:
        return uow.switches.all()


def _switch(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, scope: Scope, *, on: bool) -> Switch:
    require(actor, Permission.SWITCH_GENERATION)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        switch = Switch(scope.name, on, act.now, actor.id)
        uow.switches.save(switch)
        act.record(Tag.ADMIN_SWITCH_STOPPED if on else Tag.ADMIN_SWITCH_STARTED, (Kind.SWITCH, scope.name))
        uow.commit()
        return switch
