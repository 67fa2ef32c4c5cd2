"""The autoregressive sibling, on a tiny Gemma 4 with random weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inlay_model import (
    BadRequest,
    Cancelled,
    CheckpointProblem,
    Filled,
    Gap,
    GenerationSettings,
    Lock,
    PromptContext,
    PromptTooLong,
    RunRecord,
    Section,
    StepEvent,
)
from inlay_model.autoregression import Written
from inlay_model.backend import Backend
from inlay_model.canvas import encode_fragment, encode_header
from inlay_model.errors import NotEnoughMemory
from inlay_model.gap_prompt import GAP_MARK, gap_question
from inlay_model.prompt import build_prompt, instruction
from inlay_model.sibling import Sibling
from inlay_model.tokens import encode_plain
from inlay_testkit.tiny_sibling import save_tiny_sibling


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sibling's checkpoint that knows the style `concise`."""
    return save_tiny_sibling(tmp_path_factory.mktemp("tiny-sibling"), styles=["concise"])


@pytest.fixture(scope="module")
def sibling(folder: Path) -> Sibling:
    """A sibling with the tiny checkpoint."""
    return Sibling.load(folder, device="cpu")


@pytest.fixture
def short(sibling: Sibling) -> Sibling:
    """The same model with no studies kept; its checkpoint allows 24 tokens."""
    return Sibling(sibling.checkpoint)


def test_out_of_memory_is_named_while_loading_and_while_writing(
    folder: Path, sibling: Sibling, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the engine names it; encoded studies are let go."""

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    sibling.infill([image], REQUEST)
    assert sibling.prefixes.nbytes > 0
    with monkeypatch.context() as patched:
        patched.setattr("inlay_model.sibling.write", full)
        for work in (lambda: sibling.draft([image]), lambda: sibling.infill([image], REQUEST)):
            with pytest.raises(NotEnoughMemory):
                work()
    assert sibling.prefixes.nbytes == 0
    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(NotEnoughMemory):
        Sibling.load(folder, device="cpu")


REQUEST = (
    Section("findings", (Lock("The lungs are clear.  "), Gap(max_tokens=6), Lock("No effusion."), Gap(max_tokens=4))),
    Section("impression", (Gap(max_tokens=5),)),
)


def by_transformers(sibling: Sibling, image: np.ndarray, tail: list[int], extra: list[int], tokens: int) -> list[int]:
    """What transformers' own greedy `generate` writes after our prompt, `extra` before the turn and `tail` after it."""
    checkpoint = sibling.checkpoint
    pixels = checkpoint.image_processor(images=[Image.fromarray(image)], return_tensors="pt")
    count = int(pixels.pop("num_soft_tokens_per_image")[0])
    prompt = build_prompt(checkpoint.tokenizer, count, instruction(["findings", "impression"]))
    ids = [*prompt.ids[: prompt.shared], *extra, *prompt.ids[prompt.shared :], *tail]
    types = [int(token == checkpoint.control.image) for token in ids]
    # What is no text is ruled out here too: control tokens, and in a gap the breaks of lines.
    banned = [[token] for token in sibling._banned_V.nonzero().flatten().tolist()]
    if extra:
        banned = [[token] for token in sibling._banned_in_gap_V.nonzero().flatten().tolist()]
    model: Any = checkpoint.model
    out = model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        mm_token_type_ids=torch.tensor([types]),
        max_new_tokens=tokens,
        do_sample=False,
        bad_words_ids=banned,
        **pixels,
    )
    written: list[int] = out[0, len(ids) :].tolist()
    return written


def ids_of(sibling: Sibling, monkeypatch: pytest.MonkeyPatch, work: Any) -> list[list[int]]:
    """The token ids that every call of the writing loop returned while `work` ran."""
    from inlay_model import sibling as module
    from inlay_model.autoregression import write as real

    seen: list[list[int]] = []

    def spy(*arguments: Any, **named: Any) -> Any:
        done = real(*arguments, **named)
        seen.append(list(done.ids))
        return done

    monkeypatch.setattr(module, "write", spy)
    work()
    return seen


def test_a_draft_is_what_transformers_generates(
    short: Sibling, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token for token the library's greedy generate, image masks included, after the forced beginning."""
    (ours,) = ids_of(short, monkeypatch, lambda: short.draft([image], begin="The lungs are clear."))
    tokenizer = short.checkpoint.tokenizer
    tail = [*encode_header(tokenizer, 0, "findings"), *encode_fragment(tokenizer, "The lungs are clear.")]
    theirs = by_transformers(short, image, tail, [], 24)
    assert len(set(ours)) > 3, "a model that repeats one token shows nothing"
    assert ours == theirs[: len(ours)]


def test_a_gap_is_filled_by_prompting_with_both_sides(
    short: Sibling, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt holds the report with the gap marked, and the model's turn is the gap alone."""
    asked = (
        Section("findings", (Lock("The lungs are clear."), Gap(max_tokens=8), Lock("No effusion."))),
        Section("impression", (Lock("No acute findings."),)),
    )
    (ours,) = ids_of(short, monkeypatch, lambda: short.infill([image], asked))
    question = gap_question(asked, (0, 1))
    assert f"Findings: The lungs are clear. {GAP_MARK} No effusion.\nImpression: No acute findings." in question
    theirs = by_transformers(short, image, [], encode_plain(short.checkpoint.tokenizer, question), 8)
    assert ours == theirs[: len(ours)]


def test_later_gaps_see_what_was_written_before_them() -> None:
    """The gap asked for is marked, earlier ones hold their text, later ones are left out."""
    text = gap_question(REQUEST, (0, 3), ["It is written."])
    assert f"Findings: The lungs are clear. It is written. No effusion. {GAP_MARK}\nImpression:" in text
    assert text.count(GAP_MARK) == 2  # one of them in the question itself


def test_an_infill_keeps_every_lock_byte_for_byte(short: Sibling, image: np.ndarray) -> None:
    """The answer has the caller's strings in their places, with or without an image, and the gaps within bounds."""
    for images in ([image], None):
        filled = short.infill(images, REQUEST)
        locks = [piece.text for section in filled.sections for piece in section.pieces if piece.kind == "lock"]
        assert locks == ["The lungs are clear.  ", "No effusion."]
        lengths = filled.run.gap_lengths
        assert all(length <= most for length, most in zip(lengths, (6, 4, 5), strict=True))


def test_a_hint_is_left_aside_and_that_is_noted(short: Sibling, image: np.ndarray) -> None:
    """Its prompt has no words for hints: the gap is filled as without one."""
    plain, hinted = (
        short.infill([image], [Section("findings", (Gap(max_tokens=4, hint=hint),))]) for hint in ("", "heart")
    )
    assert plain.sections[0].text == hinted.sections[0].text
    assert ("hints-left-aside" in plain.notes, "hints-left-aside" in hinted.notes) == (False, True)


def test_a_gap_without_the_image_is_noted_where_it_was_not_trained_for(short: Sibling, image: np.ndarray) -> None:
    """As the engine notes it; where nothing is said of it, as here, a checkpoint that follows instructions can."""
    about = replace(short.checkpoint.about, fills_without_image=False)
    untrained = Sibling(replace(short.checkpoint, about=about))
    asked = [Section("findings", (Gap(max_tokens=4),))]
    found = [
        "not-trained-without-image" in model.infill(images, asked).notes
        for model, images in ((short, None), (untrained, None), (untrained, [image]))
    ]
    assert found == [False, True, False]


def test_a_gap_is_at_least_as_long_as_asked(short: Sibling, image: np.ndarray) -> None:
    """The turn cannot end before the gap's minimum."""
    filled = short.infill([image], [Section("findings", (Gap(min_tokens=7, max_tokens=7),))])
    assert filled.run.gap_lengths == (7,)


def test_a_text_that_is_shorter_than_asked_is_noted(short: Sibling, image: np.ndarray, monkeypatch: Any) -> None:
    """What is left of the tokens after the last sentence is counted, as in the engine."""
    ids = encode_plain(short.checkpoint.tokenizer, " The lungs are clear. The heart")
    monkeypatch.setattr(Sibling, "_write", lambda *_, **__: Written(tuple(ids), ended=False, passes=1))
    notes = [short.infill([image], [Section("findings", (Gap(least),))]).notes for least in (0, len(ids))]
    assert ["shorter-than-asked" in found for found in notes] == [False, True]


def test_the_same_seed_gives_the_same_text_and_another_seed_another(short: Sibling, image: np.ndarray) -> None:
    """With a temperature the request's own generator decides, whatever was drawn elsewhere in between."""
    drawn = GenerationSettings(seed=1, t_max=1.0)
    one = short.draft([image], settings=drawn)
    torch.rand(10)
    assert short.draft([image], settings=drawn).run.text_digest == one.run.text_digest
    assert short.draft([image], settings=GenerationSettings(seed=2, t_max=1.0)).text != one.text


def test_a_study_is_encoded_once(short: Sibling, image: np.ndarray) -> None:
    """A draft and infills on one study share its encoding, and a warm study writes what a cold one does."""
    cold = short.infill([image], REQUEST)
    assert (short.prefixes.hits, short.prefixes.misses) == (0, 1)
    short.draft([image])
    warm = short.infill([image], REQUEST)
    assert (short.prefixes.hits, short.prefixes.misses) == (2, 1)
    assert warm.text == cold.text


def test_the_checkpoint_or_the_caller_says_how_much_may_be_written(sibling: Sibling, image: np.ndarray) -> None:
    """A draft that does not end by itself stops there, and a note says so where that is within a sentence."""
    for most, allowed in ((None, 24), (5, 5)):
        filled = Sibling(sibling.checkpoint, most_tokens=most).draft([image])
        assert (filled.run.steps_taken, filled.run.canvas_length) == (allowed, allowed)
        assert "unfinished-sentence" in filled.notes


def test_it_is_cancelled_between_tokens_and_tells_of_each(short: Sibling, image: np.ndarray) -> None:
    """Events count tokens; once the caller says stop, the request ends with a named error."""
    events: list[StepEvent] = []
    with pytest.raises(Cancelled):
        short.draft([image], on_step=events.append, cancelled=lambda: len(events) >= 3)
    assert [event.step for event in events] == [1, 2, 3]
    assert all(event.free_left == 24 - event.step for event in events)


def test_the_record_says_what_was_run_and_survives_json(short: Sibling, image: np.ndarray) -> None:
    """Kind, model and digests are the engine's own, so both backends can be told apart and traced alike."""
    filled = short.infill([image], REQUEST)
    record = filled.run
    assert (record.kind, record.model, record.model_digest) == ("infill", "tiny-sibling", short.digest)
    assert record.forward_passes >= record.steps_taken == sum(record.gap_lengths)
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_both_models_stand_behind_one_port(short: Sibling, engine: Any, image: np.ndarray) -> None:
    """The same request to either gives sections of the same names, items and kinds of piece."""

    def outline(filled: Filled) -> list[tuple[str, list[tuple[str, int]]]]:
        return [(s.name, [(piece.kind, piece.item) for piece in s.pieces]) for s in filled.sections]

    backends: list[Backend] = [short, engine]
    drafts = [backend.draft([image], settings=GenerationSettings(steps=1)) for backend in backends]
    infills = [backend.infill([image], REQUEST, settings=GenerationSettings(steps=1)) for backend in backends]
    assert outline(drafts[0]) == outline(drafts[1])
    assert outline(infills[0]) == outline(infills[1])


def test_an_answer_is_the_text_of_one_turn(short: Sibling, image: np.ndarray) -> None:
    """A question is asked in the caller's words; another question is another prompt."""
    assert isinstance(short.answer([image], "Is there a nodule?"), str)
    assert short.prefixes.misses == 1
    short.answer([image], "Is the heart enlarged?")
    assert short.prefixes.misses == 2


def test_bad_requests_and_checkpoints_are_named_errors(
    short: Sibling, image: np.ndarray, tmp_path: Path, checkpoint_folder: Path, folder: Path
) -> None:
    """No image, an unknown style, a rewriting, a long prompt, a diffusion checkpoint, a damaged one: each is said."""
    with pytest.raises(BadRequest):
        short.draft([])
    with pytest.raises(BadRequest):
        short.draft([image], context=PromptContext(style="baroque"))
    rewriting = PromptContext("concise", rewrite=True)
    asked = [Section("findings", (Gap(replaces="The heart is big."),))]
    with pytest.raises(BadRequest, match="rewrites nothing"):
        short.infill([image], asked, context=rewriting)
    with pytest.raises(BadRequest, match="rewrites nothing"):
        short.draft([image], context=rewriting)
    with pytest.raises(PromptTooLong, match=r"positions\. Send fewer images, shorter locked texts"):
        short.infill(None, [Section("findings", (Lock("The lungs are clear. " * 400), Gap()))])
    with pytest.raises(CheckpointProblem, match="diffusion_gemma model"):
        Sibling.load(checkpoint_folder)
    with pytest.raises(CheckpointProblem, match=r"no config\.json"):
        Sibling.load(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(CheckpointProblem, match=r"no tokenizer\.json"):
        Sibling.load(tmp_path)
