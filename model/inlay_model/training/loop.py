"""The training loop: batches in, steps of the optimiser out. It knows neither models nor data.

A loop that is restored from its state goes on as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from inlay_model.accelerator.memory import named
from inlay_model.errors import NotANumber, NotEnoughMemory
from inlay_model.training.log import RunLog
from inlay_model.training.optimisation import learning_rate, make_optimiser
from inlay_model.training.recipe import Phase

B = TypeVar("B")

# Gradients of cuDNN's attention are not numbers where a masked sequence is 64 tokens longer than a multiple of 128:
# https://github.com/pytorch/pytorch/issues/196678
_ATTENTION = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
# The pace of a run is measured once compilation is over.
_MEASURE_AFTER, _MEASURE = 150, 100
SAVE_MINUTES, LOG_EVERY = 4.0, 50


@dataclass(frozen=True, slots=True)
class Task(Generic[B]):
    """What a loop works on.

    `loss` gives the loss of a batch as named parts, of which the one named loss is minimised; `weight` is that of a
    batch among those of one step.
    """

    name: str
    loss: Callable[[B], dict[str, Tensor]]
    weight: Callable[[B], float] = lambda _: 1.0


class Loop(Generic[B]):
    """One phase: its optimiser and how far it has come."""

    def __init__(
        self,
        task: Task[B],
        phase: Phase,
        parameters: list[torch.nn.Parameter],
        device: torch.device,
        log: RunLog,
    ) -> None:
        self.task, self.phase, self.parameters, self.device, self.log = task, phase, parameters, device, log
        self.optimiser = make_optimiser(parameters, phase, device)
        self.step, self.steps = 0, phase.steps
        # Called after each step with its number, and every few minutes to save what there is.
        self.after_step: Callable[[int], None] = lambda _: None
        self.save: Callable[[], object] = lambda: None

    @property
    def finished(self) -> bool:
        """Whether every step has been made."""
        return self.step >= self.steps

    def state(self) -> dict[str, Any]:
        """What is needed to go on later."""
        return {"step": self.step, "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""
        self.step = state["step"]
        if state.get("optimiser") is not None:
            self.optimiser.load_state_dict(state["optimiser"])

    def run(self, batches: Iterator[B], until: float = math.inf, *, fit: bool = False) -> None:
        """Make steps until there are none left or the monotonic clock passes `until`.

        With `fit` the number of steps is cut, once the pace is known, to what ends in time. Raises `NotANumber`, and
        `NotEnoughMemory` with what makes a step smaller.
        """
        if self.finished:
            return
        first = self.step
        pace = self.log.begin(self.task.name, first, self.steps, self.phase.batch)
        measured = saved = time.monotonic()
        try:
            while not self.finished:
                parts, rate = self._named_step(batches)
                self.step += 1
                self.log.step()
                self.after_step(self.step)
                if fit and self.step == first + _MEASURE_AFTER + _MEASURE:
                    self._fit((time.monotonic() - measured) / _MEASURE, until)
                elif self.step == first + _MEASURE_AFTER:
                    measured = time.monotonic()
                if (self.step - 1) % LOG_EVERY == 0 or self.finished:
                    self._tell(parts, rate, pace.at(self.step, self.steps))
                if time.monotonic() - saved > 60 * SAVE_MINUTES:
                    saved = time.monotonic()
                    self.save()
                if time.monotonic() > until:
                    break
        finally:
            self.log.end()

    def _named_step(self, batches: Iterator[B]) -> tuple[dict[str, Tensor], float]:
        try:
            with named(self.device, self.optimiser.zero_grad):
                return self._step(batches)
        except NotEnoughMemory as problem:
            raise NotEnoughMemory(None, problem.free, None, remedy=_remedy(self.phase)) from None

    def _step(self, batches: Iterator[B]) -> tuple[dict[str, Tensor], float]:
        rate = learning_rate(self.step, self.steps, self.phase)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        portions = [next(batches) for _ in range(self.phase.accumulate)]
        weights = [self.task.weight(portion) for portion in portions]
        sums: dict[str, Tensor] = {}
        for portion, weight in zip(portions, weights, strict=True):
            share = weight / sum(weights)
            # Without its cache: a weight first cast under no_grad, for self-conditioning, would lose its gradient.
            with sdpa_kernel(list(_ATTENTION)):
                with torch.autocast(
                    self.device.type,
                    dtype=torch.bfloat16,
                    enabled=self.phase.precision == "bf16",
                    cache_enabled=False,
                ):
                    parts = self.task.loss(portion)
                (parts["loss"] if share == 1 else parts["loss"] * share).backward()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0) + value.detach() * share
        torch.nn.utils.clip_grad_norm_(self.parameters, self.phase.gradient_clip)
        self.optimiser.step()
        return sums, rate

    def _fit(self, seconds: float, until: float) -> None:
        left = until - time.monotonic()
        if left < math.inf:
            self.steps = min(self.steps, self.step + int(0.98 * left / seconds))
            self.log.shorten(self.steps)
        self.log.write({"phase": self.task.name, "seconds per step": round(seconds, 4), "steps": self.steps})

    def _tell(self, parts: dict[str, Tensor], rate: float, pace: dict[str, int]) -> None:
        numbers = {name: round(float(value), 5) for name, value in parts.items()}
        if not math.isfinite(numbers["loss"]):
            raise NotANumber(
                f"The loss of step {self.step} is not a number: begin again from the last state with a smaller "
                "learning_rate, or with precision = fp32."
            )
        line = {"phase": self.task.name, "step": self.step - 1, "of": self.steps, "lr": float(f"{rate:.4g}")}
        self.log.write(line | numbers | pace)


def _remedy(phase: Phase) -> str:
    """What makes a step of as many examples need less memory."""
    # The largest portion that the batch is a multiple of, and that is smaller than the one which did not fit.
    smaller = max((size for size in range(1, phase.portion) if phase.batch % size == 0), default=None)
    fewer = (
        f"--set training.micro_batch={smaller} (the step stays one of {phase.batch} examples), then " if smaller else ""
    )
    return (
        f"Run it again, which goes on from the last state: with {fewer}"
        "--set training.activation_checkpointing=true (adapters), or on a device with more free memory."
    )
