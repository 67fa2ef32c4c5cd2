"""The kill switch: a row that stops all generation at once, for every process; reading and signing go on."""

from __future__ import annotations

from typing import Final

from inlay_core.application.ports import Site, Switch, UnitOfWork
from inlay_core.application.transaction import Act, retried
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.job import JobKind

GENERATION: Final = "generation"
"""The switch that, when it is on, stops all generation."""


def running_kinds(uow: UnitOfWork, site: Site) -> frozenset[JobKind]:
    """The kinds of job that may run now: what the site allows, and none at all while the switch is on."""
    switch = uow.switches.get(GENERATION)
    return frozenset() if switch is not None and switch.on else site.generation.kinds()


@retried
def stop_generation(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor) -> Switch:
    """Stop all generation: queued jobs wait, running ones go back to the queue between two steps."""
    return _switch(uow, clock, new_id, actor, on=True)


@retried
def resume_generation(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor) -> Switch:
    """Let generation go on (where the settings allow it)."""
    return _switch(uow, clock, new_id, actor, on=False)


def _switch(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, *, on: bool) -> Switch:
    require(actor, Permission.SWITCH_GENERATION)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        switch = Switch(GENERATION, on, act.now, actor.id)
        uow.switches.save(switch)
        act.record(Tag.ADMIN_SWITCH_STOPPED if on else Tag.ADMIN_SWITCH_STARTED, (Kind.SWITCH, GENERATION))
        uow.commit()
        return switch
