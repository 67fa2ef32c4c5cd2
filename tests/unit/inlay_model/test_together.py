"""Several requests in one batch: each gets what it would get alone, and none takes another down."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaForBlockDiffusion

from inlay_model import (
    BadImage,
    BadRequest,
    Cancelled,
    CanvasOverflow,
    DraftRequest,
    Engine,
    Filled,
    Gap,
    GenerationSettings,
    InfillRequest,
    Lock,
    NotANumber,
    PromptContext,
    Section,
)
from inlay_model.accelerator.accelerated import attach, detach
from inlay_model.loading import default_checkpoint
from inlay_model.passes import Passes, Reader, Underway, View, driven
from inlay_model.phantom.grammar import STYLES, write_report
from inlay_model.phantom.render import phantom
from inlay_model.prefix import Decoder, Prefix, encode
from inlay_model.together import Readers, Tally, merged, together
from inlay_testkit.tiny_diffusion import tiny_config, tiny_tokenizer

Request = DraftRequest | InfillRequest


def alone(engine: Engine, request: Request) -> Filled:
    """The answer to a request by itself."""
    (answer,) = engine.batch([request])
    assert isinstance(answer, Filled)
    return answer


def mixed_requests(image: np.ndarray) -> list[Request]:
    """Twenty-four drafts and infills: two images and none, all kinds of gaps, seeds and numbers of steps."""
    asked: list[Request] = []
    for seed in range(8):
        settings = GenerationSettings(steps=3 + seed % 4, seed=seed, begin_again=seed % 2 == 0)
        shown = image if seed % 3 else 255 - image
        asked.append(DraftRequest([shown], settings=settings, begin="The lungs" if seed % 4 == 1 else ""))
        one = (Section("findings", (Lock("The heart is normal in size. "), Gap(), Lock("No pneumothorax. "))),)
        asked.append(InfillRequest([shown] if seed % 2 else None, one, settings))
        several = (
            Section("findings", (Gap(2, 5), Lock("No pleural effusion. "), Gap(max_tokens=4))),
            Section("impression", (Gap() if seed % 2 else Lock("No acute findings."),)),
        )
        context = PromptContext(style="concise") if seed % 2 else None
        asked.append(InfillRequest([shown], several, settings, context))
    return asked


def test_each_request_of_a_batch_gets_what_it_gets_alone(engine: Any, image: np.ndarray) -> None:
    """Twenty-four mixed requests in one batch: text, steps, lengths and notes of each are those of a run of its own."""
    asked = mixed_requests(image)
    answers = engine.batch(asked)
    for request, answer in zip(asked, answers, strict=True):
        single = alone(engine, request)
        assert answer.sections == single.sections
        assert answer.notes == single.notes
        assert answer.run.steps_taken == single.run.steps_taken
        assert answer.run.gap_lengths == single.run.gap_lengths
        assert answer.run.forward_passes == single.run.forward_passes
        assert single.run.batch == 1
    assert sum(answer.run.batch > 4 for answer in answers) > 12


def test_an_answer_does_not_depend_on_its_neighbours_or_its_place(engine: Any, image: np.ndarray) -> None:
    """The same request first, last and among others gives the same text."""
    asked = mixed_requests(image)
    probe = asked[2]
    texts = {
        engine.batch(batch)[at].run.text_digest
        for batch, at in (([probe, *asked[5:8]], 0), ([*asked[9:14], probe], 5), ([probe, probe], 1))
    }
    assert len(texts) == 1


def test_an_accelerated_model_takes_the_steps_of_a_batch_together(
    engine: Any, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With steps taken on the device the texts are those of the plain passes: alone, in a batch, and in turn.

    In turn, one canvas a pass, each finds in place what another has had put there.
    """
    asked = mixed_requests(image)[:9]
    plain = [alone(engine, request) for request in asked]
    path = attach(engine.checkpoint.model)
    assert path is not None
    try:
        singles = [alone(engine, request) for request in asked]
        steps = path.counts["step.fast"]
        answers = engine.batch(asked)
        shared = path.counts["step.fast"] - steps
        monkeypatch.setattr("inlay_model.engine._MOST_ROWS", 1)
        in_turn = engine.batch(asked)
    finally:
        detach(engine.checkpoint.model)
    assert [answer.text for answer in singles] == [answer.text for answer in plain]
    assert [answer.text for answer in answers] == [answer.text for answer in plain]
    assert [answer.text for answer in in_turn] == [answer.text for answer in plain]
    assert 0 < shared < steps / 2
    assert path.counts["step.plain"] == 0


def test_the_shipped_checkpoint_answers_batches_as_it_answers_single_requests() -> None:
    """Twenty mixed requests about phantoms: the texts of a batch are those of single runs."""
    engine = Engine.load(default_checkpoint(), device="cpu")
    asked: list[Request] = []
    for seed in range(10):
        shown = phantom(1_000_900 + seed // 2)
        report = write_report(shown.findings, STYLES[seed % 3], np.random.default_rng(seed))
        said = list(dict(report.sections)["findings"])
        settings = GenerationSettings(steps=4 + seed % 3, seed=seed)
        items = tuple(Gap() if at == seed % len(said) else Lock(f"{text} ") for at, text in enumerate(said))
        impression = Section("impression", (Lock(report.text("impression")) if seed % 2 else Gap(),))
        asked.append(DraftRequest([shown.image], settings=settings, context=PromptContext(STYLES[seed % 3])))
        asked.append(
            InfillRequest([shown.image] if seed % 4 else None, (Section("findings", items), impression), settings)
        )
    answers = engine.batch(asked)
    singles = [alone(engine, request) for request in asked]
    assert [answer.text for answer in answers if isinstance(answer, Filled)] == [single.text for single in singles]


def test_a_request_that_fails_leaves_the_others_alone(engine: Any, image: np.ndarray) -> None:
    """Each kind of refusal and a cancellation stand in their places; the neighbours get their texts."""
    fine = mixed_requests(image)[:3]
    steps: list[int] = []
    asked: list[Request] = [
        fine[0],
        DraftRequest([np.zeros((4, 4), np.uint16)]),
        fine[1],
        DraftRequest([]),
        InfillRequest(None, (Section("findings", (Lock("ॐ" * 40), Gap())),)),
        DraftRequest([image], on_step=lambda event: steps.append(event.step), cancelled=lambda: len(steps) >= 2),
        fine[2],
    ]
    answers = engine.batch(asked)
    kinds = [type(answer) for answer in answers]
    assert kinds == [Filled, BadImage, Filled, BadRequest, CanvasOverflow, Cancelled, Filled]
    assert steps == [1, 2]
    for place, request in zip((0, 2, 6), fine, strict=True):
        assert answers[place].sections == alone(engine, request).sections


def test_ends_are_told_as_they_come(engine: Any, image: np.ndarray) -> None:
    """A request that needs few steps ends before one that needs many, and its end is told at once, once."""
    slow = DraftRequest([image], settings=GenerationSettings(steps=12, early_stop=False))
    quick = DraftRequest([image], settings=GenerationSettings(steps=2, early_stop=False))
    told: list[int] = []
    answers = engine.batch([slow, quick], lambda place, answer: told.append(place) or answer)
    assert told == [1, 0]
    assert [answer.run.steps_taken for answer in answers] == [12, 2]


def test_nothing_asked_is_nothing_answered(engine: Any) -> None:
    """An empty batch is no error."""
    assert engine.batch([]) == []


# ── shared passes ────────────────────────────────────────────────────────────────────────────────────────────────────


def view_of(number: int, rows: int = 1) -> View:
    """A view of canvases that hold this number; every position is wanted."""
    canvas_BL = torch.full((rows, 3), number)
    return View(canvas_BL, torch.ones_like(canvas_BL, dtype=torch.bool), None, (Prefix(None, number),) * rows)


def summing(number: int, passes: int, rows: int = 1) -> Passes[float]:
    """Work that needs so many passes and returns the sum of the logits that it was sent."""
    total = 0.0
    for _ in range(passes):
        total += float((yield view_of(number, rows)).sum())
    return total


def test_nobody_waits_before_all_of_a_pass_have_their_answers_under_way() -> None:
    """Work whose answer is under way is gone on with once every neighbour of its pass has got so far."""
    order: list[str] = []

    def patient(name: str) -> Passes[str]:
        for number in (1, 2):
            yield view_of(number)
            order.append(f"{name}{number} is under way")
            yield Underway(None)
            order.append(f"{name}{number} is looked at")
        return name

    works = [(patient(name), Tally()) for name in "ab"]
    assert together(works, readers_of(Echo()), 8) == ["a", "b"]
    assert order == [
        f"{name}{number} is {what}" for number in (1, 2) for what in ("under way", "looked at") for name in "ab"
    ]
    assert [tally.passes for _, tally in works] == [2, 2]
    alone = cast("Reader", lambda canvas_BL, wanted_BL, _: canvas_BL[wanted_BL].unsqueeze(-1).float())
    assert driven(patient("c"), alone) == "c"


class Echo:
    """A model that answers with what is on the canvas; it fails where it sees one of the `poison` numbers."""

    def __init__(self, poison: Sequence[int] = ()) -> None:
        self.poison = set(poison)
        self.rows: list[int] = []

    def read(self, canvas_BL: torch.Tensor, wanted_BL: torch.Tensor) -> torch.Tensor:
        """The numbers of the canvas as logits of one token."""
        self.rows.append(canvas_BL.shape[0])
        if self.poison & set(canvas_BL.flatten().tolist()):
            raise MemoryError
        return canvas_BL[wanted_BL].unsqueeze(-1).float()


def readers_of(echo: Echo) -> Readers:
    """Readers that all are this model."""
    return Readers(None, lambda *_: lambda canvas_BL, wanted_BL, *_: echo.read(canvas_BL, wanted_BL))


def test_passes_are_shared_up_to_the_most_rows() -> None:
    """Five pieces of work of one row each, at most two rows a pass: three passes a round, everybody gets his own."""
    echo = Echo()
    works = [(summing(number, 2), Tally()) for number in range(5)]
    assert together(works, readers_of(echo), 2) == [number * 3 * 2 for number in range(5)]
    assert echo.rows == [2, 2, 1] * 2
    assert [(tally.passes, tally.shared) for _, tally in works] == [(2, 2)] * 4 + [(2, 1)]


def test_a_view_larger_than_the_most_rows_is_read_by_itself() -> None:
    """A look at five canvases at once is not torn apart."""
    echo = Echo()
    works = [(summing(1, 1, rows=5), Tally()), (summing(2, 1), Tally())]
    assert together(works, readers_of(echo), 2) == [15.0, 6.0]
    assert echo.rows == [5, 1]


def test_a_shared_pass_that_fails_ends_only_the_work_at_fault() -> None:
    """Where the device runs out of memory for three rows, each is read by itself; only the poison one fails."""
    echo = Echo(poison=[1])
    works = [(summing(number, 2), Tally()) for number in range(3)]
    first, second, third = together(works, readers_of(echo), 8)
    assert (first, third) == (0.0, 12.0)
    assert isinstance(second, MemoryError)
    assert echo.rows == [3, 1, 1, 1, 2]


def test_work_may_catch_what_its_pass_raised() -> None:
    """The failure of a pass is raised where the work waits for it."""

    def careful() -> Passes[str]:
        try:
            yield view_of(1)
        except MemoryError:
            return "saved"
        return "read"

    assert together([(careful(), Tally())], readers_of(Echo(poison=[1])), 8) == ["saved"]


def test_rows_in_their_first_step_are_merged_with_rows_that_are_not() -> None:
    """A view without conditioning gets zeros and is marked; where none has any there is none."""
    told = View(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), torch.full((1, 3, 5), 7.0))
    new = View(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
    both, conditioned_B = merged([told, new])
    assert both.conditioning_BLV is not None
    assert both.conditioning_BLV[0].eq(7).all()
    assert both.conditioning_BLV[1:].eq(0).all()
    assert conditioned_B is not None
    assert conditioned_B.tolist() == [True, False, False]
    assert merged([new, new])[0].conditioning_BLV is None
    assert merged([told, told])[1] is None


@pytest.mark.parametrize("window", [16, 512])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padded_rows_read_what_single_rows_read(window: int, attention: str) -> None:
    """Prompts of three lengths in one pass, longer and shorter than the sliding window: the logits of single passes."""
    tokenizer = tiny_tokenizer()
    config: Any = tiny_config(tokenizer)
    config.text_config.sliding_window = window
    torch.manual_seed(0)
    model: Any = DiffusionGemmaForBlockDiffusion(config).eval()
    model.set_attn_implementation(attention)
    draw = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        prompts = [torch.randint(20, 400, (length,), generator=draw).tolist() for length in (9, 40, 23)]
        prefixes = [encode(model, tuple(ids), (0,) * len(ids), None) for ids in prompts]
        canvas_BL = torch.randint(400, (3, 8), generator=draw)
        wanted_BL = torch.ones_like(canvas_BL, dtype=torch.bool)
        told_BLV = torch.randn(3, 8, len(tokenizer), generator=draw)
        conditioned_B = torch.tensor([True, False, True])
        joint_NV = Decoder(model, prefixes)(canvas_BL, wanted_BL, told_BLV, conditioned_B)
        for row, prefix in enumerate(prefixes):
            told = told_BLV[row : row + 1] if conditioned_B[row] else None
            single_NV = Decoder(model, prefix)(canvas_BL[row : row + 1], wanted_BL[row : row + 1], told)
            torch.testing.assert_close(joint_NV[row * 8 : row * 8 + 8], single_NV, rtol=1e-4, atol=1e-4)


def test_nan_in_one_row_is_that_rows_error(engine: Any, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers NaN for one request's rows ends that request; the other one is answered."""
    asked = [DraftRequest([image], settings=GenerationSettings(steps=3)) for _ in range(2)]
    call = Decoder.__call__

    def damaged(self: Decoder, canvas_BL: torch.Tensor, *given: Any) -> torch.Tensor:
        logits_NV = call(self, canvas_BL, *given)
        if canvas_BL.shape[0] == 2:
            logits_NV[logits_NV.shape[0] // 2 :] = float("nan")
        return logits_NV

    monkeypatch.setattr(Decoder, "__call__", damaged)
    first, second = engine.batch(asked)
    assert isinstance(first, Filled)
    assert isinstance(second, NotANumber)
