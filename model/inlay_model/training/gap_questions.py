"""Questions for the text of a gap, as an autoregressive model is trained to answer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inlay_model.gap_prompt import gap_question
from inlay_model.request import Gap, Item, Lock, Section

Sections = Sequence[tuple[str, Sequence[str]]]


def gap_of(
    sections: Sections, insert: Mapping[tuple[str, int], str], rng: np.random.Generator
) -> tuple[str, tuple[str, ...]]:
    """A question for one to three neighbouring sentences of a report, and these; all others stand in the question.

    `insert` puts foreign sentences before the n-th sentence of a section.
    """
    chosen = int(rng.integers(len(sections)))
    written = sections[chosen][1]
    begin = int(rng.integers(len(written)))
    end = min(len(written), begin + int(rng.integers(1, 4)))
    hole, asked = (chosen, 0), []
    for at, (name, sentences) in enumerate(sections):
        items: list[Item] = []
        for position, sentence in enumerate(sentences):
            if (name, position) in insert:
                items.append(Lock(insert[name, position]))
            if at != chosen or not begin <= position < end:
                items.append(Lock(sentence))
            elif position == begin:
                hole = (at, len(items))
                items.append(Gap())
        asked.append(Section(name, tuple(items)))
    return gap_question(asked, hole), tuple(written[begin:end])
