"""The finding slots of a phantom: what may be seen, how often, and which findings may stand together.

A slot always has exactly one value and its first value is the normal one. Findings that would hide each other
in the image (a nodule behind a large effusion) are never drawn together, so that every slot can be read from
the image alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

SLOTS: Mapping[str, tuple[str, ...]] = {
    "heart": ("normal", "mildly enlarged", "markedly enlarged"),
    "oedema": ("none", "mild", "severe"),
    "consolidation": (
        "none",
        "right upper lobe",
        "right middle lobe",
        "right lower lobe",
        "left upper lobe",
        "left lower lobe",
    ),
    "nodule": (
        "none",
        "right upper zone",
        "right mid zone",
        "right lower zone",
        "left upper zone",
        "left mid zone",
        "left lower zone",
    ),
    "nodule size": ("none", "10 mm", "20 mm", "30 mm"),
    "right effusion": ("none", "small", "moderate", "large"),
    "left effusion": ("none", "small", "moderate", "large"),
    "pneumothorax": ("none", "small right", "large right", "small left", "large left"),
    "rib fracture": ("none", "right", "left"),
    "scoliosis": ("none", "right", "left"),
    "pacemaker": ("none", "right", "left"),
    "tracheal tube": ("none", "good position", "too low"),
    "central line": ("none", "right", "left"),
}
"""Name of each slot and its values, the normal value first. The order is the order of columns everywhere."""

NAMES: tuple[str, ...] = tuple(SLOTS)
COLUMN: Mapping[str, int] = {name: column for column, name in enumerate(NAMES)}

# How often each slot is abnormal before the rules below remove what cannot stand together. High enough that
# every value is seen often in training, low enough that a report stays short.
_PREVALENCE: Mapping[str, float] = {
    "heart": 0.30,
    "oedema": 0.20,
    "consolidation": 0.28,
    "nodule": 0.32,
    "right effusion": 0.22,
    "left effusion": 0.22,
    "pneumothorax": 0.20,
    "rib fracture": 0.18,
    "scoliosis": 0.18,
    "pacemaker": 0.18,
    "tracheal tube": 0.18,
    "central line": 0.18,
}

MOST_ABNORMAL = 5
"""A report states at most this many abnormal findings, so that its text fits the canvas."""

_SHARE_WITHOUT_FINDING = 0.08


@dataclass(frozen=True, slots=True)
class Findings:
    """The value of every slot of one phantom, in the order of `NAMES`."""

    values: tuple[str, ...]

    @classmethod
    def from_indices(cls, indices: IntArray) -> Findings:
        """Findings of one row of value indices, shape (slots,)."""
        return cls(tuple(SLOTS[name][int(index)] for name, index in zip(NAMES, indices, strict=True)))

    @classmethod
    def normal(cls, **abnormal: str) -> Findings:
        """Normal findings but for those named; a blank in a slot's name is written as an underscore."""
        changed = {name.replace("_", " "): value for name, value in abnormal.items()}
        unknown = [name for name, value in changed.items() if value not in SLOTS.get(name, ())]
        if unknown:
            raise ValueError(f"no such finding slot or value: {', '.join(unknown)}")
        return cls(tuple(changed.get(name, values[0]) for name, values in SLOTS.items()))

    def indices(self) -> IntArray:
        """Value indices, shape (slots,)."""
        return np.array([SLOTS[name].index(value) for name, value in zip(NAMES, self.values, strict=True)])

    def __getitem__(self, name: str) -> str:
        """The value of one slot."""
        return self.values[COLUMN[name]]

    def abnormal(self) -> dict[str, str]:
        """The slots whose value is not the normal one."""
        pairs = zip(NAMES, self.values, strict=True)
        return {name: value for name, value in pairs if value != SLOTS[name][0]}


def findings_of(seed: int) -> Findings:
    """The findings that `render.phantom` draws from this seed, without drawing the image."""
    return Findings.from_indices(draw_findings(1, np.random.default_rng(seed))[0])


def draw_findings(count: int, rng: np.random.Generator) -> IntArray:
    """Draw value indices for `count` phantoms, shape (count, slots)."""
    drawn = np.zeros((count, len(NAMES)), dtype=np.int64)
    for name, prevalence in _PREVALENCE.items():
        is_abnormal = rng.random(count) < prevalence
        drawn[:, COLUMN[name]] = np.where(is_abnormal, rng.integers(1, len(SLOTS[name]), count), 0)
    sizes = rng.integers(1, len(SLOTS["nodule size"]), count)
    drawn[rng.random(count) < _SHARE_WITHOUT_FINDING] = 0
    _remove_hidden(drawn)
    _remove_surplus(drawn, rng)
    drawn[:, COLUMN["nodule size"]] = np.where(drawn[:, COLUMN["nodule"]] > 0, sizes, 0)
    return drawn


def can_stand_together(findings: Findings) -> bool:
    """Whether an image can show all of these at once: none hides another, and only a nodule has a size."""
    drawn = findings.indices()[None]
    kept = drawn.copy()
    _remove_hidden(kept)
    has_nodule, has_size = (findings[name] != "none" for name in ("nodule", "nodule size"))
    return bool((kept == drawn).all()) and has_nodule == has_size


def _remove_hidden(drawn: IntArray) -> None:
    """Make normal, in place, whatever another finding of the same phantom would hide."""

    def column(name: str) -> IntArray:
        return drawn[:, COLUMN[name]]

    def has(name: str, *values: str) -> npt.NDArray[np.bool_]:
        return np.isin(column(name), [SLOTS[name].index(value) for value in values])

    def clear(name: str, where: npt.NDArray[np.bool_]) -> None:
        column(name)[where] = 0

    severe = has("oedema", "severe")
    clear("consolidation", severe)
    clear("nodule", severe)
    for side in ("right", "left"):
        effusion = f"{side} effusion"
        zones = {zone: f"{side} {zone} zone" for zone in ("upper", "mid", "lower")}
        lower_lobes = (f"{side} lower lobe",) + (("right middle lobe",) if side == "right" else ())
        all_lobes = (f"{side} upper lobe", *lower_lobes)
        air = has("pneumothorax", f"small {side}", f"large {side}")
        clear(effusion, air & has(effusion, "moderate", "large"))
        clear("consolidation", air & has("consolidation", *all_lobes))
        clear("nodule", air & has("nodule", *zones.values()))
        clear("consolidation", has(effusion, "moderate", "large") & has("consolidation", *lower_lobes))
        clear("nodule", has(effusion, "moderate", "large") & has("nodule", zones["lower"]))
        clear("nodule", has(effusion, "large") & has("nodule", zones["mid"]))
        clear("nodule", has("consolidation", *all_lobes) & has("nodule", *zones.values()))
    enlarged = has("heart", "markedly enlarged")
    clear("consolidation", enlarged & has("consolidation", "left lower lobe", "right middle lobe"))
    clear("nodule", enlarged & has("nodule", "left lower zone", "right lower zone"))


def _remove_surplus(drawn: IntArray, rng: np.random.Generator) -> None:
    """Keep at most `MOST_ABNORMAL` abnormal slots of each phantom, in place; which ones is left to chance."""
    lot = np.where(drawn > 0, rng.random(drawn.shape), np.inf)
    rank = lot.argsort(axis=1).argsort(axis=1)
    drawn[(drawn > 0) & (rank >= MOST_ABNORMAL)] = 0
