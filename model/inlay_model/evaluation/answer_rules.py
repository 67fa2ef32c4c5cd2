"""The offline judge of answers: exact where all possible answers of a question are known, strict otherwise. Pure.

Only the first sentence of an answer counts, and only what it commits to: a yes or a no must be its first word, and of
other choices it must name the right one and no other. So neither length nor a list of all choices gains anything. For
questions without known choices only the reference's own words are right, which undercounts free wording: such
questions are for a language model to judge.
"""

import re
from collections.abc import Sequence

from inlay_model.datasets.items import Question, is_yes_or_no
from inlay_model.phantom.questions import YES_NO

_ARTICLES = frozenset({"a", "an", "the"})


def is_right(question: Question, answer: str) -> bool:
    """The verdict on an answer, by the question's choices where it has any."""
    choices = question.choices or (YES_NO if is_yes_or_no(question.answer) else ())
    if not choices:
        return plain(answer) == plain(question.answer)
    said = first_sentence(answer)
    found = plain(said).split()[:1] if choices == YES_NO else [plain(choice) for choice in named(said, choices)]
    return found == [plain(question.answer)]


def first_sentence(text: str) -> str:
    """The first sentence or line of a text; a point within a number ends nothing."""
    return re.split(r"(?<=[.!?])\s+|\n", text.strip(), maxsplit=1)[0]


def named(text: str, choices: Sequence[str]) -> list[str]:
    """The choices that a text names: all of whose words are among its words, in any order.

    A choice whose words are part of another one that is named as well is not counted.
    """
    words = _words(text)
    found = [choice for choice in choices if _words(choice) <= words]
    return [choice for choice in found if not any(_words(choice) < _words(other) for other in found)]


def plain(text: str) -> str:
    """The text without case, punctuation, articles and surplus blanks."""
    return " ".join(word for word in re.findall(r"\w+", text.lower()) if word not in _ARTICLES)


def _words(text: str) -> set[str]:
    return set(plain(text).split())
