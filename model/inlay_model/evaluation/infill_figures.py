"""The figures of the suite `infill`: effects and contrasts of the 2 x 2 design, and its table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inlay_model.evaluation.infill import MODELS, SIDES, Filling
from inlay_model.evaluation.statistics import compare, holm, interaction, mcnemar, p_text, wilson


def summary(fillings: Sequence[Filling]) -> dict[str, Any]:
    """The figures of the design: token-F1, and the share judged right where a judge gave verdicts."""
    figures: dict[str, Any] = {"n": len(fillings), "token_f1": effects([filling.f1 for filling in fillings])}
    verdicts = [filling.right for filling in fillings if filling.right is not None]
    if len(verdicts) == len(fillings):
        figures["judged"] = judged_effects(verdicts)
    return figures


def judged_effects(verdicts: Sequence[Mapping[tuple[str, str], bool]]) -> dict[str, Any]:
    """The design on verdicts of right and wrong: as on scores, with Wilson's intervals and exact McNemar tests."""
    found = effects([{cell: float(right) for cell, right in row.items()} for row in verdicts])
    for name in (name for name in MODELS if name in found):
        cells = {side: [row[name, side] for row in verdicts] for side in SIDES}
        found[name]["mcnemar"] = mcnemar(cells["both"], cells["left"]).to_json()
        found[name] |= {f"{side}_95": [round(b, 6) for b in wilson(found[name][side], len(verdicts))] for side in SIDES}
    return found


def effects(rows: Sequence[Mapping[tuple[str, str], float]]) -> dict[str, Any]:
    """Means of the cells, the gain of each model by the right-hand side, and with two models their contrasts.

    The interaction is the one primary test; p values of the gains are adjusted for being two (Holm).
    """
    present = [name for name in MODELS if rows and (name, "both") in rows[0]]
    cells = {(name, side): [row[name, side] for row in rows] for name in present for side in SIDES}
    found: dict[str, Any] = {}
    gains = {}
    for name in present:
        both, left = cells[name, "both"], cells[name, "left"]
        gains[name] = compare([b - a for b, a in zip(both, left, strict=True)])
        means = {side: round(float(np.mean(cells[name, side])), 6) for side in SIDES}
        found[name] = {**means, "gain": gains[name].to_json()}
    for name, p in zip(present, holm([gains[name].p for name in present]), strict=True):
        found[name]["gain"]["p_holm"] = float(f"{p:.4g}")
    if len(present) == len(MODELS):
        one, other = MODELS
        contrast = interaction(cells[one, "both"], cells[one, "left"], cells[other, "both"], cells[other, "left"])
        found["interaction"] = compare(contrast).to_json()
        for side in SIDES:
            differences = [a - b for a, b in zip(cells[one, side], cells[other, side], strict=True)]
            found[f"{one}_less_{other}_{side}"] = compare(differences).to_json()
    return found


_NAMES = {"diffusion": "diffusion", "autoregressive": "autoregressive sibling"}
_MEASURES = {"token_f1": "token-F1 of the missing sentence", "judged": "judged right"}


def table(figures: Mapping[str, Any]) -> str:
    """The figures laid out like the paper's Table 3: a row per model, and the gain by the right-hand side."""
    lines = []
    for measure, title in _MEASURES.items():
        if measure not in figures:
            continue
        found = figures[measure]
        lines += [
            f"| {title}, n = {figures['n']} | both sides | left only | gain | 95 % (t) | 95 % (bootstrap) | p |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in (name for name in MODELS if name in found):
            row = found[name]
            lines.append(f"| {_NAMES[name]} | {row['both']:.3f} | {row['left']:.3f} | {_effect(row['gain'])} |")
        if "interaction" in found:
            lines.append(f"| **interaction** | | | {_effect(found['interaction'])} |")
        lines.append("")
    if figures.get("left_out"):
        lines.append(f"{figures['left_out']} cases did not fit one of the models and are left out for all.")
    if "interaction" not in figures["token_f1"]:
        lines.append("Without --sibling there is no autoregressive model to compare with.")
    return "\n".join(lines).rstrip()


def _effect(found: Mapping[str, float]) -> str:
    spans = [f"{found[f'{kind}low']:+.3f} to {found[f'{kind}high']:+.3f}" for kind in ("", "bootstrap_")]
    return " | ".join([f"{found['mean']:+.3f}", *spans, p_text(found["p"])])
