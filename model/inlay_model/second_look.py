"""The second look: a text just written is shown to the model once more, half of it hidden, then the other half.

A canvas is written from noise, and what was accepted first was accepted knowing little. Here each half is judged by a
model that sees all the rest clean, in one pass over two canvases. Where it would write something else, it doubts.
"""

import re
from collections.abc import Sequence

import torch

from inlay_model.passes import Passes, View, as_numbers
from inlay_model.tokens import Tokenizer
from inlay_model.transcript import decode

# How much likelier (nats) another token must be than the one that stands written for it to be doubted. In 70 drafts of
# phantoms each garbled sentence had one of 4.8 or more, and one in a hundred of the others one of 3.7 or more.
DOUBTED = 3.0
# The same for the text of a gap, which costs little to write again: of phantoms of seed 1 one garbled by a single word
# ("No bony devices.") had 1.3.
DOUBTED_IN_A_GAP = 1.0

_ENDS = re.compile(r"[.!?][\"')\]»”’]*$")


def regrets(
    canvas_L: torch.Tensor, parts: Sequence[Sequence[int]], vocabulary: int, generator: torch.Generator
) -> Passes[list[float]]:
    """How much likelier (nats) the model finds the best other token than the one written, at the worst of each part.

    `parts` are positions that are hidden together. They are dealt to the two halves in turns, so that neighbours which
    were accepted together without fitting each other are each judged by the other; what is hidden is noise, and all
    else on the canvas stands as it is, locks among it. Zero where the model would write the same again.
    Raises `NotANumber` on NaN logits.
    """
    device = canvas_L.device
    noise_L = torch.randint(vocabulary, canvas_L.shape, generator=generator, device=device)
    hidden_BL = torch.zeros(2, len(canvas_L), dtype=torch.bool, device=device)
    for number, part in enumerate(parts):
        hidden_BL[number % 2, list(part)] = True
    if not bool(hidden_BL.any()):
        return [0.0] * len(parts)
    logits_NV = yield View(torch.where(hidden_BL, noise_L, canvas_L), hidden_BL)
    own_N = canvas_L.expand(2, -1)[hidden_BL]
    regret_N = logits_NV.amax(-1) - logits_NV.gather(-1, own_N.unsqueeze(-1)).squeeze(-1)
    regret_BL = torch.zeros(hidden_BL.shape, device=device).masked_scatter(hidden_BL, regret_N)
    by_position = as_numbers(regret_BL.amax(0).tolist())
    return [max((by_position[at] for at in part), default=0.0) for part in parts]


def sentence_parts(tokenizer: Tokenizer, ids: Sequence[int], begin: int) -> list[range]:
    """Positions of the sentences that these ids make on a canvas from `begin` on; of a single one, each by itself.

    A sentence that is hidden whole is told by the others alone what it ought to say, which shows most. Where there are
    no others, half of its own words have to tell.
    """
    pieces = [decode(tokenizer, [token]) for token in ids]
    cuts = [at for at in range(1, len(ids)) if _ENDS.search(pieces[at - 1]) and pieces[at][:1].isspace()]
    parts = [range(begin + a, begin + b) for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    return parts if cuts else [range(at, at + 1) for at in range(begin, begin + len(ids))]
