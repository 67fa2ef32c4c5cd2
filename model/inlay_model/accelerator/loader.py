"""Putting a model that was read into main memory onto its device or devices: memory checked, packed, accelerated.

The check comes first: a model of 50 GB is not read for minutes to fail at the last layer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from inlay_model.accelerator.memory import check_memory, named, need_of
from inlay_model.accelerator.precision import apply_precision, check_precision
from inlay_model.errors import BadRequest, CheckpointProblem


@contextmanager
def place(
    folder: Path, device: torch.device, dtype: torch.dtype, precision: str, *, spread: bool, accelerate: bool | None
) -> Iterator[Callable[[Any], Any]]:
    """Check that the checkpoint of this folder will fit, then give a function that puts the loaded model in place.

    Raises `NotEnoughMemory` and `BadRequest` before anything is loaded.
    """
    config = read_config(folder)
    check_precision(precision, config)
    if spread and precision != "bf16":
        raise BadRequest("A packed model fits one device: ask for one device, or for bf16 over several.")
    if device.type == "cuda":
        need = need_of(config, precision, width=dtype.itemsize)
        free = sum(torch.cuda.mem_get_info(at)[0] for at in range(torch.cuda.device_count())) if spread else None
        check_memory(need, device, precision, free)

    def put(model: Any) -> Any:
        if spread:
            return spread_over(model, list(range(torch.cuda.device_count())))
        apply_precision(model, precision, device)
        model = model.to(device)
        if accelerate or (accelerate is None and device.type == "cuda"):
            from inlay_model.accelerator.accelerated import attach

            attach(model)
        return model

    with named(device):
        yield put


def read_config(folder: Path) -> Any:
    """The configuration of a checkpoint folder; raises `CheckpointProblem` where it cannot be read."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.diffusion_gemma.configuration_diffusion_gemma import DiffusionGemmaConfig

    try:
        return DiffusionGemmaConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as problem:
        raise CheckpointProblem(
            f"The configuration of {folder} cannot be read ({type(problem).__name__}). "
            "Take config.json from where the checkpoint came from."
        ) from problem


def device_map(layers: int, devices: list[int | str]) -> dict[str, int | str]:
    """Which module goes where: layers in equal runs, everything that both ends need on the first device.

    A layer of the encoder and its tied layer of the decoder share memory, so they share a device.
    """
    home = devices[0]
    found: dict[str, int | str] = {
        "lm_head": home,
        "model.encoder.vision_tower": home,
        "model.encoder.embed_vision": home,
        **{
            f"model.{side}.{part}": home
            for side in ("encoder.language_model", "decoder")
            for part in ("embed_tokens", "norm", "rotary_emb")
        },
        "model.decoder.self_conditioning": home,
    }
    for layer in range(layers):
        at = devices[layer * len(devices) // layers]
        found[f"model.encoder.language_model.layers.{layer}"] = at
        found[f"model.decoder.layers.{layer}"] = at
    return found


def spread_over(model: Any, devices: list[int | str]) -> Any:
    """The model with its layers over these devices, by accelerate's hooks. Not accelerated: its passes are eager."""
    from accelerate import dispatch_model

    layers = model.config.get_text_config().num_hidden_layers
    return dispatch_model(model, device_map=device_map(layers, devices), main_device=devices[0])
