"""Plots of evaluations, and what is said where they cannot be drawn."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inlay_model.calibration import Bin
from inlay_model.evaluation.plots import (
    Bar,
    NoPlot,
    check,
    draw,
    draw_reliability,
    infill_bars,
    phantom_bars,
    speed_bars,
    vqa_bars,
)

BARS = [
    Bar("vqa-rad", "base", 0.4, 0.3, 0.5),
    Bar("vqa-rad", "finetuned", 0.7, 0.6, 0.8),
    Bar("slake", "base", 0.5, 0.4, 0.6),
    Bar("slake", "finetuned", 0.9, 0.8, 0.95),
]


def test_a_plot_is_written_as_its_name_says_and_the_same_each_time(tmp_path: Path) -> None:
    """SVG with text as text and no date in it; PNG that opens as a picture."""
    for name in ("one.svg", "two.svg", "plot.png"):
        draw(BARS, tmp_path / name, title="Questions answered rightly", unit="share", share=True)
    svg = (tmp_path / "one.svg").read_text()
    assert svg == (tmp_path / "two.svg").read_text()
    for text in ("vqa-rad", "slake", "base", "finetuned", "Questions answered rightly", "share"):
        assert f">{text}<" in svg, text
    with Image.open(tmp_path / "plot.png") as image:
        assert min(image.size) > 200


def test_reliability_is_drawn_with_the_number_of_cases(tmp_path: Path) -> None:
    """A point per bin, with how many cases it stands for."""
    draw_reliability([Bin(12, 0.2, 0.25), Bin(30, 0.9, 1.0)], tmp_path / "r.svg", title="Alternatives")
    svg = (tmp_path / "r.svg").read_text()
    for text in ("n = 12", "n = 30", "Alternatives", "share that was right"):
        assert f">{text}<" in svg, text


def test_losses_are_drawn_below_zero(tmp_path: Path) -> None:
    """A gain may be negative, and its interval is then not cut off."""
    draw([Bar("diffusion", "token-F1", -0.1, -0.2, 0.05)], tmp_path / "loss.svg", title="t", unit="gain", share=False)
    assert "−0.2" in (tmp_path / "loss.svg").read_text()


def test_without_matplotlib_it_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra to install; a file of another kind is refused as well."""
    with pytest.raises(NoPlot, match=r"\.svg or \.png"):
        check(tmp_path / "plot.pdf")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else real(name))
    with pytest.raises(NoPlot, match=r"inlay\[plots\]"):
        check(tmp_path / "plot.svg")


def test_bars_are_the_figures() -> None:
    """Each suite's bars hold its values and intervals; a mean without one has none."""
    gain: dict[str, Any] = {"mean": 0.1, "bootstrap_low": 0.05, "bootstrap_high": 0.15}
    effects = {"diffusion": {"gain": gain}, "autoregressive": {"gain": gain}, "interaction": gain}
    assert [bar.group for bar in infill_bars({"token_f1": effects})] == ["diffusion", "autoregressive", "interaction"]
    assert infill_bars({"token_f1": effects})[0] == Bar("diffusion", "token-F1", 0.1, 0.05, 0.15)
    accuracy = {"all": {"accuracy": 0.5, "wilson_95": [0.4, 0.6]}}
    assert vqa_bars({"slake": {"candidates": {"ours": accuracy}}}) == [Bar("slake", "ours", 0.5, 0.4, 0.6)]
    assert phantom_bars([("slots", 0.9, None)]) == [Bar("slots", "share", 0.9, 0.9, 0.9)]
    models = {"diffusion": {"faster": 2.0, "faster_95": [1.5, 2.5]}}
    assert speed_bars({"models": models}) == [Bar("diffusion", "speed", 2.0, 1.5, 2.5)]
