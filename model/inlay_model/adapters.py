"""Adapters (LoRA in PEFT's format): reading, checking, and adding them to a model's weights.

DiffusionGemma's encoder and decoder share their weights. A change that both have is therefore added once; PEFT's own
`merge_and_unload` adds it twice. Where an adapter changes the two differently, they get weights of their own.
Added weights are computed in float32 from the base and rounded once, so that changing adapters leaves no trace.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inlay_model.errors import AdapterProblem
from inlay_model.provenance import ABOUT, digest_of_file, fetched, sha256_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
# Each of these makes the change another one than scale · B A.
_BEYOND = (
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
)


@dataclass(frozen=True, slots=True)
class Delta:
    """The change of one linear layer: scale · B A, where A is (rank, inputs) and B (outputs, rank)."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that is changed."""
        return (self.b.shape[0], self.a.shape[1])

    def added_to(self, weight: Tensor) -> Tensor:
        """The weight with the change, computed in float32 and rounded once to the weight's own type."""
        a, b = (each.to(weight.device, torch.float32) for each in (self.a, self.b))
        return torch.addmm(weight.float(), b, a, alpha=self.scale).to(weight.dtype)

    def is_like(self, other: "Delta") -> bool:
        """Whether it is the same change to the last bit."""
        return self.scale == other.scale and torch.equal(self.a, other.a) and torch.equal(self.b, other.b)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as it lies in its folder: the change of each layer by name, and which base it says it is for.

    `digest` is over configuration and weights. `base_weights_digest` (`provenance.digest_of_weights`) is None for
    adapters of other makers.
    """

    folder: Path
    digest: str
    base: str | None
    base_weights_digest: str | None
    deltas: Mapping[str, Delta]


def read_adapter(folder: str | Path) -> Adapter:
    """The adapter in this folder; raises `AdapterProblem` naming the missing or unfit part."""
    from safetensors.torch import load_file

    place = Path(folder).expanduser()
    for name in (CONFIG, WEIGHTS):
        if not (place / name).is_file():
            raise AdapterProblem(f"The adapter {place} has no {name}; a PEFT adapter in safetensors is needed.")
    fetched(place)
    config = _json(place / CONFIG)
    _check_config(place, config)
    try:
        tensors = load_file(place / WEIGHTS)
    except (OSError, ValueError, RuntimeError) as problem:
        raise AdapterProblem(f"{place / WEIGHTS} cannot be read ({type(problem).__name__}).") from problem
    about = _json(place / ABOUT) if (place / ABOUT).is_file() else {}
    return Adapter(
        folder=place,
        digest=digest_of_adapter(place),
        base=config.get("base_model_name_or_path"),
        base_weights_digest=about.get("base_weights_digest"),
        deltas=_deltas(place, config, tensors),
    )


def digest_of_adapter(folder: Path) -> str:
    """Digest of an adapter: of its configuration and weights, the files that decide what it does."""
    return sha256_of(*(f"{name}:{digest_of_file(folder / name)}".encode() for name in (CONFIG, WEIGHTS)))


def check_base(adapter: Adapter, name: str, weights_digest: str) -> None:
    """Raise `AdapterProblem` where the adapter says that it was made for another base than this one."""
    made_for = adapter.base_weights_digest
    if made_for is not None and made_for != weights_digest:
        raise AdapterProblem(
            f"The adapter {adapter.folder} was made for another base ({adapter.base}, weights {made_for[:12]}) than "
            f"{name} ({weights_digest[:12]}). Load that base, or train the adapter again on this one."
        )


class Added:
    """Adapters that are added to a model's weights, one at a time, and the base weights to go back to.

    With a single adapter nothing is kept: it is added for good. Tensors are changed in place, so that whatever was
    captured over them (CUDA graphs) stays valid; encoded prompts do not, which is why the active digest belongs into
    the keys of caches.
    """

    def __init__(self, model: Any, adapters: Mapping[str, Adapter]) -> None:
        for adapter in adapters.values():
            _check_fit(model, adapter)
        self._adapters = dict(adapters)
        self._places = _places(model, adapters)
        self._bases = [place.weight.detach().clone() for place in self._places] if len(adapters) > 1 else None
        self.active: str | None = None
        if len(adapters) == 1:
            self.use(next(iter(adapters)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters."""
        return tuple(self._adapters)

    @property
    def digest(self) -> str | None:
        """Digest of the active adapter."""
        return None if self.active is None else self._adapters[self.active].digest

    def use(self, name: str | None) -> None:
        """Make this adapter the active one, None for the bare base; raises `AdapterProblem` for an unknown name."""
        if name == self.active:
            return
        if name is not None and name not in self._adapters:
            raise AdapterProblem(f"No adapter {name} was loaded; there are: {', '.join(self._adapters) or 'none'}.")
        if self._bases is None and self.active is not None:
            raise AdapterProblem("The only adapter was added for good; load several to change between them.")
        with torch.no_grad():
            for number, place in enumerate(self._places):
                base = place.weight if self._bases is None else self._bases[number]
                delta = None if name is None else place.deltas.get(name)
                place.weight.copy_(base if delta is None else delta.added_to(base))
        self.active = name


@dataclass(frozen=True, slots=True)
class _Place:
    """A weight that adapters change, and the change of each by name."""

    weight: Tensor
    deltas: Mapping[str, Delta]


def is_tied_alike(model: Any, adapter: Adapter) -> bool:
    """Whether the adapter changes layers that share a weight alike, so that it can be added without untying them."""
    return all(_same([adapter.deltas.get(layer) for layer in layers]) for _, layers in _by_weight(model, [adapter]))


def _places(model: Any, adapters: Mapping[str, Adapter]) -> list[_Place]:
    places = []
    for weight, layers in _by_weight(model, list(adapters.values())):
        found = {name: [adapter.deltas.get(layer) for layer in layers] for name, adapter in adapters.items()}
        if all(_same(deltas) for deltas in found.values()):
            places.append(_Place(weight, {name: deltas[0] for name, deltas in found.items() if deltas[0] is not None}))
            continue
        for at, layer in enumerate(layers):
            own = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
            model.get_submodule(layer).weight = own
            places.append(_Place(own, {n: delta for n, all_ in found.items() if (delta := all_[at]) is not None}))
    return places


def _by_weight(model: Any, adapters: Sequence[Adapter]) -> Iterator[tuple[Any, list[str]]]:
    """Every weight that an adapter changes, with the names of all layers that share it."""
    changed = {layer for adapter in adapters for layer in adapter.deltas}
    layers: dict[int, list[str]] = {}
    weights: dict[int, Any] = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor):
            layers.setdefault(id(weight), []).append(name)
            weights[id(weight)] = weight
    for key, names in layers.items():
        if changed.intersection(names):
            yield weights[key], names


def _same(deltas: Sequence[Delta | None]) -> bool:
    first = deltas[0]
    if first is None:
        return all(delta is None for delta in deltas)
    return all(delta is not None and first.is_like(delta) for delta in deltas)


def _check_fit(model: Any, adapter: Adapter) -> None:
    layers = dict(model.named_modules())
    for name, delta in adapter.deltas.items():
        weight = getattr(layers.get(name), "weight", None)
        if not isinstance(weight, Tensor):
            raise AdapterProblem(f"The adapter {adapter.folder} changes {name}, which this model has not.")
        if tuple(weight.shape) != delta.shape:
            raise AdapterProblem(
                f"The adapter {adapter.folder} changes {name} as {delta.shape}; here it is {tuple(weight.shape)}."
            )
        if weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise AdapterProblem(f"{name} is {weight.dtype}: an adapter is added before weights are quantised.")


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise AdapterProblem(f"The adapter {folder} is {config.get('peft_type')}; LoRA is what can be used here.")
    beyond = [name for name in _BEYOND if config.get(name)]
    if config.get("bias", "none") != "none":
        beyond.append("bias")
    if beyond:
        raise AdapterProblem(f"The adapter {folder} uses {', '.join(beyond)}; only plain LoRA can be used here.")


def _deltas(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Delta]:
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None or tensor.ndim != 2:
            raise AdapterProblem(f"The adapter {folder} has {key}, which is no A or B of a linear layer.")
        parts.setdefault(match["layer"], {})[match["part"]] = tensor
    halves = [layer for layer, found in parts.items() if len(found) != 2]
    if halves or not parts:
        raise AdapterProblem(f"The adapter {folder} lacks A or B of {halves[0] if halves else 'every layer'}.")
    return {layer: Delta(p["A"], p["B"], _scale(config, layer, p["A"].shape[0])) for layer, p in parts.items()}


def _scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    fitting = (alpha for pattern, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", layer))
    alpha = float(next(fitting, config["lora_alpha"]))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _json(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise AdapterProblem(f"{file} is no JSON.") from problem
    if not isinstance(said, dict):
        raise AdapterProblem(f"{file} is no JSON object.")
    return said
