import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inlay_model import (
    BadImage,
    BadRequest,
    Cancelled,
    DraftRequest,
    Engine,
    Gap,
    GenerationSettings,
    InfillRequest,
    Lock,
    PromptContext,
    ReplayMismatch,
    RunRecord,
    Section,
    StepEvent,
    encoding,
)
from inlay_model.call import Call
from inlay_model.canvas import Layout, encode_fragment, lay_out_draft
from inlay_model.encoding import looked_at
from inlay_model.gaps import as_fixed
from inlay_model.generate import Denoised, run
from inlay_model.loading import make_sampler, sampler_defaults
from inlay_model.passes import Passes
from inlay_model.prefix import Decoder, encode
from inlay_model.prompt import build_prompt, instruction
from inlay_model.step import draw_by_race
from inlay_testkit.tiny_diffusion import save_tiny

ASKED = (
    Section("findings", (Lock("The heart is normal in size. "), Gap(), Lock("No pneumothorax. "))),
    Section("impression", (Gap(max_tokens=6),)),
)
SHORT = GenerationSettings(steps=4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_free_canvas_is_denoised_as_by_transformers_generate(engine: Any, image: np.ndarray, seed: int) -> None:
    """With nothing locked: masks, noise, sampling, acceptance, temperature and stopping give generate's tokens."""
    checkpoint = engine.checkpoint
    prompt = build_prompt(checkpoint.tokenizer, 64, instruction(["findings", "impression"]))
    pixels = dict(checkpoint.image_processor(images=[Image.fromarray(image)], return_tensors="pt"))
    pixels.pop("num_soft_tokens_per_image")
    torch.manual_seed(seed)
    theirs = checkpoint.model.generate(
        input_ids=torch.tensor([prompt.ids]),
        mm_token_type_ids=torch.tensor([prompt.mm_token_type_ids]),
        max_denoising_steps=8,
        max_new_tokens=checkpoint.canvas_length,
        pad_token_id=None,
        **pixels,
    ).sequences[0, len(prompt.ids) :]
    layout = lay_out_draft(checkpoint.tokenizer, None, checkpoint.canvas_length)
    sampler = make_sampler(sampler_defaults(checkpoint.model), steps=8, early_stop=True)
    with torch.inference_mode():
        features = looked_at(checkpoint, [Image.fromarray(image)])
        prefix = encode(checkpoint.model, prompt.ids, prompt.mm_token_type_ids, features)
        ours = run(
            Decoder(checkpoint.model, prefix),
            as_fixed([layout], torch.device("cpu")),
            sampler,
            checkpoint.vocabulary,
            torch.Generator().manual_seed(seed),
            draw=draw_by_race,
        )
    assert torch.equal(ours.ids_BL[0], theirs)


def test_the_same_seed_gives_the_same_text_and_another_seed_another(engine: Any, image: np.ndarray) -> None:
    """Text is a function of the request and the seed, not of global randomness."""
    first = engine.infill([image], ASKED, settings=GenerationSettings(steps=4, seed=5))
    torch.manual_seed(99)
    second = engine.infill([image], ASKED, settings=GenerationSettings(steps=4, seed=5))
    other = engine.infill([image], ASKED, settings=GenerationSettings(steps=4, seed=6))
    assert first.sections == second.sections
    assert first.run.text_digest == second.run.text_digest != other.run.text_digest


def test_generation_leaves_global_randomness_alone(engine: Any, image: np.ndarray) -> None:
    """A request draws from its own generator only."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    engine.draft([image], settings=SHORT)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_study_already_seen_is_not_encoded_again_and_gives_the_same_text(
    checkpoint_folder: Path, image: np.ndarray
) -> None:
    """A draft and two infills on one image encode once; the text from the kept prefix is that of a fresh engine."""
    fresh = Engine.load(checkpoint_folder, device="cpu").infill([image], ASKED, settings=SHORT)
    engine = Engine.load(checkpoint_folder, device="cpu")
    engine.draft([image], settings=SHORT)
    assert engine.infill([image], ASKED, settings=SHORT).sections == fresh.sections
    assert engine.infill([Image.fromarray(image)], ASKED, settings=SHORT).sections == fresh.sections
    assert (engine.prefixes.misses, engine.prefixes.hits) == (1, 2)


def test_another_image_is_another_prefix_and_another_text(engine: Any, image: np.ndarray) -> None:
    """The image reaches the model: inverting it changes what is drafted."""
    # An untrained model heeds images little, and beginning again would forget what little it saw.
    settings = replace(SHORT, begin_again=False)
    one = engine.draft([image], settings=settings)
    other = engine.draft([255 - image], settings=settings)
    assert one.run.image_digests != other.run.image_digests
    assert one.sections != other.sections


def test_checkpoints_told_about_locks_share_the_encoded_study(tmp_path: Path, image: np.ndarray) -> None:
    """Where locks are listed in the prompt, the part before them is encoded once, and the locks do change the text."""
    engine = Engine.load(save_tiny(tmp_path, locked_in_prompt=True), device="cpu")
    first = engine.infill([image], ASKED, settings=SHORT)
    again = engine.infill([image], ASKED, settings=SHORT)
    engine.draft([image], settings=SHORT)
    assert (engine.prefixes.misses, engine.prefixes.hits) == (1, 2)
    assert first.sections == again.sections
    silent = Engine.load(save_tiny(tmp_path / "silent"), device="cpu").infill([image], ASKED, settings=SHORT)
    assert silent.run.prompt_digest != first.run.prompt_digest


def test_cancelling_ends_a_draft_between_two_steps(engine: Any, image: np.ndarray) -> None:
    """A cancelled draft raises after the step that was under way and returns nothing."""
    steps: list[int] = []
    with pytest.raises(Cancelled):
        engine.draft([image], on_step=lambda event: steps.append(event.step), cancelled=lambda: len(steps) >= 2)
    assert steps == [1, 2]


def test_cancelling_ends_an_infill_during_its_search(engine: Any) -> None:
    """A cancelled infill does not even begin to look for lengths."""
    with pytest.raises(Cancelled):
        engine.infill(None, ASKED, cancelled=lambda: True)


def test_progress_is_told_with_spans_inside_the_text(engine: Any, image: np.ndarray) -> None:
    """Each step is reported with the text so far, spans within it, and how many tokens are open."""
    events: list[StepEvent] = []
    engine.draft([image], settings=SHORT, on_step=events.append)
    assert [event.step for event in events] == [1, 2, 3, 4]
    for event in events:
        assert event.steps == 4
        assert all(0 <= start < end <= len(event.text) for start, end in event.accepted)
        assert 0 <= event.free_left < engine.checkpoint.canvas_length


def test_a_run_record_replays_to_the_same_text(engine: Any, image: np.ndarray) -> None:
    """A record that went through JSON replays draft and infill; another image, request or model is refused by name."""
    drafted, filled = engine.draft([image], settings=SHORT), engine.infill([image], ASKED, settings=SHORT)
    for done, asked in ((drafted, None), (filled, ASKED)):
        record = RunRecord.from_json(json.loads(json.dumps(done.run.to_json())))
        assert engine.replay(record, [image], asked).sections == done.sections
        with pytest.raises(ReplayMismatch) as mismatch:
            engine.replay(record, [255 - image], asked)
        assert mismatch.value.what == "an image"
    with pytest.raises(ReplayMismatch):
        engine.replay(filled.run, [image], ASKED[:1])


def test_a_run_that_shared_its_passes_is_replayed_in_passes_of_as_many(engine: Any, image: np.ndarray) -> None:
    """A canvas is denoised beside as many as when it was recorded, since that is a part of the numerics."""
    requests = [DraftRequest([image], settings=SHORT), InfillRequest([image], ASKED, settings=SHORT)]
    for done, asked in zip(engine.batch(requests), (None, ASKED), strict=True):
        assert done.run.batch == 2
        again = engine.replay(done.run, [image], asked)
        assert (again.run.batch, again.sections) == (2, done.sections)


def test_run_records_hold_no_text(engine: Any, image: np.ndarray) -> None:
    """What was locked and what was written are in the record as digests only."""
    filled = engine.infill([image], ASKED, settings=SHORT)
    record = json.dumps(filled.run.to_json())
    assert "heart" not in record
    assert all(piece.text not in record for s in filled.sections for piece in s.pieces if len(piece.text.strip()) > 3)


def test_a_draft_without_headers_says_so_and_keeps_its_text(engine: Any, image: np.ndarray) -> None:
    """Random weights write no second header: all text stands in the first section, with a note."""
    answer = engine.draft([image], settings=SHORT)
    assert [section.name for section in answer.sections] == ["findings", "impression"]
    assert answer.sections[1].text == ""
    assert "headers-missing" in answer.notes


@pytest.mark.parametrize(
    ("end", "ended", "notes"),
    [
        ("No effusion a", False, ("unfinished-sentence",)),
        ("No effusion.", False, ()),
        ("No effusion", True, ()),
    ],
)
def test_a_draft_that_its_canvas_cuts_off_says_so(
    engine: Any,
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    ended: bool,
    notes: tuple[str, ...],
) -> None:
    """A full canvas that ends within a sentence is noted; one that ends with it, or a model that stopped, is not."""
    checkpoint = engine.checkpoint
    clear, last = (encode_fragment(checkpoint.tokenizer, text) for text in ("Clear.", end))

    def denoised(_: Call, layout: Layout, banned_V: torch.Tensor | None = None) -> Passes[Denoised]:
        assert banned_V is None
        yield from ()
        ((begin, stop),) = layout.spans
        said = [*last, *[checkpoint.control.end_of_turn] * ended]
        room = stop - begin - len(said)
        before = [*clear * (room // len(clear)), *clear[-1:] * (room % len(clear))]
        ids_BL = torch.tensor([[*layout.ids[:begin], *before, *said]])
        return Denoised(ids_BL, torch.ones_like(ids_BL, dtype=torch.bool), (0.0,), 1)

    monkeypatch.setattr(Call, "denoised", denoised)
    answer = engine.draft([image], sections=["findings"], settings=replace(SHORT, second_look=False))
    assert answer.sections[0].text.startswith("Clear. ")
    assert answer.sections[0].text.endswith(f" {end}")
    assert answer.notes == notes


def test_control_tokens_do_not_stand_in_a_gap(engine: Any) -> None:
    """A gap of the greatest length holds that many written tokens: none ends the turn or breaks the line."""
    tokenizer = engine.checkpoint.tokenizer
    banned = {index for index, said in enumerate(engine._banned_V.tolist()) if said}
    assert set(tokenizer.all_special_ids) <= banned
    assert tokenizer.convert_tokens_to_ids("<0x0A>") in banned
    answer = engine.infill(None, [Section("findings", (Gap(30, 30),))])
    assert "\n" not in answer.sections[0].text


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16), np.zeros((0, 4), np.uint8)]
)
def test_arrays_that_are_no_radiograph_are_refused(engine: Any, bad: np.ndarray) -> None:
    """Colour stacks, 16-bit values and empty arrays are named errors."""
    with pytest.raises(BadImage):
        engine.draft([bad])


def test_requests_that_make_no_sense_are_refused(engine: Any) -> None:
    """No sections, a section twice, an unknown style, bounds that cross, half a character: each a BadRequest."""
    with pytest.raises(BadRequest):
        Lock("a \ud800 b")
    with pytest.raises(BadRequest):
        engine.infill(None, ())
    with pytest.raises(BadRequest):
        engine.infill(None, (Section("findings", ()), Section("Findings", ())))
    with pytest.raises(BadRequest):
        engine.infill(None, ASKED, context=PromptContext(style="<turn|>"))
    with pytest.raises(BadRequest):
        Gap(min_tokens=3, max_tokens=2)


def test_a_style_changes_the_prompt(engine: Any) -> None:
    """A style that the checkpoint knows is part of the instruction."""
    plain = engine.infill(None, ASKED, settings=SHORT)
    styled = engine.infill(None, ASKED, settings=SHORT, context=PromptContext(style="concise"))
    assert plain.run.prompt_digest != styled.run.prompt_digest


def test_importing_the_package_loads_no_torch() -> None:
    """Values, errors and records are there without torch; the engine's name is known without being loaded."""
    code = "import sys, inlay_model as m; m.Lock('x'); assert 'Engine' in m.__all__; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_encoded_studies_are_kept_in_the_room_that_is_given(engine: Any, image: np.ndarray) -> None:
    """Asked again: found where there is room for one study, encoded again where there is none; the text is the same."""
    roomy, bare = Engine(engine.checkpoint), Engine(engine.checkpoint, kept_bytes=0)
    texts = [each.draft([image], settings=SHORT).text for each in (roomy, roomy, bare, bare)]
    assert len(set(texts)) == 1
    assert (roomy.prefixes.hits, roomy.prefixes.misses) == (1, 1)
    assert (bare.prefixes.hits, bare.prefixes.misses, bare.prefixes.nbytes) == (0, 2, 0)
    narrow = Engine(engine.checkpoint, kept_bytes=roomy.prefixes.nbytes)
    for shown in (image, 255 - image):
        narrow.draft([shown], settings=SHORT)
    assert narrow.prefixes.nbytes == roomy.prefixes.nbytes


def test_images_are_looked_at_once_for_all_prompts(
    engine: Any, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft and infills of a study have prompts of their own, and one look at its images; another image has another.

    What was seen is forgotten with the encoded studies.
    """
    looks: list[int] = []

    def counted(checkpoint: Any, pictures: Any) -> torch.Tensor:
        looks.append(len(pictures))
        return looked_at(checkpoint, pictures)

    monkeypatch.setattr(encoding, "looked_at", counted)
    fresh = Engine(engine.checkpoint)
    asked = (Section("findings", (Lock("The heart is normal. "), Gap(max_tokens=4))),)
    fresh.draft([image], settings=SHORT, context=PromptContext(style="concise"))
    first = fresh.infill([image], asked, settings=SHORT)
    assert (looks, fresh.prefixes.misses) == ([1], 2)
    fresh.draft([255 - image], settings=SHORT)
    assert looks == [1, 1]
    fresh.forget()
    assert fresh.infill([image], asked, settings=SHORT).sections == first.sections
    assert looks == [1, 1, 1]
