"""Resources that are whole but for a few places: each is taken or refused by its place, and none is our fault."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inlay_testkit.fhir import check
from inlay_testkit.incoming import KINDS, resource, sent

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
WORDS = st.sampled_from(
    [
        "resourceType",
        "identifier",
        "value",
        "system",
        "code",
        "text",
        "part",
        "reference",
        "#p",
        "2026-02-30",
        "http://",
    ]
)
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place of a JSON value below its root."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield (*path, key)
        yield from places(child, (*path, key))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seeds_are_taken(kind: str) -> None:
    """What the fuzzers spoil is whole: it is taken as it is."""
    answer = sent(kind, resource(kind))
    assert 200 <= answer.status < 300, answer.body


@pytest.mark.parametrize("spoiled", [[], {}, [{}], 7])
def test_what_is_no_code_is_refused_where_a_code_belongs(spoiled: Any) -> None:
    """Found by the test below: a list was looked for in a set."""
    body = json.loads(resource("service-request")) | {"intent": spoiled}
    assert 400 <= sent("service-request", json.dumps(body).encode()).status < 500


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KINDS), st.data())
def test_a_resource_with_spoiled_places_is_taken_or_refused(kind: str, data: st.DataObject) -> None:
    """Up to three places hold something else, or are gone: the answer is below 500 and valid FHIR."""
    body = json.loads(resource(kind))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(sorted(places(body), key=repr)))
        parent = body
        for key in path:
            parent = parent[key]
        if data.draw(st.booleans()):
            parent[last] = data.draw(VALUES)
        else:
            del parent[last]
        if not any(places(body)):
            break
    answer = sent(kind, json.dumps(body).encode())
    assert 200 <= answer.status < 500
    said = json.loads(answer.body)
    check(said)
    assert (said["resourceType"] == "OperationOutcome") == (answer.status >= 400)
