"""Overlap and shape of texts: token-F1, whole sentences, the first sentence after a beginning. Pure."""

import re
from collections import Counter

from inlay_model.phantom.grammar import split_sentences


def tokens_of(text: str) -> list[str]:
    """Words and punctuation marks in lower case: what token-F1 counts, whatever the tokenizers of the models."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def token_f1(reference: str, candidate: str) -> float:
    """F1 of the bags of words and punctuation marks of two texts; two empty texts agree."""
    left, right = Counter(tokens_of(reference)), Counter(tokens_of(candidate))
    if not left and not right:
        return 1.0
    return 2 * (left & right).total() / (left.total() + right.total())


def whole_sentences(text: str) -> bool:
    """Whether a text is nothing but sentences that begin with a capital and end with a full stop."""
    return bool(re.fullmatch(r"([A-Z][^.]*\. ?)+", text))


def first_sentence(text: str, after: str) -> str:
    """The first sentence of a section's text after its given beginning; empty where nothing follows."""
    return next(iter(split_sentences(text[len(after) :])), "")
