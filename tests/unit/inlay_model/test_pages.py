"""Reports longer than a canvas: sections are blocks, every lock comes back, and only a section too long is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inlay_model import BadRequest, CanvasOverflow, Gap, GenerationSettings, InfillRequest, Lock, Section
from inlay_model.call import Call
from inlay_model.canvas import Layout, encode_fragment, encode_header, encode_report
from inlay_model.generate import Denoised
from inlay_model.pages import paged, written_before
from inlay_model.passes import Passes
from inlay_model.request import Filled, Item

NAMES = ("technique", "comparison", "findings", "impression", "recommendation")
FAST = GenerationSettings(steps=1, fill_attempts=1, second_look=False)
SENTENCES = ("The heart is normal. ", "No pneumothorax. ", "Clear. ", "Éß 3.5 cm\t👩🏽‍⚕️. ", "No pleural effusion. ")
ITEMS = st.lists(
    st.one_of(st.sampled_from(SENTENCES).map(Lock), st.builds(Gap, st.integers(0, 1), st.just(3))),
    min_size=1,
    max_size=4,
).map(tuple)


def report(parts: list[tuple[Item, ...]]) -> tuple[Section, ...]:
    """Sections in order with these items."""
    return tuple(Section(name, items) for name, items in zip(NAMES, parts, strict=False))


def locks(sections: Any) -> list[str]:
    """Locked texts of a request, or of an answer."""
    if isinstance(sections[0], Section):
        return [item.text for part in sections for item in part.items if isinstance(item, Lock)]
    return [piece.text for part in sections for piece in part.pieces if piece.kind == "lock"]


@given(st.lists(ITEMS, min_size=1, max_size=5))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_locks_come_back_over_several_canvases(engine: Any, parts: list[tuple[Item, ...]]) -> None:
    """Whatever stands on whichever page: locks byte for byte, one fill a gap; refused only if a section is too long."""
    asked = report(parts)
    checkpoint = engine.checkpoint
    alone = [len(encode_report(checkpoint.tokenizer, [(part.name, locks([part]))])) for part in asked]
    alone = [n + sum(i.min_tokens for i in p.items if isinstance(i, Gap)) for n, p in zip(alone, asked, strict=True)]
    try:
        answer = engine.infill(None, asked, settings=FAST)
    except CanvasOverflow:
        # A header after the first section has a line break more than a header at the beginning.
        assert max(alone) + 1 > checkpoint.canvas_length
        return
    assert locks(answer.sections) == locks(asked)
    assert [section.name for section in answer.sections] == [part.name for part in asked]
    assert len(answer.run.gap_lengths) == sum(isinstance(item, Gap) for part in asked for item in part.items)


LONG = report(
    [
        (Lock(SENTENCES[0] * 3 + SENTENCES[3]), Gap(1, 4)),
        (Gap(max_tokens=3), Lock(SENTENCES[4] * 4 + SENTENCES[3])),
        (Lock("Clear."),),
    ]
)


def test_a_request_that_fits_is_one_page_and_others_have_their_sections_in_order(engine: Any) -> None:
    """Each page knows the number of its first section; where the next one begins with a gap nothing of it is shown."""
    checkpoint = engine.checkpoint
    tokenizer, length, control = checkpoint.tokenizer, checkpoint.canvas_length, checkpoint.control
    (one,) = paged(tokenizer, LONG[2:], length, control)
    assert (one.first, one.sections) == (0, LONG[2:])
    pages = paged(tokenizer, LONG, length, control)
    assert len(pages) > 1
    assert [section for page in pages for section in page.sections] == list(LONG)
    assert [LONG[page.first] for page in pages] == [page.sections[0] for page in pages]
    assert pages[0].frame.blocks.parts[-1] == (control.end_of_turn,)


def test_the_next_section_is_shown_at_the_end_of_a_page(engine: Any) -> None:
    """Header and beginning of what is locked there, before the end of turn, as far as the page has room."""
    checkpoint = engine.checkpoint
    tokenizer, length, control = checkpoint.tokenizer, checkpoint.canvas_length, checkpoint.control
    asked = report([(Lock(SENTENCES[0]), Gap()), (Lock(SENTENCES[3] + SENTENCES[4] * 6),)])
    first, _ = paged(tokenizer, asked, length, control)
    last = first.frame.blocks.parts[-1]
    assert isinstance(last, tuple)
    *shown, end = last
    following = [*encode_header(tokenizer, 1, NAMES[1]), *encode_fragment(tokenizer, SENTENCES[3] + SENTENCES[4])]
    assert end == control.end_of_turn
    assert shown == following[: len(shown)]
    assert len(shown) > len(encode_header(tokenizer, 1, NAMES[1]))


def test_finished_sections_are_encoded_as_a_report_has_them(engine: Any) -> None:
    """The pages before stand behind the prompt without an end of turn."""
    tokenizer = engine.checkpoint.tokenizer
    texts = [("findings", "The heart is normal. Clear."), ("impression", "Clear.")]
    expected = encode_report(tokenizer, [(name, [text]) for name, text in texts])
    assert written_before(tokenizer, texts) == expected[:-1]
    assert written_before(tokenizer, texts[:1]) == [
        *encode_header(tokenizer, 0, "findings"),
        *encode_fragment(tokenizer, texts[0][1]),
    ]


def test_several_pages_are_the_same_again_in_a_batch_and_in_replay(engine: Any) -> None:
    """Same seed, same text: alone, beside a draft-like neighbour, and from the run record."""
    chosen = replace(FAST, steps=2, seed=9)
    alone = engine.infill(None, LONG, settings=chosen)
    beside, other = engine.batch([InfillRequest(None, LONG, chosen), InfillRequest(None, LONG[2:], chosen)])
    assert isinstance(beside, Filled)
    assert isinstance(other, Filled)
    assert beside.sections == alone.sections
    assert engine.replay(alone.run, None, LONG).sections == alone.sections


def test_a_draft_goes_on_while_it_does_not_end(engine: Any, image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canvas without an end is followed by another one, all free, as far as the request allows; steps are summed."""
    checkpoint = engine.checkpoint
    sentence = encode_fragment(checkpoint.tokenizer, "Clear.")
    layouts: list[Layout] = []

    def denoised(_: Call, layout: Layout, banned_V: torch.Tensor | None = None) -> Passes[Denoised]:
        assert banned_V is None
        yield from ()
        layouts.append(layout)
        begin, end = layout.spans[0]
        said = sentence * 64 if len(layouts) % 2 else [*sentence, checkpoint.control.end_of_turn, *sentence * 64]
        ids_BL = torch.tensor([[*layout.ids[:begin], *said][:end]])
        return Denoised(ids_BL, torch.ones_like(ids_BL, dtype=torch.bool), (0.0,), 3)

    monkeypatch.setattr(Call, "denoised", denoised)
    one = engine.draft([image], settings=FAST)
    layouts.clear()
    two = engine.draft([image], settings=replace(FAST, canvases=4))
    assert (one.run.steps_taken, two.run.steps_taken, len(layouts)) == (3, 6, 2)
    assert all(layouts[1].free)
    assert two.sections[0].text == f"{one.sections[0].text} Clear."
    with pytest.raises(BadRequest):
        GenerationSettings(canvases=0)
