"""Training examples: what is noise, what is clean, and what the target is."""

from itertools import islice
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from inlay_model.canvas import encode_report
from inlay_model.data import Batch, Corruption, ReportEncoder, batches, corrupted
from inlay_model.loading import default_checkpoint, make_image_processor
from inlay_model.loss import patches, with_noise
from inlay_model.phantom.findings import Findings
from inlay_model.phantom.grammar import write_report
from inlay_model.phantom.render import phantom
from inlay_model.tokens import Tokenizer
from inlay_model.train import learning_rate

CANVAS = 128


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The vocabulary of the shipped checkpoint."""
    from transformers import AutoTokenizer

    return cast("Tokenizer", AutoTokenizer.from_pretrained(default_checkpoint()))


def first(tokenizer: Tokenizer, corruption: Corruption, seed: int = 3) -> Batch:
    """The first batch of a stream."""
    return next(batches(ReportEncoder(tokenizer), 32, CANVAS, corruption, [seed]))


def test_targets_are_what_the_engine_would_encode(tokenizer: Tokenizer) -> None:
    """Trainer and engine tokenise a report alike, sentence by sentence."""
    report = write_report(Findings.normal(heart="mildly enlarged"), "standard", np.random.default_rng(1))
    assert ReportEncoder(tokenizer)(report).ids.tolist() == encode_report(tokenizer, report.sections)


def test_the_same_seed_gives_the_same_batches(tokenizer: Tokenizer) -> None:
    """A run can be made again: batches follow from the seed alone."""
    one, again, other = (first(tokenizer, Corruption(), seed) for seed in (3, 3, 4))
    assert np.array_equal(one.target_BL, again.target_BL)
    assert np.array_equal(one.noise_BL, again.noise_BL)
    assert not np.array_equal(one.target_BL, other.target_BL)


def test_gaps_leave_all_other_text_clean(tokenizer: Tokenizer) -> None:
    """In an infill example the canvas is the target, and noise covers some of it but never all."""
    drawn = first(tokenizer, Corruption(infill=1.0, shift=0.0))
    assert np.array_equal(drawn.canvas_BL, drawn.target_BL)
    assert drawn.noise_BL.any()
    assert not drawn.noise_BL.all(axis=1).any()


def test_a_misplaced_canvas_differs_from_its_target_after_the_gap_only(tokenizer: Tokenizer) -> None:
    """In a shift example the text before the gap stands right, and what follows it stands elsewhere."""
    rng = np.random.default_rng(0)
    encoder, shift_only = ReportEncoder(tokenizer), Corruption(infill=0.0, shift=1.0, foreign_lock=0.0)
    moved = 0
    for _ in range(40):
        target, canvas, noise = corrupted(encoder, Findings.normal(), "standard", CANVAS, shift_only, rng)
        begin = int(noise.argmax()) if noise.any() else 0
        assert np.array_equal(canvas[:begin], target[:begin])
        moved += not np.array_equal(canvas[~noise], target[~noise])
    assert moved > 35


def test_foreign_locks_do_not_overflow_the_canvas(tokenizer: Tokenizer) -> None:
    """Text of another alphabet takes many tokens; the canvas keeps its length all the same."""
    foreign = Corruption(infill=1.0, shift=0.0, foreign_lock=1.0)
    for drawn in islice(batches(ReportEncoder(tokenizer), 16, CANVAS, foreign, [9]), 5):
        assert drawn.target_BL.shape == drawn.noise_BL.shape == (16, CANVAS)


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


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    """Warm-up rises to the peak, the cosine ends at a hundredth of it."""
    rates = [learning_rate(step, 1000, 1e-3, 100) for step in range(1000)]
    assert rates[:100] == sorted(rates[:100])
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-5, rel=0.1)
