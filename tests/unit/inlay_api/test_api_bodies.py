import json
from typing import Any

import pytest
from flask import Flask, request
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from inlay_api import conditions
from inlay_api.bodies import MAX_DEPTH, parse_object, section_edits, text_list, whole_number
from inlay_api.problems import Refused
from inlay_core.domain.errors import Invalid, Stale

APP = Flask("test")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))


@given(TEXTS)
def test_text_survives_the_body(text: str) -> None:
    """Any text that can be stored is read exactly, escaped or not."""
    for ascii_only in (True, False):
        assert parse_object(json.dumps({"t": text}, ensure_ascii=ascii_only).encode()) == {"t": text}


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_invalid(data: bytes) -> None:
    """No bytes make the reader raise anything but Invalid."""
    try:
        body: object = parse_object(data)
    except Invalid as error:
        body = {"refused at": error.place}
    assert isinstance(body, dict)


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        (b'{"sections": [{"name": "a\\u0000b"}]}', "nul-character", "sections[0].name"),
        (b'{"text": "\\ud800"}', "lone-surrogate", "text"),
        (b'{"Testperson": {"text": "\\udfff"}}', "lone-surrogate", "(key).text"),
        (b'{"a\\u0000": 1}', "nul-character", "(key)"),
        (b'{"reason": "x", "reason": "y"}', "duplicate-key", "body"),
        (b'{"steps": NaN}', "bad-request", "body"),
        (b'{"steps": 1' + b"0" * 5000 + b"}", "bad-request", "body"),
        (b"[1]", "bad-request", "body"),
        (b"", "bad-request", "body"),
        (b'\xef\xbb\xbf{"a": 1}', "bad-request", "body"),
        ('{"a": 1}'.encode("utf-16"), "bad-request", "body"),
        (b'{"a": "\xff"}', "bad-request", "body"),
        (b"[" * 100_000, "bad-request", "body"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "bad-request", "body"),
    ],
)
def test_bodies_that_cannot_be_stored_are_refused(body: bytes, code: str, place: str) -> None:
    """Each is refused with its place; no part of the body stands in the error."""
    with pytest.raises(Invalid) as caught:
        parse_object(body)
    assert (caught.value.code, caught.value.place) == (code, place)
    assert "Testperson" not in str(caught.value)


def test_brackets_in_text_are_no_depth() -> None:
    """Only structure counts as depth, not what stands between quotes."""
    assert parse_object(json.dumps({"t": '\\"[{' * 100}).encode())["t"] == '\\"[{' * 100


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"sections": {}},
        {"sections": ["findings"]},
        {"sections": [{"name": 1, "fragments": []}]},
        {"sections": [{"name": "findings"}]},
        {"sections": [{"name": "findings", "fragments": "text"}]},
        {"sections": [{"name": "findings", "fragments": [1]}]},
        {"sections": [{"name": "findings", "fragments": [{"id": 1}]}]},
        {"sections": [{"name": "findings", "fragments": [{"text": 1}]}]},
        {"sections": [{"name": "findings", "fragments": [{"text": "a", "locked": "yes"}]}]},
        {"sections": [{"name": "findings", "fragments": [{"text": "a"}] * 501}]},
        {"sections": [{"name": "findings", "fragments": []}] * 6},
        {"sections": [{"name": "findings", "fragments": [], "gaps": {}}]},
        {"sections": [{"name": "findings", "fragments": [], "gaps": [1]}]},
        {"sections": [{"name": "findings", "fragments": [], "gaps": [{"hint": "pleura"}]}]},
        {"sections": [{"name": "findings", "fragments": [], "gaps": [{"at": 0, "hint": "a" * 201}]}]},
        {"sections": [{"name": "findings", "fragments": [], "gaps": [{"at": 0}] * 201}]},
        {"sections": [{"name": "findings", "fragments": [{"text": "a" * 50_001}]}]},
    ],
)
def test_edits_of_the_wrong_shape_are_refused(body: dict[str, Any]) -> None:
    """A wrong shape is Invalid with a place, whatever is wrong."""
    with pytest.raises(Invalid) as caught:
        section_edits(body)
    assert (caught.value.place or "").startswith("sections")


@pytest.mark.parametrize("value", ["-1", "1.5", "", "x", "201", 201, True, 1.0, [1], "١", "9" * 5000])
def test_numbers_stay_in_their_range(value: Any) -> None:
    """Only whole numbers of the range are taken, from a query or a body."""
    with pytest.raises(Invalid):
        whole_number(value, "limit", 0, 200, 50)


def test_criteria_are_one_string_or_some() -> None:
    """One value needs no list; more than a handful, or long ones, are refused."""
    assert text_list({"a": "x"}, "a") == ("x",)
    assert text_list({"a": ["x", "y"]}, "a") == ("x", "y")
    for value in (1, [1], ["x"] * 51, ["x" * 257], {"x": 1}):
        with pytest.raises(Invalid):
            text_list({"a": value}, "a")


def asked(**headers: str) -> Any:
    """A request context with these headers."""
    given_headers = Headers([(name.replace("_", "-"), value) for name, value in headers.items()])
    return APP.test_request_context(headers=given_headers)


@pytest.mark.parametrize("header", ['"3"', 'W/"3"', "3", ' "3" '])
def test_a_version_may_be_written_in_three_ways(header: str) -> None:
    """The ETag, FHIR's weak form and the bare number name the same version."""
    with asked(If_Match=header):
        assert conditions.expected_version(request) == 3


@pytest.mark.parametrize(
    ("header", "status"), [("", 428), ("*", 428), ('"x"', 412), ('"3", "4"', 412), ("-3", 412), ('"9999999999"', 412)]
)
def test_a_write_names_one_version(header: str, status: int) -> None:
    """No version, or any version, is 428; what cannot be the newest version is stale."""
    with asked(If_Match=header), pytest.raises((Refused, Stale)) as caught:
        conditions.expected_version(request)
    assert isinstance(caught.value, Refused) == (status == 428)


def test_known_states_are_compared_weakly() -> None:
    """If-None-Match may list several tags, weak ones included."""
    with asked(If_None_Match='"2", W/"3"'):
        assert conditions.is_known(request, '"3"')
        assert not conditions.is_known(request, '"33"')
