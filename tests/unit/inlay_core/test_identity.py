from __future__ import annotations

from itertools import product

import pytest

from inlay_core.domain.errors import Forbidden
from inlay_core.domain.identity import PERMISSIONS, Actor, ActorKind, Permission, Role, may, require, system

P, R = Permission, Role
EVERYBODY = set(Role)

# Who may do what, written out a second time.
EXPECTED: dict[Permission, set[Role]] = {
    P.PLACE_ORDERS: {R.RIS},
    P.READ_REPORTS: EVERYBODY,
    P.READ_ORDERS: EVERYBODY,
    P.READ_JOBS: {R.RADIOLOGIST, R.ADMIN, R.AUDITOR},
    P.EDIT_REPORTS: {R.RADIOLOGIST},
    P.REQUEST_GENERATION: {R.RADIOLOGIST},
    P.CANCEL_JOBS: {R.RADIOLOGIST, R.ADMIN},
    P.SIGN_REPORTS: {R.RADIOLOGIST},
    P.READ_AUDIT: {R.AUDITOR, R.ADMIN, R.RADIOLOGIST},
    P.SUBSCRIBE: {R.EHR, R.RIS, R.ADMIN},
    P.SWITCH_GENERATION: {R.ADMIN},
    P.READ_SWITCHES: {R.RADIOLOGIST, R.ADMIN, R.AUDITOR},
    P.ADMINISTER: {R.ADMIN},
    P.READ_USAGE: {R.ADMIN, R.AUDITOR},
    P.MANAGE_READER_STUDIES: {R.ADMIN},
    P.GRADE_DRAFTS: {R.RADIOLOGIST},
    P.GENERATE: set(),
    P.DELIVER: set(),
    P.MANAGE_DELIVERIES: {R.ADMIN},
    P.REPLAY_MESSAGES: {R.ADMIN},
    P.KEEP_RECORDS: {R.ADMIN},
}


@pytest.mark.parametrize(("role", "permission"), list(product(Role, Permission)))
def test_each_role_may_do_what_the_table_says(role: Role, permission: Permission) -> None:
    """A person with one role has exactly the permissions of that role."""
    person = Actor("p", "P", frozenset({role}))
    assert may(person, permission) is (role in EXPECTED[permission])
    assert PERMISSIONS[permission] == EXPECTED[permission]


@pytest.mark.parametrize("permission", [P.EDIT_REPORTS, P.SIGN_REPORTS, P.GRADE_DRAFTS])
def test_a_system_never_edits_or_signs(permission: Permission) -> None:
    """Even a system that was given the radiologist's role can neither edit nor sign."""
    machine = Actor("m", "M", frozenset(Role), ActorKind.SYSTEM)
    with pytest.raises(Forbidden) as refused:
        require(machine, permission)
    assert refused.value.code == "not-permitted"


def test_only_our_own_processes_generate_and_deliver() -> None:
    """Worker and relay act without roles; nobody from outside can act as one of them."""
    worker = system("worker")
    everything = Actor("x", "X", frozenset(Role))
    for permission in (P.GENERATE, P.DELIVER):
        assert may(worker, permission)
        assert not may(everything, permission)
    for permission in (P.SIGN_REPORTS, P.EDIT_REPORTS, P.PLACE_ORDERS, P.READ_AUDIT, P.SWITCH_GENERATION):
        assert not may(worker, permission)


def test_nobody_without_a_role_may_do_anything() -> None:
    """A person whose token carries no role is let in nowhere."""
    assert not any(may(Actor("x", "X"), permission) for permission in Permission)
