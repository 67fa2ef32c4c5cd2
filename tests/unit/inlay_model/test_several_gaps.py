"""Several gaps in one report: what the measure counts, and that nothing is said twice."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from inlay_model import Filled, FilledSection, Gap, Lock, Piece, Section
from inlay_model.call import Call
from inlay_model.canvas import Layout
from inlay_model.evaluation.several_gaps import Judged, Sparse, judge, judged, sparse, summary
from inlay_model.gaps import Scored, Search
from inlay_model.generate import Denoised
from inlay_model.passes import Passes
from inlay_model.tokens import encode_plain
from inlay_testkit.engine import run_record

SEEDS = range(1_000_000, 1_000_030)


def answered(case: Sparse, fills: list[str]) -> Filled:
    """The answer to a request whose gaps in Findings were filled so."""
    left = iter(fills)
    pieces = tuple(
        Piece(item.text, "lock", at) if isinstance(item, Lock) else Piece(next(left), "fill", at)
        for at, item in enumerate(case.sections[0].items)
    )
    return Filled((FilledSection("findings", pieces),), run_record("infill", seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_sentences_are_judged_right(seed: int) -> None:
    """Filled with the sentences that were taken out, every gap is right, and the report reads as the phantom's."""
    case = sparse(seed)
    verdict = judge(answered(case, [f"{' '.join(missing)} " for missing in case.missing]), case)
    assert verdict == Judged(
        gaps=(True,) * len(case.missing),
        stated=True,
        exact=True,
        sentences=verdict.sentences,
        garbled=0,
        doubled=False,
        without_invention=True,
    )


def test_requests_have_several_gaps_and_leave_impression_open_in_half_of_them() -> None:
    """One to four gaps between locks, never two side by side; every second Impression is a gap."""
    cases = [sparse(seed) for seed in SEEDS]
    assert {len(case.missing) for case in cases} >= {1, 2, 3}
    assert sum(isinstance(case.sections[1].items[0], Gap) for case in cases) == len(cases) / 2
    for case in cases:
        gaps = [isinstance(item, Gap) for item in case.sections[0].items]
        assert not any(one and other for one, other in itertools.pairwise(gaps))


def test_empty_garbled_and_repeated_fills_are_counted() -> None:
    """Empty gaps state nothing, a garbled sentence is no sentence of the grammar, a repeated lock is a double."""
    case = next(case for case in map(sparse, SEEDS) if isinstance(case.sections[0].items[0], Lock))
    first = case.sections[0].items[0]
    assert isinstance(first, Lock)
    empty = judge(answered(case, [""] * len(case.missing)), case)
    assert (any(empty.gaps), empty.stated, empty.doubled) == (False, False, False)
    wrong = judge(answered(case, [first.text, *["effusion. "] * (len(case.missing) - 1)]), case)
    assert wrong.doubled
    assert wrong.garbled == len(case.missing) - 1
    figures = summary([empty, wrong])
    assert figures["n"] == 2
    assert figures["missing_stated"] == 0
    assert figures["reports_without_doubles"] == 0.5


class Silent:
    """Answers every gap with nothing."""

    def infill(self, _images: Any, sections: tuple[Section, ...], **_: Any) -> Filled:
        """The locks as they came."""
        return Filled(
            tuple(
                FilledSection(
                    section.name,
                    tuple(
                        Piece(item.text, "lock", at) if isinstance(item, Lock) else Piece("", "fill", at)
                        for at, item in enumerate(section.items)
                    ),
                )
                for section in sections
            ),
            run_record("infill", seed=0),
        )


def test_a_silent_model_fills_no_gap() -> None:
    """The measure asks for one infill a phantom; where nothing is written no gap is right and nothing is doubled."""
    figures = summary(list(judged(Silent(), SEEDS[:3])))  # type: ignore[arg-type]  # all that is asked of a backend
    assert figures["n"] == 3
    assert figures["gaps_right"] == 0
    assert figures["reports_without_doubles"] == 1


def test_a_sentence_that_stands_in_the_section_is_not_written_again(
    engine: Any, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that repeats a locked sentence and adds one: the repetition is left out, the other one stays."""
    ids = encode_plain(engine.checkpoint.tokenizer, " No pneumothorax. The lungs are clear.")

    def first(_: Search) -> Passes[list[tuple[Scored, list[int]]]]:
        yield from ()
        return [(Scored(len(ids), 0.0), [])]

    def denoised(_: Call, layout: Layout, banned_V: torch.Tensor | None = None, __: object = None) -> Passes[Denoised]:
        assert banned_V is not None
        yield from ()
        ((begin, end),) = layout.spans
        ids_BL = torch.tensor([[*layout.ids[:begin], *ids, *layout.ids[end:]]])
        return Denoised(ids_BL, torch.ones_like(ids_BL, dtype=torch.bool), (0.0,), 1)

    monkeypatch.setattr(Search, "first", first)
    monkeypatch.setattr(Call, "denoised", denoised)
    asked = (Section("findings", (Lock("No effusion. "), Gap(), Lock("No pneumothorax. "))),)
    assert engine.infill([image], asked).sections[0].text == "No effusion. The lungs are clear. No pneumothorax. "
    least = (Section("findings", (Gap(min_tokens=len(ids)), Lock("No pneumothorax. "))),)
    assert engine.infill([image], least).sections[0].text.startswith("No pneumothorax. The lungs are clear. ")
