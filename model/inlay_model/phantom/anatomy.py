"""Numbers that place one phantom in its image: build, exposure, and where each finding lies exactly.

Lengths are in half image widths (1.0 is 200 mm), x from the image's left edge (-1) to its right (+1), y
downwards. By the convention of chest radiographs the patient's right side is on the image's left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from inlay_model.phantom.findings import COLUMN, SLOTS, IntArray

FloatArray = npt.NDArray[np.float32]
Anatomy = Mapping[str, FloatArray]
_Uniform = Callable[[float, float], FloatArray]

# Ratio classes are kept apart by gaps, so that no image lies on the border of two values.
_HEART_HALF_WIDTH = ((0.25, 0.29), (0.36, 0.40), (0.48, 0.53))
_EFFUSION_TOP = ((2.0, 2.0), (0.27, 0.33), (0.05, 0.12), (-0.26, -0.18))
_NODULE_RADIUS = ((0.0, 0.0), (0.027, 0.030), (0.050, 0.054), (0.076, 0.082))
_PNEUMOTHORAX_DEPTH = ((0.0, 0.0), (0.085, 0.105), (0.20, 0.24), (0.085, 0.105), (0.20, 0.24))
_OEDEMA_AMPLITUDE = ((0.0, 0.0), (0.14, 0.17), (0.32, 0.36))
_TUBE_TIP = ((-2.0, -2.0), (-0.46, -0.40), (-0.17, -0.11))
_NODULE_CENTRE = {"upper": -0.34, "mid": -0.06, "lower": 0.20}
_CONSOLIDATION_CENTRE = {
    "right upper lobe": (-0.40, -0.38),
    "right middle lobe": (-0.27, 0.10),
    "right lower lobe": (-0.47, 0.30),
    "left upper lobe": (0.40, -0.38),
    "left lower lobe": (0.50, 0.26),
}


def side_of(value: str) -> int:
    """-1 for the patient's right (the image's left), +1 for the left, 0 where no side is named."""
    if "right" in value:
        return -1
    return 1 if "left" in value else 0


def draw_anatomy(findings: IntArray, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Draw the numbers that place `findings`, shape (count, slots), in images; each number has shape (count,)."""
    count = len(findings)

    def uniform(low: float, high: float) -> FloatArray:
        return rng.uniform(low, high, count).astype(np.float32)

    def by_value(name: str, ranges: tuple[tuple[float, float], ...]) -> FloatArray:
        bounds = np.array(ranges, dtype=np.float32)[findings[:, COLUMN[name]]]
        return (bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * rng.random(count)).astype(np.float32)

    def side(name: str) -> FloatArray:
        return np.array([side_of(value) for value in SLOTS[name]], dtype=np.float32)[findings[:, COLUMN[name]]]

    drawn = {
        "rotation": uniform(-0.05, 0.05),
        "scale": uniform(0.94, 1.05),
        "shift x": uniform(-0.04, 0.04),
        "shift y": uniform(-0.04, 0.04),
        "gain": uniform(0.90, 1.08),
        "offset": uniform(-0.03, 0.03),
        "texture": uniform(0.6, 1.2),
        "noise": uniform(0.010, 0.022),
        "lung width": uniform(0.295, 0.325),
        "lung centre": uniform(0.375, 0.395),
        "right dome": uniform(0.46, 0.50),
        "left dome": uniform(0.50, 0.54),
        "rib pitch": uniform(0.150, 0.165),
        "rib slope": uniform(0.20, 0.30),
        "heart half width": by_value("heart", _HEART_HALF_WIDTH),
        "oedema": by_value("oedema", _OEDEMA_AMPLITUDE),
        "right fluid top": by_value("right effusion", _EFFUSION_TOP),
        "left fluid top": by_value("left effusion", _EFFUSION_TOP),
        "pneumothorax side": side("pneumothorax"),
        "pneumothorax depth": by_value("pneumothorax", _PNEUMOTHORAX_DEPTH),
        "nodule radius": by_value("nodule size", _NODULE_RADIUS),
        "fracture side": side("rib fracture"),
        "fracture rib": rng.integers(3, 6, count).astype(np.float32),
        "fracture x": uniform(0.50, 0.58),
        "spine bend": side("scoliosis") * uniform(0.11, 0.15) + uniform(-0.012, 0.012),
        "pacemaker side": side("pacemaker"),
        "pacemaker x": uniform(0.40, 0.47),
        "pacemaker y": uniform(-0.66, -0.61),
        "tube tip": by_value("tracheal tube", _TUBE_TIP),
        "line side": side("central line"),
        "line tip": uniform(-0.10, 0.0),
    }
    drawn["nodule x"], drawn["nodule y"] = _nodule_centre(findings, uniform)
    drawn["consolidation x"], drawn["consolidation y"] = _consolidation_centre(findings, uniform)
    drawn["consolidation size"] = np.where(findings[:, COLUMN["consolidation"]] > 0, uniform(0.13, 0.17), 0.0)
    return {name: values.astype(np.float32) for name, values in drawn.items()}


def _nodule_centre(findings: IntArray, uniform: _Uniform) -> tuple[FloatArray, FloatArray]:
    heights = [0.0] + [_NODULE_CENTRE[value.split()[1]] for value in SLOTS["nodule"][1:]]
    sides = [float(side_of(value)) for value in SLOTS["nodule"]]
    place = findings[:, COLUMN["nodule"]]
    x = np.array(sides, dtype=np.float32)[place] * uniform(0.36, 0.52)
    return x, np.array(heights, dtype=np.float32)[place] + uniform(-0.045, 0.045)


def _consolidation_centre(findings: IntArray, uniform: _Uniform) -> tuple[FloatArray, FloatArray]:
    centres = [(0.0, 0.0)] + [_CONSOLIDATION_CENTRE[value] for value in SLOTS["consolidation"][1:]]
    chosen = np.array(centres, dtype=np.float32)[findings[:, COLUMN["consolidation"]]]
    return chosen[:, 0] + uniform(-0.03, 0.03), chosen[:, 1] + uniform(-0.03, 0.03)
