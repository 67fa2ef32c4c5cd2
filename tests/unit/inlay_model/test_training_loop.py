"""The training loop and its log, on a linear model: what a step is, and how a run goes on."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inlay_model import NotANumber
from inlay_model.errors import NotEnoughMemory
from inlay_model.training import loop as loops
from inlay_model.training.log import RunLog
from inlay_model.training.loop import Loop, Task
from inlay_model.training.optimisation import learning_rate
from inlay_model.training.recipe import Phase

CPU = torch.device("cpu")


def phase(**changes: Any) -> Phase:
    """Ten steps of four examples."""
    return Phase(**{"steps": 10, "batch": 4, "learning_rate": 0.05, "warm_up": 2, "precision": "fp32", **changes})


def numbers(first: int, size: int) -> Iterator[torch.Tensor]:
    """Batches that follow from their number."""
    number = first
    while True:
        yield torch.arange(number * size, (number + 1) * size, dtype=torch.float32).sin()[:, None]
        number += 1


def line_loop(
    out: Path, of: Phase, weight: Any = None, spoil: float = 1.0
) -> tuple[torch.nn.Linear, Loop[torch.Tensor]]:
    """A loop that fits a line."""
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)

    def loss(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((model(batch) - 3 * batch - 1) ** 2).mean() * spoil}

    task = Task("fit", loss, weight or (lambda _: 1.0))
    return model, Loop(task, of, list(model.parameters()), CPU, RunLog(out))


class Clock:
    """The loop's clock, which the test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(loops, "time", SimpleNamespace(monotonic=lambda: self.now))

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def weights(model: torch.nn.Module) -> torch.Tensor:
    """All weights as one vector."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    """Warm-up rises to the peak, the cosine ends at a hundredth of it; a constant rate stays."""
    chosen = phase(steps=1000, learning_rate=1e-3, warm_up=100)
    rates = [learning_rate(step, 1000, chosen) for step in range(1000)]
    assert rates[:100] == sorted(rates[:100])
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-5, rel=0.1)
    constant = phase(schedule="constant", warm_up=0)
    assert {learning_rate(step, 10, constant) for step in range(10)} == {0.05}


@pytest.mark.parametrize("portion", [1, 2, 4])
def test_accumulated_portions_are_one_batch(tmp_path: Path, portion: int) -> None:
    """Gradients of portions add up to that of the batch: the weights after some steps are the same."""
    whole, loop = line_loop(tmp_path / "a", phase())
    loop.run(numbers(0, 4))
    parts, loop = line_loop(tmp_path / "b", phase(micro_batch=portion))
    loop.run(numbers(0, portion))
    assert torch.allclose(weights(whole), weights(parts), atol=1e-6)


def test_portions_count_by_their_weight(tmp_path: Path) -> None:
    """A portion with more supervised tokens counts more: the step is that of the mean over all of them."""
    ragged = [torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[-1.0]])]
    parts, loop = line_loop(tmp_path / "a", phase(steps=1, batch=2, micro_batch=1), weight=len)
    loop.run(iter(ragged))
    whole, loop = line_loop(tmp_path / "b", phase(steps=1, batch=1))
    loop.run(iter([torch.cat(ragged)]))
    assert torch.allclose(weights(parts), weights(whole), atol=1e-7)


def test_a_run_that_goes_on_is_one_that_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, optimiser and rate after stopping at a step and going on equal those of an uninterrupted run."""
    straight, loop = line_loop(tmp_path / "a", phase())
    loop.run(numbers(0, 4))
    _, first = line_loop(tmp_path / "b", phase())
    clock = Clock(monkeypatch)
    first.after_step = lambda step: clock.pass_by(0.25) if step == 4 else None
    first.run(numbers(0, 4), until=clock.now + 0.2)
    assert first.step == 4
    saved = {name: value.clone() for name, value in zip("wb", first.parameters, strict=True)}
    again, second = line_loop(tmp_path / "b", phase())
    second.restore(first.state())
    with torch.no_grad():
        for parameter, value in zip(second.parameters, saved.values(), strict=True):
            parameter.copy_(value)
    second.run(numbers(4, 4))
    assert torch.equal(weights(straight), weights(again))


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    """NaN stops the run with a remedy instead of spoiling what was saved."""
    _, loop = line_loop(tmp_path, phase(), spoil=math.nan)
    with pytest.raises(NotANumber, match="learning_rate"):
        loop.run(numbers(0, 4))


def test_a_fitted_run_is_shortened_to_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a measured pace the number of steps is cut to what ends in time, so that the rate still falls to its end."""
    monkeypatch.setattr(loops, "_MEASURE_AFTER", 2)
    monkeypatch.setattr(loops, "_MEASURE", 4)
    _, loop = line_loop(tmp_path, phase(steps=10_000))
    clock = Clock(monkeypatch)
    loop.after_step = lambda _: clock.pass_by(0.25)
    loop.run(numbers(0, 4), until=clock.now + 15.0, fit=True)
    # Six steps in 1.5 s tell the pace, and 98 % of what is left is used.
    assert loop.step == loop.steps == 6 + int(0.98 * 13.5 / 0.25)


def test_the_log_has_loss_rate_throughput_and_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every logged line says where the run is, how fast it goes and how long it will take; a file keeps them."""
    _, loop = line_loop(tmp_path, phase(steps=3))
    loop.run(numbers(0, 4))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert set(lines[-1]) == {"phase", "step", "of", "lr", "loss", "images/s", "eta s"}
    assert (lines[-1]["step"], lines[-1]["of"], lines[-1]["eta s"]) == (2, 3, 0)


def test_a_terminal_has_a_bar_instead_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal one bar shows steps, time left, pace and loss; nothing is printed to standard output."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    _, loop = line_loop(tmp_path, phase(steps=4))
    loop.run(numbers(0, 4))
    told = capsys.readouterr()
    assert told.out == ""
    assert "4/4" in told.err
    assert "fit" in told.err
    assert "images/s" in told.err


def test_events_can_be_read_by_tensorboard(tmp_path: Path) -> None:
    """With TensorBoard on, an event file holds the scalars of the log at their steps."""
    from tensorboardX.proto.event_pb2 import Event

    with RunLog(tmp_path, tensorboard=True) as log:
        log.write({"phase": "training", "step": 7, "of": 9, "loss": 0.25})
    (file,) = (tmp_path / "events").iterdir()
    assert ".tfevents." in file.name
    found = {}
    for record in _records(file.read_bytes()):
        event = Event.FromString(record)
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
    assert found == {("training/loss", 7): 0.25}


def _records(data: bytes) -> Iterator[bytes]:
    """Contents of a TFRecord file: length (8 bytes), its checksum (4), the record, its checksum (4)."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        yield data[at + 12 : at + 12 + size]
        at += 16 + size


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (phase(), r"training\.micro_batch=2 .*of 4 examples\), then .*activation_checkpointing=true"),
        (phase(batch=6, micro_batch=2), r"training\.micro_batch=1 .*of 6 examples"),
        (phase(micro_batch=1), r"with --set training\.activation_checkpointing=true \(adapters\)"),
    ],
)
def test_a_step_without_room_names_what_makes_it_smaller(tmp_path: Path, of: Phase, said: str) -> None:
    """Out of memory in the middle of a step is an error with its remedy; the gradients are let go."""
    model, loop = line_loop(tmp_path, of)
    inner, taken = loop.task.loss, []

    def loss(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        taken.append(len(batch))
        if len(taken) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return inner(batch)

    loop.task = replace(loop.task, loss=loss)
    with pytest.raises(NotEnoughMemory, match=said) as caught:
        loop.run(numbers(0, of.portion))
    assert "device auto" not in str(caught.value)
    assert all(weight.grad is None for weight in model.parameters())
    assert loop.step == 3 // of.accumulate
