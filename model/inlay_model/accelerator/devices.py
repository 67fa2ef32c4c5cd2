"""Which layers of a model stand on which of several devices, planned before anything is read.

Pure: sizes and memory in bytes go in, numbers of devices come out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inlay_model.accelerator.memory import OVERHEAD, bytes_of_layers, need_of
from inlay_model.errors import NotEnoughMemory

# How finely the fullest device is searched for.
_GRAIN = 2**20


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of every layer, with the keys and values that it keeps; `home` is all else, what a step takes included."""

    layers: tuple[int, ...]
    home: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.home + sum(self.layers)


def sizes_of(config: Any, *, slots: int = 1024, width: int = 2) -> Sizes:
    """Sizes of a DiffusionGemma configuration; the arguments are those of `memory.need_of`."""
    need = need_of(config, "bf16", slots=slots, width=width)
    weights = bytes_of_layers(config, width)
    tokens = slots + config.canvas_length
    text = config.get_text_config()
    own = [text.per_layer_config[layer] for layer in range(text.num_hidden_layers)]
    kept = [2 * layer.num_key_value_heads * layer.head_dim * width * tokens for layer in own]
    layers = tuple(weight + room for weight, room in zip(weights, kept, strict=True))
    return Sizes(layers, need.weights + need.rooms + need.step - sum(layers))


def planned(sizes: Sizes, free: Sequence[int], overhead: int = OVERHEAD) -> tuple[int, ...]:
    """The number of the device of each layer, in runs; everything that is no layer stands on the first device.

    `free` are the bytes that each device has free, of which `overhead` is left to libraries. The devices are filled to
    as equal a share as whole layers allow, so that none is full while others are empty. Raises `NotEnoughMemory`.
    """
    rooms = [max(0, room - overhead) for room in free]
    enough = _placed(sizes, rooms)
    if enough is None:
        raise NotEnoughMemory(sizes.total + overhead * len(free), sum(free), "bf16", each=free, of="GPU memory")
    # The smallest share of every device's room at which all of it still fits, by bisection.
    low, high = 0, max(rooms)
    while high - low > _GRAIN:
        share = (low + high) // 2
        found = _placed(sizes, [room * share // max(rooms) for room in rooms])
        if found is None:
            low = share
        else:
            enough, high = found, share
    return enough


def _placed(sizes: Sizes, rooms: Sequence[int]) -> tuple[int, ...] | None:
    """Layers one after the other, each on the first device from that of the layer before on which it fits."""
    at, left = 0, rooms[0] - sizes.home
    if left < 0:
        return None
    places: list[int] = []
    for layer in sizes.layers:
        while layer > left:
            at += 1
            if at == len(rooms):
                return None
            left = rooms[at]
        left -= layer
        places.append(at)
    return tuple(places)
