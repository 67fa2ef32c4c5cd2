from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.domain.errors import Invalid
from inlay_core.domain.fragment import Fragment, Origin
from inlay_core.domain.text import refuse_unstorable, sha256_of, split_sentences

pieces = st.sampled_from(
    [
        "Heart is normal",
        ".",
        "!",
        "?",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "1.5 cm",
        "Dr. ",
        "e.g. ",
        "e\u0301",
        "\U0001f600",
        '"',
        ")",
        ".",
    ]
)
texts = st.one_of(st.text(), st.lists(pieces, max_size=25).map("".join))


@given(texts)
def test_cutting_into_sentences_loses_no_byte(text: str) -> None:
    """The sentences joined are the text, and none of them is empty."""
    parts = split_sentences(text)
    assert "".join(parts) == text
    assert all(parts)


@given(texts)
def test_a_sentence_is_not_cut_again(text: str) -> None:
    """Cutting is stable: all but the last sentence end where a cut is, so the cut text has the same cuts."""
    parts = split_sentences(text)
    assert [piece for part in parts for piece in split_sentences(part)] == parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The heart is normal. No effusion.", ["The heart is normal. ", "No effusion."]),
        ("Nodule of 1.5 cm.  Stable.\r\n", ["Nodule of 1.5 cm.  ", "Stable.\r\n"]),
        ("Approx. 3 cm vs. 2 cm. Larger.", ["Approx. 3 cm vs. 2 cm. ", "Larger."]),
        ("Heart\n\nLungs: clear", ["Heart\n\n", "Lungs: clear"]),
        ('He said "stable." Then left.', ['He said "stable." ', "Then left."]),
        ("  leading. x", ["  leading. ", "x"]),
        ("\n\n", ["\n\n"]),
        ("", []),
    ],
)
def test_sentences_of_reports(text: str, expected: list[str]) -> None:
    """A sentence carries the blank that follows it; decimals and abbreviations do not end one."""
    assert split_sentences(text) == expected


@pytest.mark.parametrize("bad", ["a\x00b", "a\ud800b", "\udfff"])
def test_unstorable_text_is_refused_by_its_offset(bad: str) -> None:
    """NUL and lone surrogates are refused, naming the place and never the text."""
    with pytest.raises(Invalid) as refused:
        refuse_unstorable(bad, "here")
    assert refused.value.place == "here"
    assert "offset" in refused.value.message
    assert bad not in str(refused.value)
    with pytest.raises(Invalid):
        Fragment("f", bad, Origin.CLINICIAN)


def test_the_digest_is_of_the_utf8_bytes() -> None:
    """Normal forms that look alike have different digests."""
    assert sha256_of("é") == hashlib.sha256("é".encode()).hexdigest()
    assert sha256_of("\u00e9") != sha256_of("e\u0301")
