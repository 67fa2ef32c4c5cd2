"""Images as the text stack takes them in: soft tokens, made by the vision tower, for both kinds of model.

Shape suffixes: B images, D values of a patch, H hidden width, N soft tokens of all images, P patches.
"""

from typing import Any

import torch
from torch import Tensor

from inlay_model.accelerator.attached import attached


def vision_of(model: Any) -> Any:
    """The part of a model that holds `vision_tower` and `embed_vision`."""
    return model.model.encoder if hasattr(model.model, "encoder") else model.model


def encode_images(model: Any, values_BPD: Tensor, positions_BP2: Tensor) -> Tensor:
    """Soft tokens of all images of a batch one after the other, shape (N, H); positions of -1 are padding."""
    fast = attached(model)
    seen_NH: Tensor | None = None if fast is None else fast.look(values_BPD, positions_BP2)
    return seen_by_library(model, values_BPD, positions_BP2) if seen_NH is None else seen_NH


def seen_by_library(model: Any, values_BPD: Tensor, positions_BP2: Tensor) -> Tensor:
    """The same by the library's own passes."""
    found = vision_of(model).get_image_features(values_BPD, positions_BP2, return_dict=True).pooler_output
    # Gemma 4 gives a tuple of the images' tokens, DiffusionGemma all of them in one tensor.
    features_NH: Tensor = torch.cat(found) if isinstance(found, (tuple, list)) else found
    return features_NH.reshape(-1, features_NH.shape[-1])


def as_encoder_outputs(features_NH: Tensor | None, *, split: bool = False) -> dict[str, Any] | None:
    """Soft tokens as the models take them in; `split` as a tuple, which is what Gemma 4 wants."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    if features_NH is None:
        return None
    pooled: Any = (features_NH,) if split else features_NH
    return {"image": BaseModelOutputWithPooling(pooler_output=pooled)}
