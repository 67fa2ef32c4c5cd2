"""The finished report read once more: words, their places and probabilities, and what is disputed."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inlay_model import (
    CheckpointProblem,
    Dispute,
    Engine,
    Filled,
    FilledSection,
    Gap,
    GenerationSettings,
    InfillRequest,
    Lock,
    Piece,
    Section,
)
from inlay_model.canvas import encode_report, fill
from inlay_model.loading import read_about
from inlay_model.prefix import Decoder, encode
from inlay_model.prompt import build_prompt, instruction
from inlay_model.rereading import Reading, Spot, disputes_of, written_out
from inlay_model.tokens import encode_plain

LOCK = "Herz  nicht vergrößert.\tKein Erguß, e\u0301 👩🏽‍⚕️ 3.5 cm. "
# Short, because the canvas of the tiny model is.
ASKED = (Section("findings", (Lock("No  é effusion. "), Gap(max_tokens=6))), Section("impression", (Lock("Clear."),)))
BOTH = GenerationSettings(steps=3, confidence=True)


def disputing(engine: Engine, threshold: float | None) -> Engine:
    """The engine with a checkpoint that states this threshold."""
    return Engine(
        replace(engine.checkpoint, about=replace(engine.checkpoint.about, dispute_threshold=threshold)),
    )


def direct_passes(engine: Engine, answer: Filled) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """The canvas of the finished report, and the model's probabilities L x V of it in a pass, and in one told of it."""
    checkpoint = engine.checkpoint
    prompt = build_prompt(checkpoint.tokenizer, [], instruction([section.name for section in answer.sections]))
    report = [(section.name, [piece.text for piece in section.pieces]) for section in answer.sections]
    ids = fill(encode_report(checkpoint.tokenizer, report), checkpoint.canvas_length, checkpoint.control.eos)
    with torch.inference_mode():
        read = Decoder(checkpoint.model, encode(checkpoint.model, prompt.ids, prompt.mm_token_type_ids, None))
        canvas_BL = torch.tensor([ids])
        everywhere_BL = torch.ones_like(canvas_BL, dtype=torch.bool)
        first_LV = read(canvas_BL, everywhere_BL)
        second_LV = read(canvas_BL, everywhere_BL, first_LV.unsqueeze(0).to(checkpoint.model.dtype))
        return ids, torch.softmax(first_LV, -1), torch.softmax(second_LV, -1)


def test_probabilities_are_those_of_direct_passes(engine: Any) -> None:
    """A word is as probable as its least probable token, a written one in a clean pass, a locked one in a second."""
    answer = disputing(engine, 0.0).infill(None, ASKED, settings=BOTH)
    ids, *passes = direct_passes(engine, answer)
    _, spots = written_out(engine.checkpoint.tokenizer, answer.sections)
    expected = {
        (spot.section, spot.item, spot.start): min(float(passes[spot.locked][at, ids[at]]) for at in spot.positions)
        for spot in spots
    }
    assert answer.confidence
    assert [(word.section, word.item) for word in answer.confidence] == [("findings", 1)] * len(answer.confidence)
    for word in answer.confidence:
        assert word.probability == pytest.approx(expected[word.section, word.item, word.start], rel=1e-3, abs=1e-7)
    assert answer.disputes
    for one in answer.disputes:
        inside = [p for (name, item, start), p in expected.items() if (name, item) == (one.section, one.item)
                  and one.start <= start < one.end]  # fmt: skip
        assert one.probability == pytest.approx(min(inside), rel=1e-3, abs=1e-7)


def test_words_of_text_of_many_bytes_stand_where_they_stand() -> None:
    """Umlauts, combining marks, emoji, runs of blanks: spans cut the caller's string into exactly its words."""
    from inlay_testkit.tiny_diffusion import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    ids, spots = written_out(tokenizer, (FilledSection("findings", (Piece(LOCK, "lock", 0),)),))
    words = [LOCK[spot.start : spot.end] for spot in spots]
    assert words == ["Herz", "nicht", "vergrößert", ".", "Kein", "Erguß", ",", "e\u0301", "👩🏽‍⚕️", "3.5", "cm", "."]
    for spot, word in zip(spots, words, strict=True):
        assert word in tokenizer.decode([ids[at] for at in spot.positions])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(text=st.text(max_size=24))
def test_any_text_has_its_tokens_and_words_in_order(engine: Any, text: str) -> None:
    """Whatever is locked: the canvas is that of `encode_report`, spans hold no blanks and go up, every token counts."""
    tokenizer = engine.checkpoint.tokenizer
    ids, spots = written_out(tokenizer, (FilledSection("findings", (Piece(text, "lock", 0),)),))
    assert ids == encode_report(tokenizer, [("findings", [text])])
    assert all(text[spot.start : spot.end].split() == [text[spot.start : spot.end]] for spot in spots)
    assert all(one.end <= other.start for one, other in itertools.pairwise(spots))
    assert {at for spot in spots for at in spot.positions} >= set(range(spots[0].positions[0], len(ids) - 1) if spots else ())  # noqa: E501 # fmt: skip


def test_the_threshold_is_the_checkpoints(engine: Any) -> None:
    """The higher the threshold, the fewer words are disputed, none that the model gives more than one less it."""
    lengths = []
    for threshold in (0.0, 0.99, 0.9999, 1.0):
        disputes = disputing(engine, threshold).infill(None, ASKED, settings=BOTH).disputes
        assert disputes is not None
        assert all(1 - one.probability > threshold for one in disputes)
        lengths.append(sum(one.end - one.start for one in disputes))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1] == 0


def test_a_checkpoint_that_says_nothing_disputes_nothing(engine: Any) -> None:
    """Without a threshold, or where nobody asks, there are no disputes and no passes for them; the text is the same."""
    silent = engine.infill(None, ASKED, settings=GenerationSettings(steps=3))
    unasked = disputing(engine, 0.0).infill(None, ASKED, settings=GenerationSettings(steps=3, disputes=False))
    asked = disputing(engine, 0.0).infill(None, ASKED, settings=GenerationSettings(steps=3))
    assert (silent.disputes, silent.confidence, unasked.disputes) == (None, None, None)
    assert asked.disputes
    assert asked.confidence
    assert silent.sections == unasked.sections == asked.sections
    assert silent.run.forward_passes == unasked.run.forward_passes == asked.run.forward_passes - 2


def test_requests_of_a_batch_have_their_own_disputes(engine: Any, image: np.ndarray) -> None:
    """In a batch, with prompts of different lengths, each request has the spans and probabilities it has alone."""
    disputes = disputing(engine, 0.9)
    asked = [InfillRequest([image] if at % 2 else None, ASKED[at % 2 :], BOTH) for at in range(4)]
    for request, answer in zip(asked, disputes.batch(asked), strict=True):
        (alone,) = disputes.batch([request])
        assert isinstance(answer, Filled)
        assert isinstance(alone, Filled)
        assert answer.disputes is not None
        assert alone.disputes is not None
        assert [(d.item, d.start, d.end, d.instead) for d in answer.disputes] == [
            (d.item, d.start, d.end, d.instead) for d in alone.disputes
        ]
        for one, other in zip(answer.disputes, alone.disputes, strict=True):
            assert one.probability == pytest.approx(other.probability, rel=1e-3, abs=1e-7)


# ── from readings to disputes ────────────────────────────────────────────────────────────────────────────────────────


def readings(engine: Engine, text: str, p: list[float], instead: str) -> list[Reading]:
    """The words of a lock with these probabilities, read by a model that would say something else in its tokens."""
    tokenizer = engine.checkpoint.tokenizer
    _, spots = written_out(tokenizer, (FilledSection("findings", (Piece(text, "lock", 2),)),))
    begin = spots[0].positions[0]
    said = dict(enumerate(encode_plain(tokenizer, f" {instead}"), begin))
    pad = engine.checkpoint.control.pad
    return [
        Reading(spot, probability, tuple(said.get(at, pad) for at in spot.positions))
        for spot, probability in zip(spots, p, strict=True)
    ]


def disputed(engine: Engine, text: str, p: list[float], instead: str) -> tuple[Dispute, ...]:
    """What is disputed above a half."""
    found = readings(engine, text, p, instead)
    return disputes_of(found, 0.5, engine.checkpoint.tokenizer, engine.checkpoint.control)


def test_neighbouring_words_are_one_dispute(engine: Any) -> None:
    """Two disputed words side by side are one span with the lower probability; a third one apart is another."""
    one, other = disputed(engine, "No left effusion, no left lesion", [0.9, 0.1, 0.3, 0.9, 0.9, 0.2, 0.9], "")
    assert (one.item, one.start, one.end, one.probability) == (2, 3, 16, 0.1)
    assert (other.start, other.end, other.probability) == (21, 25, 0.2)


def test_what_the_model_would_say_is_told_where_it_fits(engine: Any) -> None:
    """As many words in the same tokens are told; where the model would have the text end, or more words, nothing is."""
    (one,) = disputed(engine, "a b c", [0.9, 0.1, 0.9], "a x c")
    assert one.instead == "x"
    (ended,) = disputed(engine, "a b c", [0.9, 0.9, 0.1], "a")
    assert ended.instead is None
    split = tuple(encode_plain(engine.checkpoint.tokenizer, " a b"))
    several = [Reading(Spot("findings", 0, True, 0, 5, tuple(range(len(split)))), 0.1, split)]
    (more,) = disputes_of(several, 0.5, engine.checkpoint.tokenizer, engine.checkpoint.control)
    assert more.instead is None


@pytest.mark.parametrize("said", ["high", -0.1, 1.5, True])
def test_a_threshold_that_is_none_is_refused(tmp_path: Path, said: object) -> None:
    """A threshold is a share; anything else in inlay.json is a named error. Without one there is none."""
    (tmp_path / "config.json").write_text('{"model_type": "diffusion_gemma"}')
    (tmp_path / "inlay.json").write_text(json.dumps({"dispute_threshold": said}))
    with pytest.raises(CheckpointProblem, match="dispute_threshold"):
        read_about(tmp_path, "x")
    (tmp_path / "inlay.json").write_text("{}")
    assert read_about(tmp_path, "x").dispute_threshold is None
    (tmp_path / "inlay.json").write_text('{"dispute_threshold": 1}')
    assert read_about(tmp_path, "x").dispute_threshold == 1.0
