"""Writing from left to right, on tables of logits instead of a model."""

from collections.abc import Callable, Sequence

import pytest
import torch

from inlay_model import Cancelled, NotANumber
from inlay_model.autoregression import Limits, choose, write

VOCABULARY, END = 6, 5


def table(*rows: dict[int, float]) -> Callable[[Sequence[int]], torch.Tensor]:
    """A model that answers the n-th question with the n-th row of logits, zero where nothing is said."""
    left = iter(rows)

    def read(ids: Sequence[int]) -> torch.Tensor:
        logits_V = torch.zeros(VOCABULARY)
        for token, value in next(left).items():
            logits_V[token] = value
        return logits_V

    return read


def limits(least: int = 0, most: int = 9, banned: Sequence[int] = ()) -> Limits:
    """Limits of the little vocabulary."""
    banned_V = torch.zeros(VOCABULARY, dtype=torch.bool)
    banned_V[list(banned)] = True
    return Limits(least, most, frozenset({END}), banned_V)


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def test_it_takes_the_most_likely_token_until_the_turn_ends() -> None:
    """At temperature zero nothing is drawn, and the end of turn is not part of the text."""
    done = write(table({1: 1}, {2: 1}, {END: 1}), [0], limits(), temperature=0, generator=generator())
    assert (done.ids, done.ended, done.passes) == ((1, 2), True, 3)


def test_no_more_than_the_most_and_no_less_than_the_least_is_written() -> None:
    """The turn cannot end before `least` tokens, and stops unended after `most`."""
    early = write(table({END: 2, 3: 1}, {END: 2}), [0], limits(least=1), temperature=0, generator=generator())
    assert (early.ids, early.ended) == ((3,), True)
    late = write(table({1: 1}, {1: 1}), [0], limits(most=2), temperature=0, generator=generator())
    assert (late.ids, late.ended, late.passes) == ((1, 1), False, 2)


def test_what_is_banned_is_never_written() -> None:
    """Not even where the model wants nothing else, at any temperature."""
    for temperature in (0.0, 1.0):
        done = write(
            table({1: 50}, {1: 50}), [0], limits(most=2, banned=[1]), temperature=temperature, generator=generator()
        )
        assert 1 not in done.ids


def test_the_model_is_shown_the_forced_tokens_and_then_each_token_once() -> None:
    """What was read before is remembered by the model, so nothing is shown twice."""
    shown: list[list[int]] = []
    answers = table({1: 1}, {2: 1}, {END: 1})

    def read(ids: Sequence[int]) -> torch.Tensor:
        shown.append(list(ids))
        return answers(ids)

    write(read, [7, 8, 9], limits(), temperature=0, generator=generator())
    assert shown == [[7, 8, 9], [1], [2]]


def test_it_stops_between_two_tokens() -> None:
    """Once the caller says so nothing more is read."""
    told: list[int] = []
    with pytest.raises(Cancelled):
        write(
            table({1: 1}, {1: 1}, {1: 1}),
            [0],
            limits(),
            temperature=0,
            generator=generator(),
            on_token=lambda ids: told.append(len(ids)),
            cancelled=lambda: len(told) == 2,
        )
    assert told == [1, 2]


def test_the_generator_decides_what_is_drawn() -> None:
    """Equal seeds draw equal tokens, and the shares follow the temperature."""
    logits_V = torch.tensor([0.0, 1.0, 2.0])
    one = [choose(logits_V, 1.0, generator(3)) for _ in range(3)]
    assert len(set(one)) == 1
    drawing = generator(4)
    drawn = [choose(logits_V, 1.0, drawing) for _ in range(4000)]
    assert drawn.count(2) / 4000 == pytest.approx(0.665, abs=0.03)
    assert [choose(logits_V, 0.01, drawing) for _ in range(50)] == [2] * 50


def test_nan_logits_are_a_named_error() -> None:
    """Nothing is sampled from garbage."""
    with pytest.raises(NotANumber):
        choose(torch.tensor([0.0, float("nan")]), 0.0, generator())
