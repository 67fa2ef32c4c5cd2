"""Recipes: everything that decides a run, read from a TOML file and checked, with the paper's values as defaults.

The defaults of a LoRA run are those of arXiv 2607.01436, for diffusion and for its autoregressive sibling.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from inlay_model.errors import BadRecipe
from inlay_model.training.corruption import Corruption

T = TypeVar("T")

KINDS = ("diffusion", "autoregressive")
SCHEDULES = ("cosine", "constant")
PRECISIONS = ("bf16", "fp32")

_TABLES = {"lora", "corruption", "training", "sight"}
# The tables of a run from scratch, with the keys that nothing else stands in for.
_SCRATCH_TABLES: Mapping[str, tuple[str, ...]] = {
    "vocabulary": ("size", "reports"),
    "canvas": ("length",),
    "text": ("hidden_size",),
    "vision": ("hidden_size", "patch_size", "pooling_kernel_size"),
    "image": ("max_soft_tokens",),
    "sight": (),
    "training": ("auxiliary_weight", "average_decay"),
}
# What the linear layers of the text stack are called: attention and the shared MLP. Experts are packed tensors.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PAPER: Mapping[str, Mapping[str, Any]] = {
    "diffusion": {
        "batch": 16,
        "learning_rate": 1e-4,
        "betas": [0.9, 0.95],
        "schedule": "cosine",
        "warm_up": 100,
        "least_rate": 0.0,
    },
    "autoregressive": {
        "batch": 24,
        "learning_rate": 1e-4,
        "betas": [0.9, 0.999],
        "schedule": "constant",
        "warm_up": 0,
    },
}


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of optimisation with AdamW.

    `batch` is the number of examples per step, taken in portions of `micro_batch` whose gradients are added up.
    The schedule `cosine` falls from the peak to `least_rate` times the peak. `precision` bf16 computes in bfloat16
    with weights to be trained in float32.
    """

    steps: int
    batch: int
    learning_rate: float
    micro_batch: int | None = None
    schedule: str = "cosine"
    warm_up: int = 100
    least_rate: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    precision: str = "bf16"

    @property
    def portion(self) -> int:
        """Examples that are computed at a time."""
        return self.micro_batch or self.batch

    @property
    def accumulate(self) -> int:
        """Portions per step."""
        return self.batch // self.portion


@dataclass(frozen=True, slots=True)
class Lora:
    """Size of an adapter: rank, scale (alpha over rank), dropout, and which linear layers of the text stack have it."""

    rank: int = 64
    alpha: int = 128
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named run as read from a TOML file of model/configs."""

    settings: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe; raises `BadRecipe` where it is no TOML or its `kind` is unknown."""
        try:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise BadRecipe(f"{path} cannot be read as TOML: {problem}.") from problem
        recipe = cls(_well_formed({"name": path.stem, "seed": 0, "kind": "diffusion"} | settings))
        if recipe.kind not in KINDS:
            raise BadRecipe(f"{path}: kind is {recipe.kind!r}; it is one of {', '.join(KINDS)}.")
        return recipe

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]

    @property
    def name(self) -> str:
        """Name of the run, and of the checkpoint that it makes."""
        return str(self.settings["name"])

    @property
    def kind(self) -> str:
        """What is trained: `diffusion` or `autoregressive`."""
        return str(self.settings["kind"])

    @property
    def seed(self) -> int:
        """Seed of everything that is drawn."""
        return int(self.settings["seed"])

    @property
    def corruption(self) -> Corruption:
        """How canvases are corrupted; outside runs from scratch plainly, unless the recipe says otherwise."""
        plain = {} if "text" in self.settings else {"infill": 0.0, "shift": 0.0, "towards_full": False}
        return _made(Corruption, plain | self.settings.get("corruption", {}), "corruption")

    @property
    def lora(self) -> Lora:
        """The size of the adapter."""
        lora = _made(Lora, self.settings.get("lora", {}), "lora")
        if min(lora.rank, lora.alpha) < 1 or not 0 <= lora.dropout < 1 or not lora.targets:
            raise BadRecipe("[lora] rank and alpha are at least 1, dropout from 0 to below 1, targets named.")
        return lora

    def phase(self, table: str, extra: Sequence[str] = ()) -> Phase:
        """A phase of the run; `extra` are keys of its table that mean something to others."""
        said = {key: value for key, value in self.settings[table].items() if key not in extra}
        return _checked(_made(Phase, said, table), table)

    def changed(self, changes: Sequence[str]) -> Recipe:
        """The recipe with changes written as `table.key=value` or `key=value`, the value as JSON or plain text."""
        settings = copy.deepcopy(self.settings)
        for change in changes:
            name, equals, value = change.partition("=")
            if not equals:
                raise BadRecipe(f"--set {change}: a change is written TABLE.KEY=VALUE.")
            table, dot, key = name.partition(".")
            place = settings.setdefault(table, {}) if dot else settings
            if not isinstance(place, dict):
                raise BadRecipe(f"--set {change}: {table} is no table. A change is written TABLE.KEY=VALUE.")
            place[key or table] = _value(value)
        return Recipe(_well_formed(settings))

    def need_scratch_tables(self) -> None:
        """Raise `BadRecipe` naming the tables and keys that a run from scratch needs and this recipe lacks."""
        missing = _SCRATCH_TABLES.keys() - self.settings.keys()
        if missing:
            raise BadRecipe(f"The recipe {self.name} lacks the table(s) {', '.join(sorted(missing))}.")
        lacking = [
            f"{key} in [{table}]"
            for table, keys in _SCRATCH_TABLES.items()
            for key in keys
            if key not in self.settings[table]
        ]
        if lacking:
            raise BadRecipe(f"The recipe {self.name} lacks {', '.join(lacking)}.")


def lora_recipe(kind: str, given: Recipe | None = None) -> Recipe:
    """The paper's recipe for a base of this kind, with what the given one says instead; raises `BadRecipe`."""
    said: dict[str, Any] = given.settings if given else {"name": f"lora-{kind}", "seed": 0}
    if given and given.kind != kind:
        raise BadRecipe(f"The recipe {given.name} is for a model of kind {given.kind}; this base is {kind}.")
    return Recipe(said | {"kind": kind, "training": {**_PAPER[kind], **said.get("training", {})}})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _well_formed(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, if what is read of them by itself is what it has to be; tables are checked where they are made."""
    for table in (_TABLES | _SCRATCH_TABLES.keys()) & settings.keys():
        if not isinstance(settings[table], dict):
            raise BadRecipe(f"{table} is a table: [{table}] in a recipe, {table}.KEY=VALUE after --set.")
    if not _fits(settings.get("seed", 0), int) or settings.get("seed", 0) < 0:
        raise BadRecipe("seed is a whole number from 0 on.")
    return settings


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of TOML or JSON is one of the type that a field has; whole numbers are numbers, lists tuples."""
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return any(_fits(value, one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        each = kinds[:1] * len(value) if isinstance(value, list | tuple) and kinds[1:] == (...,) else kinds
        return isinstance(value, list | tuple) and len(each) == len(value) and all(map(_fits, value, each))
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _made(kind: type[T], said: Mapping[str, Any], table: str) -> T:
    names = {field.name for field in dataclasses.fields(cast("Any", kind))}
    unknown = sorted(said.keys() - names)
    if unknown:
        raise BadRecipe(f"[{table}] has no {', '.join(unknown)}; it knows {', '.join(sorted(names))}.")
    hints = typing.get_type_hints(kind)
    unfit = [
        f"{key} is {_words(hints[key])} and not {value!r}"
        for key, value in said.items()
        if not _fits(value, hints[key])
    ]
    if unfit:
        raise BadRecipe(f"[{table}] {'; '.join(unfit)}.")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in said.items()})
    except TypeError as problem:
        raise BadRecipe(f"[{table}] is not complete: {problem}.") from problem


def _words(hint: Any) -> str:
    named = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "nothing"}
    if typing.get_origin(hint) is tuple:
        return "a list"
    return " or ".join(named[one] for one in typing.get_args(hint) or (hint,))


def _checked(phase: Phase, table: str) -> Phase:
    if phase.schedule not in SCHEDULES or phase.precision not in PRECISIONS:
        raise BadRecipe(f"[{table}] schedule is one of {SCHEDULES}, precision one of {PRECISIONS}.")
    if phase.steps < 0 or phase.batch < 1 or phase.portion < 1 or phase.batch % phase.portion:
        raise BadRecipe(f"[{table}] batch must be positive and a multiple of micro_batch, steps not negative.")
    return phase
