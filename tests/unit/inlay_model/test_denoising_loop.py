import pytest
import torch

from inlay_model.errors import Cancelled, NotANumber
from inlay_model.generate import run
from inlay_model.schedule import Sampler
from inlay_model.step import Fixed, Step
from inlay_model.stride import Numbers

V = 7
SAMPLER = Sampler(8, 0.4, 0.8, 0.1, 1, 0.005, early_stop=True)


class Table:
    """A model of one sentence: it always predicts these tokens with this sharpness, and keeps what it was shown."""

    def __init__(self, tokens: list[int], sharpness: float = 40.0) -> None:
        self.logits_1LV = torch.nn.functional.one_hot(torch.tensor([tokens]), V).float() * sharpness
        self.canvases: list[torch.Tensor] = []
        self.conditions: list[torch.Tensor | None] = []

    def __call__(
        self, canvas_BL: torch.Tensor, wanted_BL: torch.Tensor, conditioning_BLV: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The table's logits, whatever is on the canvas."""
        self.canvases.append(canvas_BL.clone())
        self.conditions.append(None if conditioning_BLV is None else conditioning_BLV.clone())
        return self.logits_1LV.expand(canvas_BL.shape[0], -1, -1)[wanted_BL]


def free_and_locked() -> Fixed:
    """A canvas of four whose ends are locked to 5."""
    return Fixed(torch.tensor([[5, 0, 0, 5]]), torch.tensor([[True, False, False, True]]))


def generator() -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(3)


def test_every_pass_sees_the_locks_on_canvas_and_in_self_conditioning() -> None:
    """The model is shown the locks in every step, on the canvas and (from the second step) as certainty."""
    table = Table([1, 1, 2, 1], sharpness=1.0)
    done = run(table, free_and_locked(), SAMPLER, V, generator())
    assert done.steps == SAMPLER.steps
    assert all(canvas_BL[0, [0, 3]].tolist() == [5, 5] for canvas_BL in table.canvases)
    assert table.conditions[0] is None
    for told_BLV in table.conditions[1:]:
        assert told_BLV is not None
        assert told_BLV[0, [0, 3]].softmax(-1).argmax(-1).tolist() == [5, 5]


def test_the_emitted_text_is_the_argmax_with_locks_re_imposed() -> None:
    """Where the model disagrees with a lock, the lock is emitted; elsewhere the model's most likely token."""
    assert run(Table([1, 1, 2, 1]), free_and_locked(), SAMPLER, V, generator()).ids_BL.tolist() == [[5, 1, 2, 5]]


def test_a_stable_and_confident_canvas_stops_early() -> None:
    """A sure model needs two steps (one to predict, one to agree with itself); with early stop off all are taken."""
    assert run(Table([1, 1, 2, 1]), free_and_locked(), SAMPLER, V, generator()).steps == 2
    patient = Sampler(8, 0.4, 0.8, 0.1, 1, 0.005, early_stop=False)
    assert run(Table([1, 1, 2, 1]), free_and_locked(), patient, V, generator()).steps == 8


def test_cancelling_stops_between_two_steps() -> None:
    """Once `cancelled` is true no further pass is made and nothing is returned."""
    table = Table([1, 1, 2, 1], sharpness=1.0)
    with pytest.raises(Cancelled):
        run(table, free_and_locked(), SAMPLER, V, generator(), cancelled=lambda: len(table.canvases) == 3)
    assert len(table.canvases) == 3


def test_nan_logits_are_a_named_error() -> None:
    """A model that answers NaN is stopped in its first step."""
    table = Table([1, 1, 2, 1])
    table.logits_1LV[:] = float("nan")
    with pytest.raises(NotANumber):
        run(table, free_and_locked(), SAMPLER, V, generator())
    assert len(table.canvases) == 1


def test_rows_that_are_done_stand_still() -> None:
    """In a batch, a finished row's text no longer changes while an unsure row goes on."""
    table = Table([1, 1, 2, 1])
    calls: list[int] = []

    def read(
        canvas_BL: torch.Tensor, wanted_BL: torch.Tensor, conditioning_BLV: torch.Tensor | None = None
    ) -> torch.Tensor:
        calls.append(1)
        logits_BLV = table.logits_1LV.repeat(2, 1, 1)
        logits_BLV[1] = 0.01 * torch.randn(4, V, generator=torch.Generator().manual_seed(len(calls)))
        if len(calls) > 2:
            logits_BLV[0] = logits_BLV[0].roll(1, dims=-1)
        return logits_BLV[wanted_BL]

    one = free_and_locked()
    both = Fixed(one.ids_BL.repeat(2, 1), one.locked_BL.repeat(2, 1))
    done = run(read, both, SAMPLER, V, generator())
    assert done.steps == 8
    assert done.ids_BL[0].tolist() == [5, 1, 2, 5]


def test_each_step_is_told() -> None:
    """The callback hears every step once, counted from 1."""
    heard: list[int] = []

    def hear(number: int, step: Step) -> None:
        heard.append(number)

    run(Table([1, 1, 2, 1], sharpness=1.0), free_and_locked(), SAMPLER, V, generator(), on_step=hear)
    assert heard == list(range(1, 9))


def test_numbers_drawn_ahead_are_the_next_steps_and_can_be_taken_back() -> None:
    """Drawn ahead or not, steps get the same numbers; taken back, the generator stands where it stood."""
    plain, eager, after = generator(), generator(), generator()
    ahead, due = (Numbers(free_and_locked(), 2, V, each) for each in (eager, plain))
    for _ in range(3):
        for got, expected in zip(ahead.ahead(), ahead.ahead(), strict=True):
            assert got is expected
        for got, expected in zip(ahead.ahead(), due.ahead(), strict=True):
            assert got.equal(expected)
        ahead.use_up()
        due.use_up()
    ahead.ahead()
    ahead.ahead()
    assert not eager.get_state().equal(plain.get_state())
    ahead.take_back()
    assert eager.get_state().equal(plain.get_state())
    assert not plain.get_state().equal(after.get_state())
