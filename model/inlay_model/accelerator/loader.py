"""Putting a model that was read into main memory onto its device or devices: memory checked, packed, accelerated.

The check comes first: a model of 50 GB is not read for minutes to fail at the last layer.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from inlay_model.accelerator.buckets import ROWS
from inlay_model.accelerator.devices import planned, sizes_of
from inlay_model.accelerator.memory import (
    check_main_memory,
    check_memory,
    copied_bytes,
    free_bytes,
    named,
    need_of,
    warn_if_tight,
)
from inlay_model.accelerator.precision import apply_precision, check_precision
from inlay_model.errors import BadRequest, CheckpointProblem


@contextmanager
def place(
    folder: Path,
    files: Iterable[Path],
    device: torch.device,
    dtype: torch.dtype,
    precision: str,
    *,
    spread: bool,
    accelerate: bool | None,
) -> Iterator[Callable[[Any, Callable[[Any], object]], Any]]:
    """Check that the checkpoint of this folder will fit, then give a function that puts the loaded model in place.

    It must fit with one canvas; a warning says where it would not with as many as a pass may have. Main memory must
    hold the weights of `files` that are converted on their way, to a GPU too.

    What the function is given besides changes the model's weights once they are there, before the kernels look at them.
    Raises `NotEnoughMemory` and `BadRequest` before anything is loaded.
    """
    config = read_config(folder)
    check_precision(precision, config)
    if spread and precision != "bf16":
        raise BadRequest("A packed model fits one device: ask for one device, or for bf16 over several.")
    several = list(range(torch.cuda.device_count())) if spread else []
    places: tuple[int, ...] = ()
    if several:
        free = [free_bytes(torch.device("cuda", at)) for at in several]
        places = planned(sizes_of(config, width=dtype.itemsize), free)
    else:
        need = need_of(config, precision, width=dtype.itemsize)
        # In main memory there are no graphs, and fragments do not stay.
        need = need if device.type == "cuda" else replace(need, overhead=0)
        free_here = free_bytes(device)
        check_memory(need, device, precision, free_here)
        if device.type == "cuda":
            warn_if_tight(need.together(ROWS[-1]), free_here)
    check_main_memory(copied_bytes(files, dtype), dtype)

    def put(model: Any, change: Callable[[Any], object]) -> Any:
        if several:
            model = spread_over(model, places, several)
            change(model)
            return model
        apply_precision(model, precision, device)
        model = model.to(device)
        change(model)
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


def device_map(places: Sequence[int], devices: Sequence[int | str]) -> dict[str, int | str]:
    """Which module goes where, given the number of each layer's device: all that both ends need is on the first one.

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
    for layer, place in enumerate(places):
        found[f"model.encoder.language_model.layers.{layer}"] = devices[place]
        found[f"model.decoder.layers.{layer}"] = devices[place]
    return found


def spread_over(model: Any, places: Sequence[int], devices: Sequence[int | str]) -> Any:
    """The model with its layers on these of the devices, by accelerate's hooks. Its passes are eager."""
    from accelerate import dispatch_model

    return dispatch_model(model, device_map=device_map(places, devices), main_device=devices[0])
