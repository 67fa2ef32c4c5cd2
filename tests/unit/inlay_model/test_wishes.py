"""Hints and rewriting: what the prompt says, how it is trained, and that locks stay whatever is wished."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inlay_model import BadRequest, Engine, Gap, GenerationSettings, Lock, PromptContext, Section
from inlay_model.loading import read_about
from inlay_model.phantom.grammar import STYLES, read_sentences, split_sentences
from inlay_model.phantom.render import phantom
from inlay_model.provenance import digest_of_request
from inlay_model.tokens import control_tokens
from inlay_model.training.corruption import Corruption
from inlay_model.training.phantoms import Batch, Drawing, ReportEncoder, batch_at
from inlay_model.training.wishes import SYSTEMS, Wish, rewritten, with_hints
from inlay_model.transcript import decode
from inlay_model.wishes import as_it_was, hinted, hints_of, to_rewrite
from inlay_testkit.tiny_training import CANVAS, SOFT_TOKENS, tokenizer

ASKED = (
    Section("findings", (Lock("The heart is normal. "), Gap(max_tokens=6, hint=" right  effusion"), Lock("Clear. "))),
    Section("impression", (Gap(max_tokens=4, replaces="No acute findings."),)),
)
SHORT = GenerationSettings(steps=2)
EXACT, WRONG = Corruption(shift=0.0), Corruption(shift=1.0)


def trained(engine: Engine) -> Engine:
    """The engine with a checkpoint that says it was trained on wishes."""
    return Engine(
        replace(engine.checkpoint, about=replace(engine.checkpoint.about, takes_hints=True, rewrites=True)),
    )


def drawn(corruption: Corruption, seed: int) -> Batch:
    """A batch of the shipped vocabulary."""
    return batch_at(Drawing(tokenizer(), "diffusion", 8, CANVAS, SOFT_TOKENS, corruption), (seed, 1))


def test_the_words_of_a_wish() -> None:
    """Hints are listed in reading order; a report to be rewritten is shown as it was, locks among the rest."""
    assert hinted(hints_of(ASKED)) == "\nIn the gaps: right effusion."
    assert hinted(["", " "]) == hinted([]) == ""
    assert to_rewrite(as_it_was(ASKED)) == (
        "\nRewrite this report in that style:\nFindings: The heart is normal. Clear.\nImpression: No acute findings."
    )


def test_only_trained_checkpoints_are_told(engine: Any, image: np.ndarray) -> None:
    """A hint changes the prompt of a checkpoint trained on hints and of no other; rewriting is refused by others."""
    fresh = trained(engine)
    plain = tuple(replace(part, items=tuple(_plain(item) for item in part.items)) for part in ASKED)
    told, silent = fresh.infill([image], ASKED, settings=SHORT), fresh.infill([image], plain, settings=SHORT)
    assert told.run.prompt_digest != silent.run.prompt_digest
    untold = engine.infill([image], ASKED, settings=SHORT)
    assert untold.run.prompt_digest == silent.run.prompt_digest
    assert [("hints-left-aside" in one.notes) for one in (told, silent, untold)] == [False, False, True]
    assert (fresh.prefixes.misses, fresh.prefixes.hits) == (2, 0)
    again = fresh.infill([image], ASKED, settings=SHORT)
    assert (fresh.prefixes.misses, fresh.prefixes.hits) == (2, 1)
    assert again.sections == told.sections
    rewrite = PromptContext("concise", rewrite=True)
    with pytest.raises(BadRequest, match="trained"):
        engine.infill([image], ASKED, settings=SHORT, context=rewrite)
    with pytest.raises(BadRequest, match="named style"):
        fresh.infill([image], ASKED, settings=SHORT, context=PromptContext(rewrite=True))
    answer = fresh.infill([image], ASKED, settings=SHORT, context=rewrite)
    assert answer.run.prompt_digest != told.run.prompt_digest
    assert "hints-left-aside" in answer.notes
    assert [piece.text for piece in answer.sections[0].pieces if piece.kind == "lock"] == [
        item.text for item in ASKED[0].items if isinstance(item, Lock)
    ]
    assert fresh.replay(answer.run, [image], ASKED).sections == answer.sections


def _plain(item: Lock | Gap) -> Lock | Gap:
    return item if isinstance(item, Lock) else replace(item, hint=None, replaces=None)


def test_requests_that_replace_nothing_keep_their_digest() -> None:
    """What was replaced is part of the request; records of earlier versions, which knew none of it, are replayed."""
    one = (Section("findings", (Gap(),)),)
    assert digest_of_request(one) != digest_of_request((Section("findings", (Gap(replaces="Clear."),)),))
    known = json.dumps(
        [{"name": "findings", "items": [{"gap": {"min_tokens": 0, "max_tokens": None, "hint": None}}]}], sort_keys=True
    )
    assert digest_of_request(one) == _sha(known)


def _sha(text: str) -> str:
    from inlay_model.provenance import sha256_of

    return sha256_of(text.encode())


@pytest.mark.parametrize("seed", range(6))
def test_a_hinted_gap_speaks_of_its_hint(seed: int) -> None:
    """Each hint names a slot or the organ system of a hidden sentence, in order; all noise lies in such sentences."""
    shown, rng = phantom(1_000_000 + seed), np.random.default_rng(seed)
    eos = control_tokens(tokenizer()).eos
    wish = with_hints(ReportEncoder(tokenizer()), shown.findings, STYLES[seed % 3], CANVAS, eos, EXACT, rng)
    hints = wish.question.removeprefix("\nIn the gaps: ").removesuffix(".").split("; ")
    assert wish.noise.any()
    body = split_sentences(decode(tokenizer(), wish.target.tolist()).split("\n")[0].removeprefix("Findings: "))
    topics = [{name for name, _ in read_sentences([sentence]).stated} for sentence in body]
    left = iter(topics)
    for hint in hints:
        assert any(set(SYSTEMS.get(hint, (hint,))) & said or hint in said for said in left)


@pytest.mark.parametrize("seed", range(6))
def test_a_rewritten_report_says_the_same_in_its_style(seed: int) -> None:
    """Source and target state the same; what is locked has the source's words and no noise."""
    shown, rng = phantom(1_000_000 + seed), np.random.default_rng(seed)
    eos = control_tokens(tokenizer()).eos
    wish = rewritten(ReportEncoder(tokenizer()), shown.findings, STYLES[seed % 3], CANVAS, eos, EXACT, rng)
    source, aim = (text.split("\n") for text in (wish.question, decode(tokenizer(), wish.target.tolist())))
    stated = [read_sentences(split_sentences(line.removeprefix("Findings: "))) for line in (source[2], aim[0])]
    assert stated[0].findings() == stated[1].findings() == shown.findings
    assert not stated[1].unknown
    assert wish.noise.any()


@pytest.mark.parametrize("seed", range(6))
def test_a_hinted_gap_may_have_the_wrong_length(seed: int) -> None:
    """What stands on the canvas is the target's, moved: before the gap in its place, after it as much further on."""
    shown, rng = phantom(1_000_000 + seed), np.random.default_rng(seed)
    eos = control_tokens(tokenizer()).eos
    wish = with_hints(ReportEncoder(tokenizer()), shown.findings, STYLES[seed % 3], CANVAS, eos, WRONG, rng)
    assert len(wish.shown) == len(wish.target) == len(wish.noise) == CANVAS
    _moved_by_one_distance(wish)


@pytest.mark.parametrize("seed", range(12))
def test_a_lock_in_a_rewritten_report_may_stand_in_the_wrong_place(seed: int) -> None:
    """What is locked stands there whole, with noise up to it; without a lock nothing moves."""
    shown, rng = phantom(1_000_000 + seed), np.random.default_rng(seed)
    eos = control_tokens(tokenizer()).eos
    wish = rewritten(ReportEncoder(tokenizer()), shown.findings, STYLES[seed % 3], CANVAS, eos, WRONG, rng)
    if not np.array_equal(wish.shown, wish.target):
        _moved_by_one_distance(wish)


def _moved_by_one_distance(wish: Wish) -> None:
    """What is clean shows the target: in its place at first, and then as much further on, or back, to the end."""
    clean = np.flatnonzero(~wish.noise)
    moved = clean[np.argmax(wish.shown[clean] != wish.target[clean]) :]
    assert 0 < len(moved) < len(clean)
    distances = [
        distance
        for distance in range(-CANVAS, Corruption().most_shift + 1)
        for here in [moved[(moved - distance >= 0) & (moved - distance < CANVAS)]]
        if distance and len(here) and np.array_equal(wish.shown[here], wish.target[here - distance])
    ]
    assert distances


def test_wishes_are_not_what_layers_are_compiled_for() -> None:
    """Prompts without one have one length, those of wishes longer ones; something is padding in each."""
    drawing = Drawing(tokenizer(), "diffusion", 8, CANVAS, SOFT_TOKENS, Corruption())
    for corruption, usual in ((Corruption(hints=1.0), False), (Corruption(rewriting=1.0), False), (EXACT, True)):
        for seed in range(3):
            batch = drawn(corruption, seed)
            assert batch.real_BT.any(1).all()
            assert not batch.real_BT.all()
            assert drawing.is_usual(batch) is usual


def test_checkpoints_say_what_they_were_trained_for(tmp_path: Path) -> None:
    """`inlay.json` names both; without it a checkpoint takes no hints and rewrites nothing."""
    (tmp_path / "config.json").write_text('{"model_type": "diffusion_gemma"}')
    assert not read_about(tmp_path, "x").takes_hints
    (tmp_path / "inlay.json").write_text('{"takes_hints": true, "rewrites": true}')
    about = read_about(tmp_path, "x")
    assert (about.takes_hints, about.rewrites) == (True, True)
