"""How an autoregressive model is asked to fill a gap: by prompting with the text on both sides of it.

A model that writes from left to right cannot be given locked text to its right, so it is shown the report with the gap
marked and asked for the missing text alone (arXiv 2607.01436, the autoregressive baseline of the infill comparison).
Training and inference build the question here, so that they ask the same.
"""

from collections.abc import Sequence

from inlay_model.prompt import title
from inlay_model.request import Lock, Section

GAP_MARK = "[...]"
_QUESTION = f"Write only the text that is missing at {GAP_MARK}:"


def gap_question(sections: Sequence[Section], hole: tuple[int, int], written: Sequence[str] = ()) -> str:
    """What follows the report's instruction in the prompt: the report with one gap marked, the question before it.

    `hole` is the gap to fill, as (section, item). Gaps before it hold what was `written`, in reading order; later ones
    are left out, as the diffusion engine closes them while it fills an earlier one.
    """
    left = iter(written)
    lines = []
    for number, section in enumerate(sections):
        shown = [title(section.name) + ":"]
        for at, item in enumerate(section.items):
            if isinstance(item, Lock):
                shown.append(item.text)
            elif (number, at) == hole:
                shown.append(GAP_MARK)
            else:
                shown.append(next(left, "") if (number, at) < hole else "")
        lines.append(" ".join(" ".join(shown).split()))
    return "\n".join(["", _QUESTION, *lines])
