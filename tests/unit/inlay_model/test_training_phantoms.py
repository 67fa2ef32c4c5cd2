"""Phantoms as training examples: what is noise, what is clean, what is asked, and what the target is."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from inlay_model.canvas import encode_fragment, encode_report
from inlay_model.gap_prompt import GAP_MARK
from inlay_model.loading import make_image_processor
from inlay_model.phantom.findings import Findings, draw_findings
from inlay_model.phantom.grammar import read_sentences, split_sentences, write_report
from inlay_model.phantom.render import phantom
from inlay_model.tokens import control_tokens
from inlay_model.training.corruption import Corruption, TokenText
from inlay_model.training.encoding import patches
from inlay_model.training.gap_questions import gap_of
from inlay_model.training.objectives import with_noise
from inlay_model.training.phantoms import Batch, Drawing, ReportEncoder, batch_at, batches, corrupted, gaps_around
from inlay_model.training.scratch import Stream, chosen_at, drawn_at
from inlay_testkit.tiny_training import CANVAS, SOFT_TOKENS, tiny_drawing, tokenizer


def drawing(corruption: Corruption, kind: str = "diffusion", size: int = 32) -> Drawing:
    """Phantoms with this corruption."""
    return Drawing(tokenizer(), kind, size, CANVAS, SOFT_TOKENS, corruption)


def first(corruption: Corruption, seed: int = 3) -> Batch:
    """The first batch of a stream."""
    return next(batches(drawing(corruption), [seed]))


def test_targets_are_what_the_engine_would_encode() -> None:
    """Trainer and engine tokenise a report alike, sentence by sentence."""
    report = write_report(Findings.normal(heart="mildly enlarged"), "standard", np.random.default_rng(1))
    assert ReportEncoder(tokenizer())(report).ids.tolist() == encode_report(tokenizer(), report.sections)


def test_the_same_seed_gives_the_same_batches() -> None:
    """A run can be made again: batches follow from the seed alone."""
    one, again, other = (first(Corruption(), seed) for seed in (3, 3, 4))
    assert np.array_equal(one.target_BL, again.target_BL)
    assert np.array_equal(one.noise_BL, again.noise_BL)
    assert not np.array_equal(one.target_BL, other.target_BL)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_who_makes_them(workers: int) -> None:
    """With any number of worker processes a run sees the same batches in the same order, from any number on."""
    stream = Stream(partial(drawn_at, tiny_drawing(), (5, 1)), first=3)
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=workers)
    for number, found in zip(range(3, 7), loader, strict=False):
        assert np.array_equal(found.target_BL, batch_at(tiny_drawing(), (5, 1, number)).target_BL)


def test_batches_of_known_studies_say_which_they_are_of() -> None:
    """Each row has the findings of the study that it names; another number chooses others."""
    known = draw_findings(5, np.random.default_rng(0))
    drawn, chosen = chosen_at(tiny_drawing(), (5, 7), known, 3)
    assert np.array_equal(drawn.findings, known[chosen])
    again, same = chosen_at(tiny_drawing(), (5, 7), known, 3)
    assert np.array_equal(chosen, same)
    assert np.array_equal(drawn.target_BL, again.target_BL)
    other, _ = chosen_at(tiny_drawing(), (5, 7), known, 4)
    assert not np.array_equal(drawn.target_BL, other.target_BL)


def test_gaps_leave_all_other_text_clean() -> None:
    """In an infill example the canvas is the target, and noise covers some of it but never all."""
    drawn = first(Corruption(infill=1.0, shift=0.0))
    assert np.array_equal(drawn.canvas_BL, drawn.target_BL)
    assert drawn.noise_BL.any()
    assert not drawn.noise_BL.all(axis=1).any()


def test_where_only_some_of_findings_stand_the_rest_says_what_the_image_shows() -> None:
    """Impression is open behind a part of Findings, which nobody asks to be written so; or all but a part is open."""
    rng = np.random.default_rng(0)
    corruption = Corruption(infill=1.0, shift=0.0, foreign_lock=0.0, sparse=1.0)
    findings = Findings.normal(heart="mildly enlarged", right_effusion="moderate", pacemaker="left")
    stated = {("heart", "mildly enlarged"), ("right effusion", "moderate")}
    counts: dict[bool, set[int]] = {True: set(), False: set()}
    for _ in range(60):
        target, _, noise = corrupted(ReportEncoder(tokenizer()), findings, "standard", CANVAS, corruption, rng)
        assert noise.any()
        ids = target[: int((target == control_tokens(tokenizer()).end_of_turn).argmax())].tolist()
        begin = next(at for at in range(len(ids)) if "Impression:" in str(tokenizer().decode(ids[: at + 1])))
        body, conclusion = str(tokenizer().decode(ids)).split("Impression:")
        sentences = split_sentences(body.removeprefix("Findings:"))
        said = read_sentences(sentences)
        assert not said.unknown
        assert all(findings[slot] == value for slot, value in said.stated)
        assert stated <= read_sentences(split_sentences(conclusion)).stated
        # What is to be written in Findings leaves nothing out.
        completed = bool(noise[:begin].any())
        assert not completed or stated | {("pacemaker", "left")} <= said.stated
        counts[completed].add(len(sentences))
    assert min(counts[False]) == 1
    assert len(counts[False]) > 2
    assert len(counts[True]) == 1


@pytest.mark.parametrize(
    ("standing", "gaps"),
    [
        # Behind all of Findings Impression alone is open, behind a part of them the rest and what comes after it.
        ([0, 1], [(6, 9)]),
        ([0], [(3, 22)]),
        ([1], [(1, 3), (6, 9)]),
    ],
)
def test_gaps_lie_around_what_stands(standing: list[int], gaps: list[tuple[int, int]]) -> None:
    """As a request has them: header and end of turn are open where all that follows the last lock is."""
    # A header, two sentences, a header, a sentence, the end of turn.
    text = TokenText(np.arange(10), ((0, 1), (1, 3), (3, 5), (5, 6), (6, 9)), (False, True, True, False, True))
    assert gaps_around(text, standing, 2, 12) == gaps


def test_a_misplaced_canvas_differs_from_its_target_after_the_gap_only() -> None:
    """In a shift example the text before the gap stands right, and what follows it stands elsewhere."""
    rng = np.random.default_rng(0)
    encoder, shift_only = ReportEncoder(tokenizer()), Corruption(infill=0.0, shift=1.0, foreign_lock=0.0)
    moved = 0
    for _ in range(40):
        target, canvas, noise = corrupted(encoder, Findings.normal(), "standard", CANVAS, shift_only, rng)
        begin = int(noise.argmax()) if noise.any() else 0
        assert np.array_equal(canvas[:begin], target[:begin])
        moved += not np.array_equal(canvas[~noise], target[~noise])
    assert moved > 35


def test_foreign_locks_do_not_overflow_the_canvas() -> None:
    """Text of another alphabet takes many tokens; the canvas keeps its length all the same."""
    foreign = drawing(Corruption(infill=1.0, shift=0.0, foreign_lock=1.0), size=16)
    for drawn in islice(batches(foreign, [9]), 5):
        assert drawn.target_BL.shape == drawn.noise_BL.shape == (16, CANVAS)


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_all_batches_of_a_run_have_one_shape(kind: str) -> None:
    """Whatever style and gaps they ask for; and each has some padding, without which masks are of another kind."""
    some = list(islice(batches(drawing(Corruption(infill=0.5), kind, size=24), [5]), 12))
    assert len({drawn.prompt_BT.shape for drawn in some}) == 1
    assert not any(drawn.real_BT[:, 0].any() for drawn in some)


def test_both_kinds_of_model_learn_the_same_reports() -> None:
    """Without gaps, prompts and targets of the sibling are those of the diffusion model, and nothing is noise."""
    plain = Corruption(infill=0.0, shift=0.0)
    one, other = (next(batches(drawing(plain, kind), [3])) for kind in ("diffusion", "autoregressive"))
    assert np.array_equal(one.prompt_BT[0][one.real_BT[0]], other.prompt_BT[0][other.real_BT[0]])
    assert not other.noise_BL.any()
    control = control_tokens(tokenizer())
    assert ((one.target_BL == control.end_of_turn).sum(1) == 1).all()
    assert ((other.target_BL == control.end_of_turn).sum(1) == 1).all()


def test_the_sibling_is_asked_for_gaps_as_its_backend_asks() -> None:
    """In a gap example the prompt ends with the question, and the target is the missing text with its end of turn."""
    asked = drawing(Corruption(infill=1.0, shift=0.0, foreign_lock=0.0), "autoregressive", size=8)
    drawn = next(batches(asked, [3]))
    for ids, real, target in zip(drawn.prompt_BT, drawn.real_BT, drawn.target_BL, strict=True):
        shown = tokenizer().decode(ids[real])
        assert shown.count(GAP_MARK) == 2  # in the question and in the report
        assert "Style" not in shown
        written = tokenizer().decode(target[target != asked.eos][:-1]).strip()
        assert written not in shown


def test_a_question_and_its_answer_make_the_report_again() -> None:
    """What stands around the gap and what is missing are the report together, in order."""
    report = write_report(Findings.normal(heart="mildly enlarged"), "standard", np.random.default_rng(2))
    for seed in range(20):
        question, missing = gap_of(report.sections, {}, np.random.default_rng(seed))
        text = question.split("\n", 2)[2].replace(GAP_MARK, " ".join(missing))
        whole = "\n".join(f"{name.capitalize()}: {' '.join(sentences)}" for name, sentences in report.sections)
        assert text == whole


def test_missing_text_is_tokenised_as_between_locks() -> None:
    """The answer to a gap question has the tokens that its sentences have in a report."""
    text = ReportEncoder(tokenizer()).sentences(("No pneumothorax.", "The lungs are clear."))
    expected = encode_fragment(tokenizer(), "No pneumothorax. The lungs are clear.")
    assert text.ids.tolist() == [*expected, control_tokens(tokenizer()).end_of_turn]


def test_noise_replaces_masked_tokens_only() -> None:
    """Tokens outside the mask are untouched, those under it are drawn anew."""
    clean = torch.zeros(4, 100, dtype=torch.long)
    mask = torch.arange(100).expand(4, -1) >= 50
    noisy = with_noise(clean, mask, 1000, torch.Generator().manual_seed(0))
    assert not noisy[:, :50].any()
    assert (noisy[:, 50:] != 0).float().mean() > 0.9


def test_patches_are_those_of_the_image_processor() -> None:
    """The trainer cuts images as the engine does, to the last bit."""
    image = phantom(3).image
    values, positions = patches(torch.from_numpy(image)[None], 16)
    expected = make_image_processor(max_soft_tokens=70)(images=[Image.fromarray(image)], return_tensors="pt")
    count = values.shape[1]
    assert torch.equal(expected.pixel_values[:, :count], values)
    assert torch.equal(expected.image_position_ids[:, :count], positions)
    assert (expected.image_position_ids[:, count:] == -1).all()


def test_doubtful_text_is_clean_and_its_false_sentence_has_another_target() -> None:
    """What differs from its target is one clean sentence, and what is to stand there is true or nothing."""
    doubts = drawing(Corruption(infill=0.0, shift=0.0, doubt=1.0), size=64)
    drawn = next(batches(doubts, [3]))
    false = (drawn.canvas_BL != drawn.target_BL).any(1)
    assert 0.4 < false.mean() < 0.8
    corrected = 0
    for canvas, target, noise, findings in zip(
        drawn.canvas_BL[false], drawn.target_BL[false], drawn.noise_BL[false], drawn.findings[false], strict=True
    ):
        differs = np.flatnonzero(canvas != target)
        assert not noise[differs].any()
        if (target[differs] != doubts.pad).all():
            corrected += 1
            body = tokenizer().decode(target[target != doubts.eos]).split(":", 1)[1].split("\n")[0]
            reading = read_sentences(split_sentences(body))
            assert not reading.unknown
            assert reading.findings() == Findings.from_indices(findings)
        else:
            assert (target[differs] == doubts.pad).all()
            assert (np.diff(differs) == 1).all()
    assert corrected > 3


def test_true_text_in_other_words_is_its_own_target() -> None:
    """Where nothing is false the target is what stands there, though half of the texts mix the words of styles."""
    doubts = drawing(Corruption(infill=0.0, shift=0.0, doubt=1.0), size=64)
    drawn = next(batches(doubts, [4]))
    true = (drawn.canvas_BL == drawn.target_BL).all(1)
    assert 0.2 < true.mean() < 0.6
