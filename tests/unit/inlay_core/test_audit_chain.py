from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.domain.audit import GENESIS, AuditEvent, Kind, Link, Outcome, Tag, event_of, first_break, seal
from inlay_testkit.core import MONDAY, RADIOLOGIST, RIS

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
events = st.builds(
    AuditEvent,
    id=st.uuids(version=4).map(str),
    at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda d: d.replace(tzinfo=MONDAY.tzinfo)),  # noqa: DTZ001
    tag=st.sampled_from(Tag),
    actor_id=names,
    actor_name=names,
    actor_kind=st.just(RIS.kind),
    subject_kind=st.sampled_from(Kind),
    subject_id=names,
    roles=st.just(tuple(sorted(RADIOLOGIST.roles))),
    report_id=st.none() | names,
    version=st.none() | st.integers(1, 99),
    outcome=st.sampled_from(Outcome),
    detail=st.dictionaries(names, st.none() | st.booleans() | st.integers() | names, max_size=3),
    request_id=st.none() | names,
)
chains = st.lists(events, min_size=1, max_size=8, unique_by=lambda event: event.id)


def _chain(trail: list[AuditEvent]) -> list[tuple[Link, str | None]]:
    bodies = [(event.id, event.canonical()) for event in trail]
    return [(link, body) for link, (_, body) in zip(seal(bodies), bodies, strict=True)]


@given(events)
def test_an_event_is_read_back_from_its_canonical_text(event: AuditEvent) -> None:
    """The canonical text is the event: nothing is lost, and it is plain ASCII."""
    text = event.canonical()
    assert AuditEvent.from_canonical(text) == event
    assert text.isascii()
    assert AuditEvent.from_canonical(text).canonical() == text


def test_the_canonical_text_does_not_depend_on_zone_or_order() -> None:
    """The same moment in another zone, and details in another order, are the same text."""
    event = event_of("e", MONDAY, RIS, Tag.INTAKE_ORDER_CREATED, (Kind.ORDER, "o"), detail={"a": 1, "b": 2})
    tokyo = replace(event, at=MONDAY.astimezone(timezone(timedelta(hours=9))), detail={"b": 2, "a": 1})
    assert tokyo.canonical() == event.canonical()


@given(chains)
def test_an_untouched_chain_holds(trail: list[AuditEvent]) -> None:
    """Sealed events verify, whether they were sealed in one batch or one by one."""
    chain = _chain(trail)
    walked, head, broken = first_break(chain)
    assert (walked, head, broken) == (len(trail), chain[-1][0].hash, None)
    links: list[Link] = []
    for event in trail:
        links += seal([(event.id, event.canonical())], len(links), links[-1].hash if links else GENESIS)
    assert links == [link for link, _ in chain]


@given(chains, st.data())
def test_each_kind_of_tampering_is_found_where_it_was_done(trail: list[AuditEvent], data: st.DataObject) -> None:
    """Changing, removing or swapping an event, or a link, breaks the chain at that place."""
    chain = _chain(trail)
    at = data.draw(st.integers(0, len(chain) - 1))
    link, body = chain[at]
    assert body is not None
    tampered: dict[str, list[tuple[Link, str | None]]] = {
        "event-changed": [*chain[:at], (link, body.replace('"outcome"', '"outcame"')), *chain[at + 1 :]],
        "event-missing": [*chain[:at], (link, None), *chain[at + 1 :]],
        "previous-hash-differs": [*chain[:at], (replace(link, previous="f" * 64), body), *chain[at + 1 :]],
    }
    if at < len(chain) - 1:
        tampered["link-missing"] = chain[:at] + chain[at + 1 :]
    for reason, rows in tampered.items():
        walked, _, broken = first_break(rows)
        assert broken is not None
        assert (broken.position, broken.reason, walked) == (at + 1, reason, at)


def test_a_rewritten_link_breaks_the_one_after_it() -> None:
    """Recomputing one hash after a change does not help: the next link does not fit."""
    trail = [event_of(str(n), MONDAY, RIS, Tag.INTAKE_ORDER_CREATED, (Kind.ORDER, "o")) for n in range(3)]
    chain = _chain(trail)
    forged = replace(trail[1], actor_id="somebody-else").canonical()
    (link,) = seal([("1", forged)], 1, chain[0][0].hash)
    _, _, broken = first_break([chain[0], (link, forged), chain[2]])
    assert broken is not None
    assert (broken.position, broken.reason) == (3, "previous-hash-differs")


def test_tags_are_source_subject_action() -> None:
    """Every tag has three parts, and its subject is a kind of record."""
    for tag in Tag:
        source, subject, action = tag.split(":")
        assert source
        assert action
        assert subject in set(Kind)


def test_a_chain_without_links_holds() -> None:
    """An empty trail is whole, and its head is the beginning."""
    assert first_break([]) == (0, GENESIS, None)


@pytest.mark.parametrize("text", ["", "{}", '{"id": 1}', "null"])
def test_unreadable_events_are_errors(text: str) -> None:
    """Text that is no event does not become one."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        AuditEvent.from_canonical(text)
