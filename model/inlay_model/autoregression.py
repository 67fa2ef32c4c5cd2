"""Writing from left to right: one token after the other until the turn ends. A function of logits; no model in here.

Shape suffix: V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from inlay_model.errors import Cancelled, NotANumber


class NextToken(Protocol):
    """What the loop asks of the model, which remembers what it was shown before."""

    def __call__(self, ids: Sequence[int], /) -> torch.Tensor:
        """Logits (V) of the token after these."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many tokens may be written, which end the turn, and which (true in `banned_V`) must not be written."""

    least: int
    most: int
    ends: frozenset[int]
    banned_V: torch.Tensor


@dataclass(frozen=True, slots=True)
class Written:
    """Tokens that were written, whether the model ended its turn itself, and the passes that it took."""

    ids: tuple[int, ...]
    ended: bool
    passes: int


def write(
    read: NextToken,
    forced: Sequence[int],
    limits: Limits,
    *,
    temperature: float,
    generator: torch.Generator,
    on_token: Callable[[Sequence[int]], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Written:
    """Go on after the forced tokens until the model ends its turn, or has written as much as it may.

    Raises `Cancelled` between two tokens, `NotANumber` on NaN logits.
    """
    ids: list[int] = []
    shown: Sequence[int] = forced
    while len(ids) < limits.most:
        if cancelled is not None and cancelled():
            raise Cancelled("The request was cancelled.")
        logits_V = read(shown).masked_fill(limits.banned_V, -torch.inf)
        if len(ids) < limits.least:
            logits_V[sorted(limits.ends)] = -torch.inf
        token = choose(logits_V, temperature, generator)
        if token in limits.ends:
            return Written(tuple(ids), ended=True, passes=len(ids) + 1)
        ids.append(token)
        shown = [token]
        if on_token is not None:
            on_token(ids)
    return Written(tuple(ids), ended=False, passes=len(ids))


def choose(logits_V: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    """The next token: the most likely one at temperature zero, else one drawn. Raises `NotANumber` on NaN logits."""
    if bool(logits_V.isnan().any()):
        raise NotANumber("The model gave NaN logits; the checkpoint is damaged or its precision does not suffice.")
    if temperature == 0:
        return int(logits_V.argmax())
    shares_V = torch.softmax(logits_V / temperature, dim=-1)
    return int(torch.multinomial(shares_V, 1, generator=generator))
