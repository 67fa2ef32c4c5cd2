"""Phantoms as examples of what the text alone decides: nothing is seen, Findings stand clean, Impression is open.

Of a report only Impression follows from the rest. Nothing else is left open: what stands in Findings can be guessed
without the image, and from such examples a model would learn to guess.
"""

from __future__ import annotations

import numpy as np

from inlay_model.training.corruption import (
    BoolArray,
    Corruption,
    IntArray,
    TokenText,
    displacement,
    filled,
    misplaced,
    room,
)

# What a canvas holds after its first step, and in a second look.
_PARTLY_RIGHT = 0.5


def concluding(
    text: TokenText, findings: int, canvas: int, corruption: Corruption, eos: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray, BoolArray]:
    """Target, canvas and noise mask, each of shape (canvas,), of a report that begins with so many sentences.

    Those are its Findings. All after them is noise; some of it may be right already, or its length may be wrong.
    """
    begin, end = text.sentences[findings][0], text.sentences[-1][1]
    noise = np.zeros(room(text, canvas), dtype=np.bool_)
    noise[begin:end] = True
    if rng.random() < corruption.shift:
        return misplaced(text, noise, (begin, end), displacement(corruption, rng), canvas, eos)
    if rng.random() < _PARTLY_RIGHT:
        noise &= rng.random(len(noise)) < rng.uniform(0.3, 1.0)
    target = filled(text, canvas, eos)
    return target, target, noise[:canvas]
