"""Infills without an image: what the prompt is, how it is trained, and what an untrained checkpoint says of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inlay_model import Engine, Gap, GenerationSettings, Lock, PromptContext, Section
from inlay_model.canvas import Frame, Layout, encode_fragment, encode_request
from inlay_model.evaluation.text_alone import main
from inlay_model.loading import default_checkpoint, read_about
from inlay_model.phantom.grammar import STYLES, PhantomReport, read_sentences, split_sentences, write_report
from inlay_model.phantom.render import phantom
from inlay_model.provenance import digest_of_ids
from inlay_model.tokens import control_tokens
from inlay_model.training.corruption import Corruption, opened
from inlay_model.training.encoding import Prompts
from inlay_model.training.log import RunLog
from inlay_model.training.objectives import Answers, BlockDiffusion
from inlay_model.training.phantoms import Batch, Drawing, ReportEncoder, batch_at
from inlay_model.training.scratch import Options, PhantomTrainer
from inlay_model.transcript import decode
from inlay_testkit.tiny_training import CANVAS, SOFT_TOKENS, random_model, save_tiny_checkpoint, tiny_recipe, tokenizer

ALONE = Corruption(text_alone=1.0)
EXACT, WRONG = Corruption(shift=0.0), Corruption(shift=1.0)
SHORT = GenerationSettings(steps=2)
NOTE = "not-trained-without-image"


def drawing(corruption: Corruption = ALONE, kind: str = "diffusion", known: Any = None) -> Drawing:
    """Phantoms with this corruption and vocabulary."""
    return Drawing(known or tokenizer(), kind, 8, CANVAS, SOFT_TOKENS, corruption)


def asked_of(report: PhantomReport) -> tuple[Section, ...]:
    """Findings locked, Impression open."""
    return Section("findings", (Lock(report.text("findings")),)), Section("impression", (Gap(),))


def reports(many: int) -> list[PhantomReport]:
    """Reports of all styles."""
    return [
        write_report(phantom(1_000_000 + seed).findings, STYLES[seed % len(STYLES)], np.random.default_rng(seed))
        for seed in range(many)
    ]


def made(report: PhantomReport, corruption: Corruption, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target, canvas and noise of a report whose Impression is open."""
    body = len(dict(report.sections)["findings"])
    text, eos = ReportEncoder(tokenizer())(report), control_tokens(tokenizer()).eos
    span = (text.sentences[body][0], text.sentences[-1][1])
    return opened(text, [span], CANVAS, corruption, eos, np.random.default_rng(seed))


def laid_out(report: PhantomReport, shift: int) -> Layout:
    """The engine's canvas for the report's Impression, longer by `shift` tokens than it is."""
    blocks = encode_request(tokenizer(), asked_of(report))
    right = len(ReportEncoder(tokenizer())(report).ids) - blocks.locked_tokens
    return Frame(blocks, CANVAS, control_tokens(tokenizer())).layout([right + shift])


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("style", ["concise", None])
def test_the_prompt_is_the_engines_without_an_image(engine: Engine, style: str | None) -> None:
    """To the token, with a style and without one."""
    answer = engine.infill(None, asked_of(reports(1)[0]), settings=SHORT, context=PromptContext(style))
    prompt = drawing(known=engine.checkpoint.tokenizer).without_image[style]
    assert digest_of_ids(prompt.ids) == answer.run.prompt_digest
    assert not any(prompt.mm_token_type_ids)


def test_no_prompt_of_such_a_batch_has_an_image() -> None:
    """Whole batches have none, behind padding to the length for which layers are compiled; the others have one each."""
    for seed in range(4):
        drawn, plain = batch_at(drawing(), (seed,)), batch_at(drawing(Corruption()), (seed,))
        assert (drawn.has_images, plain.has_images) == (False, True)
        shown = {tuple(ids[real].tolist()) for ids, real in zip(drawn.prompt_BT, drawn.real_BT, strict=True)}
        assert shown < {prompt.ids for prompt in drawing().without_image.values()}
        assert drawn.prompt_BT.shape == plain.prompt_BT.shape
        assert drawing().is_usual(drawn)
        assert not drawn.real_BT[:, 0].any()
    mixed = [batch_at(drawing(Corruption(text_alone=0.5)), (seed,)).has_images for seed in range(12)]
    assert 2 < sum(mixed) < 10


def test_without_the_share_batches_are_those_of_before() -> None:
    """No number is drawn for what is not asked for: a recipe without it gives the batches that it gave."""
    for corruption in (Corruption(), Corruption(hints=0.3, rewriting=0.3)):
        one, other = (batch_at(drawing(each), (7,)) for each in (corruption, replace(corruption, text_alone=1e-9)))
        same = np.array_equal(one.target_BL, other.target_BL)
        assert same is (corruption.hints > 0)


def test_the_sibling_has_no_such_batches() -> None:
    """A diffusion model is trained so, and no other."""
    assert batch_at(drawing(ALONE, "autoregressive"), (3,)).has_images


def test_what_is_open_is_impression_and_all_else_stands_as_in_a_request() -> None:
    """The canvas is the engine's at the right length, end of turn included; at times some of the gap is right."""
    kinds = set()
    for seed, report in enumerate(reports(24)):
        target, shown, noise = made(report, EXACT, seed)
        layout = laid_out(report, 0)
        locked = ~np.array(layout.free)
        assert np.array_equal(shown, target)
        assert np.array_equal(shown[locked], np.array(layout.ids)[locked])
        assert not noise[locked].any()
        kinds.add("whole" if noise[~locked].all() else "some are right")
    assert kinds == {"whole", "some are right"}


def test_the_gap_may_have_the_wrong_length() -> None:
    """The canvas is then that of the engine's at another length, all of the gap noise, and the target stays."""
    shifts = set()
    for seed, report in enumerate(reports(24)):
        target, shown, noise = made(report, WRONG, seed)
        assert np.array_equal(target, made(report, EXACT, seed)[0])
        shift = int(noise.sum()) - sum(laid_out(report, 0).free)
        layout = laid_out(report, shift)
        assert np.array_equal(noise, layout.free)
        assert np.array_equal(shown[~noise], np.array(layout.ids)[~noise])
        shifts.add(shift)
    assert 0 not in shifts
    assert min(shifts) < 0 < max(shifts)


def test_findings_are_the_phantoms_and_impression_follows_from_them() -> None:
    """The clean text of a batch states every slot, but for remarks that stand among it; the target ends the report."""
    drawn = batch_at(drawing(Corruption(text_alone=1.0, shift=0.0, foreign_lock=0.0)), (5,))
    for target, noise, findings in zip(drawn.target_BL, drawn.noise_BL, drawn.findings, strict=True):
        body, end = (line.split(": ", 1)[1] for line in decode(tokenizer(), target.tolist()).split("\n"))
        said, concluded = (read_sentences(split_sentences(text)) for text in (body, end))
        assert not said.unknown
        assert not concluded.unknown
        stated = said.findings()
        assert stated is not None
        assert np.array_equal(stated.indices(), findings)
        assert not [name for name, value in concluded.stated if stated[name] != value]
        assert not noise[: len(encode_fragment(tokenizer(), body))].any()


def test_remarks_stand_in_findings_and_are_not_concluded_from() -> None:
    """What a clinician added to Findings is clean text there; Impression says what it says without it."""
    drawn = batch_at(drawing(Corruption(text_alone=1.0, shift=0.0, foreign_lock=1.0)), (6,))
    texts = [decode(tokenizer(), target.tolist()).split("\nImpression: ") for target in drawn.target_BL]
    whole = [text for text in texts if len(text) == 2]
    assert len(whole) > 4
    assert all(read_sentences(split_sentences(body.removeprefix("Findings: "))).unknown for body, _ in whole)
    assert not any(read_sentences(split_sentences(end)).unknown for _, end in whole)


def test_the_loss_does_not_know_the_image(tmp_path: Path) -> None:
    """Other images, the same loss of the text, where the prompt has none; the classifiers go on seeing them."""
    run = PhantomTrainer(tiny_recipe(), Options(out=tmp_path, tokenizer=default_checkpoint()), RunLog(tmp_path))

    def parts(drawn: Batch) -> dict[str, float]:
        run.generator.manual_seed(3)
        with torch.no_grad():
            return {name: float(value) for name, value in run.loops["training"].task.loss(drawn).items()}

    for corruption, blind in ((ALONE, True), (Corruption(), False)):
        drawn, other = (batch_at(drawing(corruption), (seed,)) for seed in (1, 2))
        one, two = parts(drawn), parts(replace(drawn, anatomy=other.anatomy))
        assert one["auxiliary"] != two["auxiliary"]
        assert (one["objective"] == two["objective"]) is blind


def test_padding_in_the_place_of_the_image_changes_nothing() -> None:
    """The loss behind a padded prompt is that behind the prompt as the engine gives it."""
    model, drawn = random_model(), batch_at(drawing(), (4,))
    answers = Answers(*(torch.from_numpy(each) for each in (drawn.target_BL, drawn.canvas_BL, drawn.noise_BL)))
    length = int(drawn.real_BT[0].sum())
    ids, types, real = (torch.from_numpy(each) for each in (drawn.prompt_BT, drawn.types_BT, drawn.real_BT))
    losses = [
        BlockDiffusion(len(tokenizer())).loss(model, prompts, None, answers, torch.Generator().manual_seed(1)).item()
        for prompts in (Prompts(ids, types, real), Prompts(ids[:, -length:], types[:, -length:]))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=2e-5)


def test_a_run_without_images_learns_and_says_so(tmp_path: Path) -> None:
    """Such batches alone train a tiny model from a checkpoint's vocabulary, and the checkpoint names the share."""
    options = Options(out=tmp_path, tokenizer=default_checkpoint())
    run = PhantomTrainer(tiny_recipe().changed(["corruption.text_alone=1"]), options, RunLog(tmp_path))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.run()
    assert any(not torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert all(bool(value.isfinite().all()) for value in run.average.values())
    run.save()
    assert read_about(tmp_path, "x").fills_without_image
    PhantomTrainer(tiny_recipe(), options, RunLog(tmp_path)).save()
    assert not read_about(tmp_path, "x").fills_without_image


def test_checkpoints_say_whether_they_do_without_an_image(tmp_path: Path) -> None:
    """Where nothing is said those that follow instructions do, and demonstrations do not; ours was trained to."""
    assert read_about(default_checkpoint(), "x").fills_without_image
    (tmp_path / "config.json").write_text('{"model_type": "diffusion_gemma"}')
    assert read_about(tmp_path, "x").fills_without_image
    for said, expected in (
        ("{}", True),
        ('{"demonstration": true}', False),
        ('{"demonstration": true, "fills_without_image": true}', True),
        ('{"fills_without_image": false}', False),
    ):
        (tmp_path / "inlay.json").write_text(said)
        assert read_about(tmp_path, "x").fills_without_image is expected


# ── what is said of an answer ───────────────────────────────────────────────────────────────────────────────────────


def test_an_untrained_checkpoint_notes_that_there_was_no_image(engine: Engine, image: np.ndarray) -> None:
    """It writes all the same; with an image, and from a checkpoint that was trained so, nothing is said."""
    about = replace(engine.checkpoint.about, fills_without_image=False)
    untrained = Engine(replace(engine.checkpoint, about=about))
    asked = (Section("findings", (Lock("Clear. "), Gap(max_tokens=3))), Section("impression", (Gap(max_tokens=3),)))
    found = {
        name: [NOTE in model.infill(images, asked, settings=SHORT).notes for images in (None, [], [image])]
        for name, model in (("trained", engine), ("untrained", untrained))
    }
    assert found == {"trained": [False, False, False], "untrained": [True, True, False]}


def test_the_command_keeps_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line per phantom, and a table of both ways; of a model that writes nothing sensible neither is right."""
    folder, out = save_tiny_checkpoint(tmp_path / "tiny"), tmp_path / "out.jsonl"
    wanted = ["--model", str(folder), "--device", "cpu", "--seed", "1", "--limit", "1", "--out", str(out)]
    assert main(wanted) == 0
    (line,) = map(json.loads, out.read_text().splitlines())
    assert (line["seen"]["exact"], line["alone"]["exact"]) == (False, False)
    assert "| without it | 1 | 0.000 | 0.000 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (["--seed", "1000000"], "A seed is from 1 to 999999"),
        (["--out", "/dev/null/out.jsonl"], "/dev/null is a file"),
        (["--model", "/nowhere"], "There is no checkpoint folder /nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(
    wanted: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, before anything is measured."""
    with pytest.raises(SystemExit) as ended:
        main(wanted)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
