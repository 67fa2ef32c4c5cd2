"""The offline judge of answers: exact where all possible answers of a question are known, strict otherwise. Pure.

A question with known choices is answered rightly by naming the right one and no other. Yes-or-no questions are of that
kind. For other questions, without a judge, only the reference's own words count, which undercounts free wording.
"""

import re
from collections.abc import Sequence

from inlay_model.datasets.items import Question, is_yes_or_no
from inlay_model.phantom.questions import YES_NO

_ARTICLES = frozenset({"a", "an", "the"})
# Also said for yes and no; `there is no ...` and `without ...` are noes.
_NO = frozenset({"no", "not", "none", "without", "absent"})


def is_right(question: Question, answer: str) -> bool:
    """The verdict on an answer, by the question's choices where it has any."""
    choices = question.choices or (YES_NO if is_yes_or_no(question.answer) else ())
    if not choices:
        return plain(answer) == plain(question.answer)
    reference = plain(question.answer)
    return [plain(choice) for choice in named(answer, choices)] == [reference]


def named(answer: str, choices: Sequence[str]) -> list[str]:
    """The choices that an answer names: all of whose words are among its words, in any order.

    Choices that hold another one whole are looked at first, so that `not enlarged` is not `enlarged` as well.
    """
    words = _words(answer)
    if tuple(choices) == YES_NO:
        words = {"no" if word in _NO else word for word in words}
    found = [choice for choice in choices if _words(choice) <= words]
    return [choice for choice in found if not any(_words(choice) < _words(other) for other in found)]


def plain(text: str) -> str:
    """The text without case, punctuation, articles and surplus blanks."""
    return " ".join(word for word in re.findall(r"\w+", text.lower()) if word not in _ARTICLES)


def _words(text: str) -> set[str]:
    return set(plain(text).split())
