"""How much memory a checkpoint needs on its device, said before it is loaded; and giving memory back.

The need is computed from the configuration: weights in their precision, joined projections while they are made, the
rooms for prefixes and canvases, and the largest intermediate of a step (logits and probabilities).
"""

import gc
import logging
import math
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from inlay_model.accelerator.packing import GROUP
from inlay_model.errors import NotEnoughMemory
from inlay_model.request import DeviceMemory

_log = logging.getLogger(__name__)

GIB = 2**30
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
MAIN = torch.device("cpu")
# What files of weights call the types that they may be computed in.
_STORED = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
# Code of libraries, graphs' bookkeeping, fragmentation: measured sizes are rounded up to it.
OVERHEAD = 3 * GIB // 2


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a model needs, by what for."""

    weights: int
    rooms: int
    step: int
    overhead: int = OVERHEAD

    @property
    def total(self) -> int:
        """All of it, with what libraries take for themselves."""
        return self.weights + self.rooms + self.step + self.overhead

    def together(self, rows: int) -> "Need":
        """The same with so many times the canvases at a time."""
        return replace(self, rooms=rows * self.rooms, step=rows * self.step)


def need_of(config: Any, precision: str = "bf16", *, slots: int = 1024, width: int = 2) -> Need:
    """Need of a DiffusionGemma configuration with one canvas at a time and prefixes of up to `slots` tokens.

    `width` is the bytes of a number that is not packed (2: bfloat16, 4: float32).
    """
    text = config.get_text_config()
    packed, plain = parameters_of(config)
    tokens = slots + config.canvas_length
    kept = 0
    for layer in range(text.num_hidden_layers):
        own = text.per_layer_config[layer]
        kept += 2 * own.num_key_value_heads * own.head_dim * width
    logits = config.canvas_length * text.vocab_size * width
    return Need(
        weights=_packed_bytes(text, packed, precision, width) + plain * width, rooms=tokens * kept, step=2 * logits
    )


def _packed_bytes(text: Any, packed: int, precision: str, width: int) -> int:
    """Bytes of so many parameters of packed experts, with the scales of `packing.pack`."""
    if precision == "fp8":
        channels = text.num_hidden_layers * text.num_experts * (2 * text.moe_intermediate_size + text.hidden_size)
        return int(packed + 4 * channels)
    if precision == "4bit":
        return packed // 2 + 2 * packed // GROUP
    return packed * width


def parameters_of(config: Any) -> tuple[int, int]:
    """Parameters of the packed experts, and all others (vision included), counted on a model without weights."""
    text = config.get_text_config()
    layers, outside = _counted(config)
    packed = text.num_hidden_layers * text.num_experts * 3 * text.moe_intermediate_size * text.hidden_size
    return packed, outside + sum(layers) - packed


def bytes_of_layers(config: Any, width: int = 2) -> list[int]:
    """Bytes of each layer of the decoder, which the encoder's layer of the same number shares."""
    return [width * layer for layer in _counted(config)[0]]


def _counted(config: Any) -> tuple[list[int], int]:
    """Parameters of each layer, and of all that is no layer."""
    from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaForBlockDiffusion

    text = config.get_text_config()
    with torch.device("meta"):
        model: Any = DiffusionGemmaForBlockDiffusion(_shortened(config))
    short = model.config.get_text_config()
    each = [sum(weight.numel() for weight in layer.parameters()) for layer in model.model.decoder.layers]
    kinds = dict(zip(short.layer_types, each, strict=True))
    outside = sum(weight.numel() for weight in model.parameters()) - sum(each)
    return [kinds[kind] for kind in text.layer_types], outside


def _shortened(config: Any) -> Any:
    """The same configuration with one layer of each kind: layers of a kind are alike, and building all takes long."""
    said = config.to_dict()
    text = dict(said["text_config"])
    full = config.get_text_config()
    kinds = [kind for kind in ("sliding_attention", "full_attention") if kind in full.layer_types]
    own = [full.per_layer_config[full.layer_types.index(kind)] for kind in kinds]
    text.update(
        num_hidden_layers=len(kinds),
        layer_types=kinds,
        per_layer_config={
            at: {"head_dim": layer.head_dim, "num_key_value_heads": layer.num_key_value_heads}
            for at, layer in enumerate(own)
        },
    )
    said["text_config"] = text
    return type(config).from_dict(said)


def check_memory(need: Need, device: torch.device, precision: str, free: int | None = None) -> None:
    """Raise `NotEnoughMemory`, with the remedy, where the device has less free memory than the need.

    `free` is the free memory in bytes where it is known; else the GPU is asked. Other devices are not checked.
    """
    if free is None:
        if device.type != "cuda":
            return
        free = torch.cuda.mem_get_info(device)[0]
    if need.total > free:
        of = "GPU memory" if device.type == "cuda" else "main memory"
        raise NotEnoughMemory(need.total, free, precision, of=of)


def copied_bytes(files: Iterable[Path], dtype: torch.dtype) -> int:
    """Main memory that weights in these files take while they are read as `dtype`, whichever device they go to.

    A weight that is stored as that type is mapped, and Linux may take its pages back at any time. Any other is
    converted and stays in main memory until all are read. Files that are no weights are named by whoever reads them.
    """
    total = 0
    for file in files:
        with suppress(SafetensorError), safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - no mapping
                weight = stored.get_slice(name)
                if weight.get_dtype() != _STORED[dtype] and "F" in weight.get_dtype():
                    total += math.prod(weight.get_shape()) * dtype.itemsize
    return total


def check_main_memory(copied: int, dtype: torch.dtype) -> None:
    """Raise `NotEnoughMemory`, with the remedy, where main memory has not so many bytes for converted weights."""
    free = free_bytes(MAIN)
    if copied > free:
        raise NotEnoughMemory(
            copied,
            free,
            None,
            of="main memory while its weights are read",
            remedy="Give this process more main memory (a container's limit counts), or take a checkpoint that is "
            f"stored in {str(dtype).removeprefix('torch.')}, whose weights are not converted.",
        )


def warn_if_tight(most: Need, free: int) -> None:
    """Say in the log where the most that passes may need, with many canvases at a time, is not free.

    Several jobs together, and gaps whose length is searched for, have many.
    """
    if most.total > free:
        _log.warning(
            "The model fits with one canvas at a time, but %.1f GiB are free of the %.1f GiB that it needs with the "
            "most at a time, as several jobs together and gaps of unknown length have. If jobs end with "
            "not-enough-memory, take fewer together (INLAY_JOBS_TOGETHER), fewer bits (INLAY_PRECISION) or a GPU with "
            "more memory.",
            free / GIB,
            most.total / GIB,
        )


def give_back(device: torch.device) -> None:
    """Free what failed work left behind: unreachable tensors, then the allocator's cache."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether a device, or main memory, had no room for a tensor; torch has no class of its own for the latter."""
    if isinstance(problem, RuntimeError) and "DefaultCPUAllocator: can't allocate" in str(problem):
        return True
    return isinstance(problem, torch.OutOfMemoryError | MemoryError)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device, in bytes; of other devices than GPUs, what this process may still have."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    # What Linux could make free; other systems have no such file.
    limits += [1024 * available for available in _numbers(_MEMINFO, r"^MemAvailable:\s+(\d+) kB")]
    return min(limits + _left_to_container())


def _left_to_container() -> list[int]:
    """What is left of a container's limit, files that are only kept in memory not counted; nothing without a limit."""
    used = sum(_numbers(_CGROUP / "memory.current", r"^(\d+)$"))
    kept = sum(_numbers(_CGROUP / "memory.stat", r"^(?:in)?active_file (\d+)$"))
    return [max(0, limit - max(0, used - kept)) for limit in _numbers(_CGROUP / "memory.max", r"^(\d+)$")]


def _numbers(file: Path, pattern: str) -> list[int]:
    """The numbers that a pattern finds in a file; none where there is no such file."""
    try:
        return [int(number) for number in re.findall(pattern, file.read_text(encoding="ascii"), re.MULTILINE)]
    except OSError:
        return []


class named:  # noqa: N801 - read as what it does: `with named(device):`
    """Turns an out-of-memory error into `NotEnoughMemory`, its memory given back; `let_go` frees what else there is.

    No generator: a frame of contextlib would keep the traceback, and with it the tensors of the failed pass.
    """

    def __init__(self, device: torch.device, let_go: Callable[[], None] = lambda: None) -> None:
        self._device = device
        self._let_go = let_go

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del traceback
        if problem is None or not is_out_of_memory(problem):
            return
        problem.__traceback__ = None
        self._let_go()
        give_back(self._device)
        raise NotEnoughMemory(None, free_bytes(self._device), None) from None


def held_memory() -> list[DeviceMemory]:
    """Memory of the GPUs that this process holds some of; asking the others would make a context on them."""
    if not torch.cuda.is_initialized():
        return []
    held = [(at, torch.cuda.memory_reserved(at)) for at in range(torch.cuda.device_count())]
    return [
        DeviceMemory(
            f"cuda:{at}", torch.cuda.memory_allocated(at), reserved, torch.cuda.get_device_properties(at).total_memory
        )
        for at, reserved in held
        if reserved
    ]
