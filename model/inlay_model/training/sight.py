"""Auxiliary classifiers of findings, for learning to see. They exist while training only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from inlay_model.phantom.findings import SLOTS


class FindingHeads(torch.nn.Module):
    """Classifiers, one per finding slot, that read image tokens through attention of their own.

    Without them the model writes plausible reports for a long time before it begins to look at the image.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = torch.nn.Parameter(torch.randn(len(SLOTS), width) * width**-0.5)
        self.norm = torch.nn.LayerNorm(width)
        self.keys = torch.nn.Linear(width, width)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, len(values)) for values in SLOTS.values())

    def forward(self, image_tokens: Tensor) -> list[Tensor]:
        """Logits of every slot from image tokens (B, soft tokens, hidden): one tensor (B, values) per slot."""
        tokens = self.norm(image_tokens)
        scores = torch.einsum("sw,btw->bst", self.queries, self.keys(tokens)) * tokens.shape[-1] ** -0.5
        seen = torch.einsum("bst,btw->bsw", scores.softmax(-1), tokens)
        return [head(seen[:, slot]) for slot, head in enumerate(self.heads)]

    def loss(self, image_tokens: Tensor, findings: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy over slots, and the share of images with every slot right."""
        logits = self(image_tokens)
        losses = [functional.cross_entropy(each, findings[:, slot]) for slot, each in enumerate(logits)]
        right = torch.stack([each.argmax(-1) == findings[:, slot] for slot, each in enumerate(logits)])
        return torch.stack(losses).mean(), right.all(dim=0).float().mean()
