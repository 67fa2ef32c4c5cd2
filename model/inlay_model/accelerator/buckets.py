"""Buckets: the few sizes for which graphs are captured. A request runs in the smallest bucket that holds it.

Rows are canvases of a batch, slots the room for a prefix, free the positions at which logits are computed. Sizes are
coarse enough that the usual ones can be warmed at start, and fine enough that little is computed for nothing.
"""

from bisect import bisect_left
from dataclasses import dataclass

from inlay_model.accelerator.weights import Unfit

ROWS = (1, 2, 4, 8, 16)
SLOTS = (512, 1024, 2048, 4096)
# Head, softmax and self-conditioning take about 4 microseconds per position of a 262,144 word vocabulary.
FREE = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
# Prompts are padded to a multiple of this: 16 tokens on average, 5 % of a prompt with an image.
PROMPT_STEP = 32


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """Sizes of one captured pass over canvases."""

    rows: int
    slots: int
    free: int


def bucket_for(rows: int, prefix: int, free: int, canvas: int) -> Bucket:
    """The smallest bucket for so many rows, the longest prefix among them, and all their free positions together."""
    held = _at_least(ROWS, rows, "canvases at a time")
    positions = min(_at_least(FREE, free, "free positions"), held * canvas)
    return Bucket(held, _at_least(SLOTS, prefix, "tokens of a prompt"), positions)


def padded_prompt(length: int) -> int:
    """Tokens that a prompt of this length is padded to."""
    return -(-length // PROMPT_STEP) * PROMPT_STEP


def _at_least(sizes: tuple[int, ...], wanted: int, what: str) -> int:
    at = bisect_left(sizes, wanted)
    if at == len(sizes):
        raise Unfit(f"{wanted} {what} are more than the largest bucket of {sizes[-1]}")
    return sizes[at]
