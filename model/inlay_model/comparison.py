"""What the prompt says of earlier examinations, within a budget of tokens. Pure.

Nothing of it comes back in the answer, and no run record keeps it: it is text about a patient.
"""

import hashlib
from collections.abc import Sequence

from inlay_model.canvas import sentences
from inlay_model.request import Comparison
from inlay_model.tokens import Tokenizer, encode_plain

# About three impressions of a long report; an image takes half as many.
BUDGET = 512
_OPENING = "\nEarlier examinations for comparison, the newest first:"


def compared(tokenizer: Tokenizer, examinations: Sequence[Comparison], budget: int = BUDGET) -> str:
    """A line per examination, with as many whole sentences of its text as fit; empty where there is none.

    A sentence is never cut, because half of one may say the opposite. The first line that does not fit is the last.
    """
    text = _OPENING
    for each in examinations:
        line = _fitting(tokenizer, text, each, budget)
        if line is None:
            break
        text += line
    return text if text != _OPENING else ""


def digest_of_comparison(examinations: Sequence[Comparison]) -> str:
    """Digest of what was to be compared with, empty for nothing: a run record has it in place of the text."""
    said = "\n".join(repr((each.on.isoformat(), each.what, each.text)) for each in examinations)
    return hashlib.sha256(said.encode()).hexdigest() if said else ""


def _fitting(tokenizer: Tokenizer, before: str, one: Comparison, budget: int) -> str | None:
    line = f"\n- {one.on.isoformat()}, {' '.join(one.what.split())}"
    said = sentences(" ".join(one.text.split()))
    for kept in range(len(said), -1, -1):
        whole = f"{line}: {' '.join(said[:kept])}" if kept else line
        if len(encode_plain(tokenizer, before + whole)) <= budget:
            return whole
    return None
