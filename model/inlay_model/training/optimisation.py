"""The optimiser and its learning rate, as functions of a phase of the recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from inlay_model.training.recipe import Phase


def learning_rate(step: int, steps: int, phase: Phase) -> float:
    """Linear warm-up to the peak; then a cosine to `least_rate` of it at `steps`, or constant."""
    if step < phase.warm_up:
        return phase.learning_rate * (step + 1) / phase.warm_up
    if phase.schedule == "constant":
        return phase.learning_rate
    along = (step - phase.warm_up) / max(1, steps - phase.warm_up)
    least = phase.least_rate
    return phase.learning_rate * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * along)))


def make_optimiser(
    parameters: Iterable[torch.nn.Parameter], phase: Phase, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    listed = list(parameters)
    groups = [
        {"params": [p for p in listed if p.ndim >= 2], "weight_decay": phase.weight_decay},
        {"params": [p for p in listed if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=phase.learning_rate, betas=phase.betas, fused=device.type == "cuda")
