"""The vision tower's layers as one captured graph: some 1,600 launches for a picture become one.

The tower is the library's own. Its layers run on fixed tensors, with a mask that is always there, one image after the
other, so that no number of images is captured for itself; soft tokens are pooled outside, as how many of them there are
is known on the host only.

Shape suffixes: B images, D values of a patch, H hidden width, N soft tokens of all images, P patches.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inlay_model.accelerator.graphs import Capturer
from inlay_model.vision import vision_of


class Eyes:
    """Soft tokens of images, by one graph for each number of patches, captured when it is first needed."""

    def __init__(self, model: Any, capture: Capturer) -> None:
        self._vision = vision_of(model)
        self._capture = capture
        self._passes: dict[int, tuple[Tensor, Tensor, Callable[[], Tensor]]] = {}

    def __call__(self, values_BPD: Tensor, positions_BP2: Tensor) -> Tensor:
        """Soft tokens of all images one after the other, N x H, as `vision.encode_images` gives them."""
        values_1PD, positions_1P2, run = self._pass_for(values_BPD[:1], positions_BP2[:1])
        hidden: list[Tensor] = []
        for values_PD, positions_P2 in zip(values_BPD, positions_BP2, strict=True):
            values_1PD[0].copy_(values_PD)
            positions_1P2[0].copy_(positions_P2)
            hidden.append(run().clone())
        return self._pooled(torch.cat(hidden), values_BPD, positions_BP2)

    def _pass_for(self, values_1PD: Tensor, positions_1P2: Tensor) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
        patches = values_1PD.shape[1]
        if patches not in self._passes:
            values, positions = values_1PD.clone(), positions_1P2.clone()
            work = self._capture(lambda: self._layers(values, positions))
            self._passes[patches] = (values, positions, work)
        return self._passes[patches]

    def _layers(self, values_BPD: Tensor, positions_BP2: Tensor) -> Tensor:
        tower = self._vision.vision_tower
        padding_BP = (positions_BP2 == -1).all(-1)
        hidden_BPH: Tensor = tower.patch_embedder(values_BPD, positions_BP2, padding_BP)
        images, patches = padding_BP.shape
        seen_B1PP = (~padding_BP)[:, None, None, :].expand(images, 1, patches, patches)
        turns = tower.encoder.rotary_emb(hidden_BPH, positions_BP2)
        for layer in tower.encoder.layers:
            hidden_BPH = layer(
                hidden_BPH, attention_mask=seen_B1PP, position_embeddings=turns, position_ids=positions_BP2
            )
        return hidden_BPH

    def _pooled(self, hidden_BPH: Tensor, values_BPD: Tensor, positions_BP2: Tensor) -> Tensor:
        tower = self._vision.vision_tower
        side = tower.config.pooling_kernel_size
        pooled_BNH, real_BN = tower.pooler(
            hidden_states=hidden_BPH,
            pixel_position_ids=positions_BP2,
            padding_positions=(positions_BP2 == -1).all(-1),
            output_length=values_BPD.shape[-2] // (side * side),
        )
        kept_NH = pooled_BNH[real_BN]
        if tower.config.standardize:
            kept_NH = (kept_NH - tower.std_bias.float()) * tower.std_scale.float()
        embedded_NH: Tensor = self._vision.embed_vision(inputs_embeds=kept_NH.to(hidden_BPH.dtype))
        return embedded_NH
