"""Several texts for a gap: different ones, ranked, the first one filled in, the same again for the same seed."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from inlay_model import (
    BadRequest,
    Engine,
    Filled,
    Gap,
    GenerationSettings,
    InfillRequest,
    Lock,
    Section,
)
from inlay_model.loading import default_checkpoint
from inlay_model.phantom.render import phantom

ONE = (Section("findings", (Lock("The heart is normal. "), Gap(max_tokens=6), Lock("No pneumothorax. "))),)
SEVERAL = (
    Section("findings", (Gap(2, 4), Lock("No effusion. "), Gap(max_tokens=3))),
    Section("impression", (Gap(max_tokens=5),)),
)
THREE = GenerationSettings(steps=3, seed=4, alternatives=3)


def check(answer: Filled, sections: tuple[Section, ...], wanted: int) -> None:
    """Each gap in order has at most so many different texts, best first, of which it holds the first."""
    gaps = [(part.name, at) for part in sections for at, item in enumerate(part.items) if isinstance(item, Gap)]
    assert [(choice.section, choice.item) for choice in answer.alternatives] == gaps
    pieces = {(part.name, piece.item): piece.text for part in answer.sections for piece in part.pieces}
    for choice in answer.alternatives:
        texts = [one.text for one in choice.texts]
        assert 1 <= len(texts) == len(set(texts)) <= wanted
        assert all(a.score >= b.score for a, b in itertools.pairwise(choice.texts))
        assert pieces[choice.section, choice.item].strip() == texts[0]


@pytest.mark.parametrize("sections", [ONE, SEVERAL])
def test_gaps_have_different_texts_of_which_the_first_is_filled_in(engine: Any, sections: tuple[Section, ...]) -> None:
    """One gap or several, bounded or at the end; and the same again for the same seed."""
    answer = engine.infill(None, sections, settings=THREE)
    check(answer, sections, 3)
    assert engine.infill(None, sections, settings=THREE).alternatives == answer.alternatives


def test_one_text_is_no_choice(engine: Any) -> None:
    """Where one text is asked for there are no alternatives; none at all is refused."""
    assert engine.infill(None, ONE, settings=GenerationSettings(steps=3)).alternatives == ()
    with pytest.raises(BadRequest):
        GenerationSettings(alternatives=0)


def test_the_shipped_checkpoint_offers_whole_sentences(image: np.ndarray) -> None:
    """A gap, and sections left open at the end, get whole sentences; more than one text where it is not sure."""
    torch.manual_seed(0)
    engine = Engine.load(default_checkpoint(), device="cpu")
    gap = (Section("findings", (Lock("The heart is normal in size. "), Gap(), Lock("No pneumothorax. "))),)
    ends = (Section("findings", (Gap(), Lock("No pneumothorax. "), Gap())), Section("impression", (Gap(),)))
    settings = GenerationSettings(steps=8, alternatives=3)
    seeds = range(1_000_502, 1_000_506)
    asked = [InfillRequest([phantom(seed).image], sections, settings) for seed in seeds for sections in (gap, ends)]
    answers = engine.batch(asked)
    found: list[int] = []
    for request, answer in zip(asked, answers, strict=True):
        assert isinstance(answer, Filled)
        check(answer, request.sections, 3)
        assert all(one.text.endswith(".") or not one.text for choice in answer.alternatives for one in choice.texts)
        found += [len(choice.texts) for choice in answer.alternatives]
    assert max(found) > 1
