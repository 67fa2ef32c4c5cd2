import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inlay_model import CanvasOverflow, Engine, Gap, GenerationSettings, Lock, PromptContext, Section
from inlay_model.call import Call
from inlay_model.canvas import Layout, encode_request
from inlay_model.generate import Denoised
from inlay_model.passes import Passes, View
from inlay_model.request import Item

QUICK = GenerationSettings(steps=2, fill_attempts=1)

# Everything a clinician's editor may produce, storable or not: NFC and NFD, combining marks, emoji, right-to-left,
# line ends, tabs, blanks, control characters, and text that spells control tokens.
AWKWARD = st.sampled_from(
    [
        "",
        " ",
        "\r\n",
        "\t",
        "é",
        "e\u0301",
        "a\u0308\u0301\u0327",
        "👩🏽‍⚕️",
        "שלום עולם",
        "\u202eabc\u202c",
        "<turn|>",
        "<eos><|image|>",
        "No \t effusion.  \r\n",
        "3.5 cm",
        "\x00\x1f",
        "中文。",
        "ﬁ ligature",
        "Findings:",
        "\nImpression: none.",
    ]
)
LOCK_TEXT = st.one_of(AWKWARD, st.text(max_size=8), st.builds("".join, st.lists(AWKWARD, max_size=2)))


@st.composite
def requests(draw: st.DrawFn) -> tuple[Section, ...]:
    """Requests of one or two sections with up to six locks each."""
    sections = []
    for name in draw(st.sampled_from([("findings",), ("findings", "impression")])):
        items: list[Item] = []
        for text in draw(st.lists(LOCK_TEXT, max_size=6)):
            if draw(st.booleans()):
                items.append(Gap(max_tokens=draw(st.integers(0, 4))))
            items.append(Lock(text))
        if draw(st.booleans()):
            items.append(Gap(max_tokens=3))
        sections.append(Section(name, tuple(items)))
    return tuple(sections)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(asked=requests())
def test_every_lock_comes_back_byte_for_byte(engine: Any, asked: tuple[Section, ...]) -> None:
    """Whatever is locked, in order, is in the answer as it was sent, or the request is refused before any work."""
    tokenizer = engine.checkpoint.tokenizer
    alone = [encode_request(tokenizer, (section,), place).locked_tokens for place, section in enumerate(asked)]
    # Sections that do not fit side by side stand on canvases of their own.
    if max(alone) > engine.checkpoint.canvas_length:
        with pytest.raises(CanvasOverflow):
            engine.infill(None, asked, settings=QUICK)
        return
    answer = engine.infill(None, asked, settings=QUICK)
    for sent, got in zip(asked, answer.sections, strict=True):
        assert got.text == "".join(piece.text for piece in got.pieces)
        assert [piece.item for piece in got.pieces] == list(range(len(sent.items)))
        for item, piece in zip(sent.items, got.pieces, strict=True):
            assert piece.kind == ("lock" if isinstance(item, Lock) else "fill")
            if isinstance(item, Lock):
                assert piece.text == item.text
                assert piece.sha256 == hashlib.sha256(item.text.encode("utf-8")).hexdigest()


@pytest.mark.parametrize(
    ("chosen", "context"),
    [
        (GenerationSettings(steps=4), None),
        (GenerationSettings(steps=4, alternatives=2), None),
        (GenerationSettings(steps=4, warm_start=0.5), None),
        (GenerationSettings(steps=4), PromptContext("concise", rewrite=True)),
    ],
    ids=["plain", "alternatives", "warm start", "rewriting"],
)
def test_every_canvas_that_the_model_is_shown_has_the_locks_in_their_places(
    engine: Any,
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    chosen: GenerationSettings,
    context: PromptContext | None,
) -> None:
    """In every step of every run, and in what a run makes: not only in the answer, which is put together from them."""
    denoised, shown, made = Call.denoised, 0, 0

    def watched(self: Call, layout: Layout, banned_V: Any = None, before: Any = None) -> Passes[Denoised]:
        nonlocal shown, made
        ids_L, locked_L = torch.tensor(layout.ids), ~torch.tensor(layout.free)
        work = denoised(self, layout, banned_V, before)
        try:
            asked = next(work)
            while True:
                if isinstance(asked, View):
                    assert asked.canvas_BL[0][locked_L].equal(ids_L[locked_L])
                    shown += 1
                asked = work.send((yield asked))
        except StopIteration as ended:
            done: Denoised = ended.value
            assert done.ids_BL[0][locked_L].equal(ids_L[locked_L])
            made += 1
            return done

    monkeypatch.setattr(Call, "denoised", watched)
    gap = Gap(2, 6, replaces="There is no pneumothorax.")
    asked = (
        Section("findings", (Lock("The heart is normal. "), gap, Lock(" No pleural effusion."))),
        Section("impression", (Gap(2, 4), Lock(" No acute findings."))),
    )
    able = replace(engine.checkpoint, about=replace(engine.checkpoint.about, rewrites=True))
    Engine(able).infill([image], asked, settings=chosen, context=context)
    assert shown >= 4 * made > 0


def test_twelve_locks_with_gaps_between_them(engine: Any, image: np.ndarray) -> None:
    """Twelve locks with a gap after each are all kept, with an image in the prompt."""
    items: list[Item] = []
    for number in range(12):
        items += [Lock(f"L{number}. "), Gap(max_tokens=1)]
    answer = engine.infill([image], [Section("findings", tuple(items))], settings=QUICK)
    assert [p.text for p in answer.sections[0].pieces if p.kind == "lock"] == [f"L{n}. " for n in range(12)]


def test_a_wholly_locked_report_needs_no_step(engine: Any) -> None:
    """With nothing free the answer is what was sent, and no denoising step is taken."""
    asked = (Section("findings", (Lock("The lungs are clear.\r\n"),)), Section("impression", (Lock("\tNormal. "),)))
    answer = engine.infill(None, asked)
    assert [section.text for section in answer.sections] == ["The lungs are clear.\r\n", "\tNormal. "]
    assert answer.run.steps_taken == 0


def test_a_contradicting_lock_is_kept(engine: Any, image: np.ndarray) -> None:
    """A lock stays although the model would write something else there (random weights always would)."""
    asked = (Section("findings", (Gap(2, 4), Lock("Right pleural effusion. "), Gap(2, 4))),)
    answer = engine.infill([image], asked)
    assert answer.sections[0].pieces[1].text == "Right pleural effusion. "


def test_fills_are_joined_by_blanks_where_locks_have_none(engine: Any) -> None:
    """Between two locks without blanks a fill brings its own, and none is doubled where a lock has one."""
    tight = engine.infill(None, [Section("findings", (Lock("A."), Gap(4, 4), Lock("B.")))]).sections[0].pieces[1].text
    loose = engine.infill(None, [Section("findings", (Lock("A. "), Gap(4, 4), Lock("B.")))]).sections[0].pieces[1].text
    assert tight.startswith(" ")
    assert tight.endswith(" ")
    assert not loose.startswith(" ")
    assert loose.endswith(" ")


def test_too_many_locked_tokens_are_refused_with_counts_before_any_work(engine: Any, image: np.ndarray) -> None:
    """A lock of unusual Unicode that outgrows the canvas is a named error with both counts; nothing is encoded."""
    before = engine.prefixes.misses
    with pytest.raises(CanvasOverflow) as refused:
        engine.infill([image], [Section("findings", (Lock("ॐ" * 40), Gap()))])
    assert refused.value.needed > refused.value.available == engine.checkpoint.canvas_length
    assert "ॐ" not in str(refused.value)
    assert engine.prefixes.misses == before


def test_minimum_lengths_count_against_the_canvas(engine: Any) -> None:
    """A gap's minimum is part of what must fit."""
    with pytest.raises(CanvasOverflow):
        engine.infill(None, [Section("findings", (Gap(min_tokens=64, max_tokens=64),))])


def test_gap_lengths_stay_within_their_bounds(engine: Any) -> None:
    """The length on the canvas lies between the gap's minimum and maximum."""
    asked = [Section("findings", (Gap(3, 5), Lock("The heart is normal. "), Gap(0, 2)))]
    first, second = engine.infill(None, asked).run.gap_lengths
    assert 3 <= first <= 5
    assert 0 <= second <= 2
