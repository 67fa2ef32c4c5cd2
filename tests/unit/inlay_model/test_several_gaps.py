"""Several gaps in one report: what the measure counts, and that nothing is said twice."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from inlay_model import Filled, FilledSection, Gap, GenerationSettings, Lock, Piece, Section
from inlay_model.call import Call
from inlay_model.canvas import Layout, encode_fragment, fill
from inlay_model.evaluation.several_gaps import Judged, Sparse, Written, judge, judged, sparse, summary, table
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
    (end,) = case.sections[1].items
    concluded = Piece(end.text, "lock", 0) if isinstance(end, Lock) else Piece(case.conclusion or "", "fill", 0)
    sections = (FilledSection("findings", pieces), FilledSection("impression", (concluded,)))
    return Filled(sections, run_record("infill", seed=0))


@pytest.mark.parametrize("written", [Written.FEW, Written.ONE])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_sentences_are_judged_right(seed: int, written: Written) -> None:
    """Filled with the sentences that were taken out, every gap is right, and the report reads as the phantom's."""
    case = sparse(seed, written)
    verdict = judge(answered(case, [f"{' '.join(missing)} " for missing in case.missing]), case)
    assert verdict == Judged(
        gaps=(True,) * len(case.missing),
        stated=True,
        exact=True,
        sentences=verdict.sentences,
        garbled=0,
        doubled=False,
        without_invention=True,
        concluded=True if seed % 2 else None,
    )


def test_requests_have_several_gaps_and_leave_impression_open_in_half_of_them() -> None:
    """One to four gaps between locks, never two side by side; every second Impression is a gap."""
    cases = [sparse(seed) for seed in SEEDS]
    assert {len(case.missing) for case in cases} >= {1, 2, 3}
    assert sum(isinstance(case.sections[1].items[0], Gap) for case in cases) == len(cases) / 2
    for case in cases:
        gaps = [isinstance(item, Gap) for item in case.sections[0].items]
        assert not any(one and other for one, other in itertools.pairwise(gaps))


def test_of_findings_one_sentence_may_stand_or_a_few_that_are_all_there_is() -> None:
    """One lock with gaps around, or locks alone and an open Impression, which is judged by the reference's."""
    for seed in SEEDS:
        locks = [item for item in sparse(seed, Written.ONE).sections[0].items if isinstance(item, Lock)]
        assert len(locks) == 1
        case = sparse(seed, Written.FEW_AND_NO_GAP)
        assert not case.missing
        assert not any(isinstance(item, Gap) for item in case.sections[0].items)
        assert isinstance(case.sections[1].items[0], Gap)
        assert judge(answered(case, []), case).concluded
        garbled = replace(case, conclusion="BonesImpression: Normal.")
        assert not judge(answered(garbled, []), case).concluded


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
    figures = {
        written: summary(list(judged(Silent(), SEEDS[:3], written)))  # type: ignore[arg-type]  # all that is asked of it
        for written in Written
    }
    assert figures[Written.FEW]["n"] == 3
    assert figures[Written.FEW]["gaps_right"] == 0
    assert figures[Written.FEW]["reports_without_doubles"] == 1
    assert figures[Written.FEW_AND_NO_GAP]["impressions_right"] == 0
    rows = table(figures).splitlines()
    assert {row.count("|") for row in rows} == {5}
    assert rows[-1].endswith("0.000 of 3 |")
    assert "| – |" in rows[3]


def write(engine: Any, monkeypatch: pytest.MonkeyPatch, *texts: str) -> int:
    """Have the model write these texts one after the other, then the last of them always; the most tokens of one."""
    control = engine.checkpoint.control
    written = [encode_plain(engine.checkpoint.tokenizer, f" {text}") for text in texts]
    coming = itertools.chain(written, itertools.repeat(written[-1]))
    longest = max(len(ids) for ids in written)

    def first(_: Search) -> Passes[list[tuple[Scored, list[int]]]]:
        yield from ()
        return [(Scored(longest, 0.0), [])]

    def denoised(
        _: Call, layout: Layout, banned_V: torch.Tensor | None = None, before: object = None
    ) -> Passes[Denoised]:
        yield from ()
        ((begin, end),) = layout.spans
        end_of_turn = [control.end_of_turn] if banned_V is None else []
        ids = fill([*next(coming), *end_of_turn], end - begin, control.eos)
        ids_BL = torch.tensor([[*layout.ids[:begin], *ids, *layout.ids[end:]]])
        return Denoised(ids_BL, torch.ones_like(ids_BL, dtype=torch.bool), (0.0,), 1)

    monkeypatch.setattr(Search, "first", first)
    monkeypatch.setattr(Call, "denoised", denoised)
    return longest


def test_a_sentence_that_stands_in_the_section_is_not_written_again(
    engine: Any, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that repeats a locked sentence and adds one: the repetition is left out, the other one stays."""
    tokens = write(engine, monkeypatch, "No pneumothorax. The lungs are clear.")
    asked = (Section("findings", (Lock("No effusion. "), Gap(), Lock("No pneumothorax. "))),)
    assert engine.infill([image], asked).sections[0].text == "No effusion. The lungs are clear. No pneumothorax. "
    least = (Section("findings", (Gap(min_tokens=tokens), Lock("No pneumothorax. "))),)
    assert engine.infill([image], least).sections[0].text.startswith("No pneumothorax. The lungs are clear. ")


NOT_LOOKED_AT = GenerationSettings(second_look=False)


@pytest.mark.parametrize(
    ("sections", "strayed", "left"),
    [
        (
            (Section("findings", (Gap(), Lock("No effusion."))), Section("impression", (Lock("Normal."),))),
            "The lungs are clear. The ImpressionImpression: Normal.",
            ["The lungs are clear. No effusion.", "Normal."],
        ),
        (
            (Section("findings", (Lock("No effusion."),)), Section("impression", (Gap(),))),
            "The lungs are clear. The Impression: Normal.",
            ["No effusion.", "Normal."],
        ),
        (
            (Section("findings", (Lock("No effusion. "), Gap())), Section("impression", (Gap(),))),
            "The lungs are clear. Impression: Normal.",
            ["No effusion. The lungs are clear.", "Normal."],
        ),
    ],
)
def test_a_text_with_a_section_s_header_in_it_is_written_again_and_at_last_cut_there(
    engine: Any,
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    sections: tuple[Section, ...],
    strayed: str,
    left: list[str],
) -> None:
    """A model that has lost its place begins another section in a gap: no header stays, nor what belongs elsewhere."""
    write(engine, monkeypatch, strayed)
    answer = engine.infill([image], sections, settings=NOT_LOOKED_AT)
    assert [section.text for section in answer.sections] == left
    assert answer.notes == ("unfinished-sentence",)


def test_a_text_without_headers_is_taken_before_one_with_them(
    engine: Any, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt stays in its section: it is the answer, and there is nothing to note."""
    write(engine, monkeypatch, "The lungs are clear. Impression: Normal.", "The lungs are clear.")
    asked = (Section("findings", (Gap(), Lock("No effusion."))), Section("impression", (Lock("Normal."),)))
    answer = engine.infill([image], asked, settings=NOT_LOOKED_AT)
    assert answer.sections[0].text == "The lungs are clear. No effusion."
    assert answer.notes == ()


@pytest.mark.parametrize(
    ("written", "left", "notes"),
    [
        (["The lungs are clear. The heart"], "The lungs are clear.", ("unfinished-sentence", "shorter-than-asked")),
        (["Clear."], "Clear.", ("shorter-than-asked",)),
        (["\u200b"], "", ("shorter-than-asked",)),
        (["The lungs are clear. The heart", "The lungs and pleura are clear."], "The lungs and pleura are clear.", ()),
        (["Clear.", "The lungs and pleura are clear."], "The lungs and pleura are clear.", ()),
    ],
)
def test_a_text_shorter_than_asked_is_written_again_and_at_last_noted(
    engine: Any,
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    written: list[str],
    left: str,
    notes: tuple[str, ...],
) -> None:
    """Tokens on the canvas are not enough: what the cut, and characters that are no text, leave of them is counted."""
    write(engine, monkeypatch, *written)
    tokenizer = engine.checkpoint.tokenizer
    least = len(encode_fragment(tokenizer, "The lungs are clear.")) + 1
    asked = (Section("findings", (Lock("No effusion. "), Gap(min_tokens=least), Lock("No pneumothorax."))),)
    answer = engine.infill([image], asked, settings=NOT_LOOKED_AT)
    fill_piece = answer.sections[0].pieces[1].text.strip()
    assert fill_piece == left
    assert (len(encode_fragment(tokenizer, fill_piece)) < least) == ("shorter-than-asked" in answer.notes)
    assert answer.notes == notes
