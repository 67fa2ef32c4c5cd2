"""What `make sbom` objects to in a bill, and that all an image installs is pinned; .ci/run writes a whole bill."""

import runpy
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import pytest
from packaging.requirements import Requirement

from inlay_testkit.chart import ROOT

CHECK = runpy.run_path(str(ROOT / "deploy" / "sbom" / "check.py"))
faults, normal = CHECK["faults"], CHECK["normal"]
PINS = CHECK["pins"]((ROOT / "constraints.txt").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

MIT = [{"license": {"id": "MIT"}}]
INSTALLED = {"flask": "3.1.3", "fhir-core": "1.1.12", "torch": "2.13.0+cpu"}
PINNED = {"flask": "3.1.3", "fhir-core": "1.1.12", "torch": "2.13.0"}


def bill(*parts: dict[str, Any]) -> dict[str, Any]:
    """A bill with these components in place of those of the same name, which are right."""
    names = {"flask": "Flask", "fhir-core": "fhir_core", "torch": "torch"}
    right = {name: {"name": names[name], "version": INSTALLED[name], "licenses": MIT} for name in names}
    return {"components": [*(right | {normal(part["name"]): part for part in parts}).values()]}


def test_a_bill_that_is_right_is_let_through() -> None:
    """However its names are spelt, and whichever build of torch it has."""
    assert faults(bill(), INSTALLED, PINNED, {"flask", "torch"}) == []


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"name": "Flask", "version": "3.1.2", "licenses": MIT}, "the bill says 3.1.2, installed is 3.1.3"),
        ({"name": "Flask", "version": "3.1.2", "licenses": MIT}, "3.1.2 is listed, constraints.txt says 3.1.3"),
        ({"name": "Flask", "licenses": MIT}, "the bill says no version"),
        ({"name": "flask", "version": "3.1.3"}, "flask: has no licence"),
        ({"name": "flask", "version": "3.1.3", "licenses": []}, "flask: has no licence"),
        ({"name": "left-pad", "version": "1.0", "licenses": MIT}, "left-pad: 1.0 is listed, constraints.txt says None"),
        ({"name": "left-pad", "version": "1.0", "licenses": MIT}, "the bill says 1.0, installed is None"),
    ],
)
def test_a_wrong_component_is_named(part: dict[str, Any], words: str) -> None:
    """Another version than is installed or pinned, none, no licence, what nobody installed."""
    assert [fault for fault in faults(bill(part), INSTALLED, PINNED, {"flask"}) if words in fault]


def test_what_is_missing_is_named() -> None:
    """What is installed and not listed, and what an image needs that was never installed."""
    assert faults({"components": []}, {"flask": "3.1.3"}, PINNED, {"torch"}) == [
        "torch: the distribution asks for it, and the bill does not have it",
        "flask: is installed, and the bill does not have it",
    ]


def test_what_torch_fixes_for_cuda_needs_no_pin() -> None:
    """NVIDIA's packages come with its builds; the one that only names them has no licence of its own."""
    cuda = {"cuda-toolkit": "13.0.3.0", "nvidia-cublas": "13.1.1.3"}
    listed = [{"name": name, "version": version} for name, version in cuda.items()]
    assert faults({"components": listed}, cuda, PINNED, set()) == ["nvidia-cublas: has no licence"]


def test_what_the_distribution_asks_for_is_read_from_the_project() -> None:
    """With the extras of an image, by the names alone."""
    services = CHECK["asked_for"](PROJECT, ["traces"])
    assert {"flask", "celery", "psycopg", "fhir-resources", "opentelemetry-sdk"} <= services
    assert CHECK["asked_for"](PROJECT, ["model", "traces"]) - services >= {"torch", "transformers", "peft"}


def runtime(extras: tuple[str, ...]) -> set[str]:
    """All that the distribution needs with these extras, as far as it is installed here, by what each asks for."""
    waiting = [Requirement(f"inlay[{','.join(extras)}]")]
    found: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (normal(wanted.name), extra) in found:
                continue
            found.add((normal(wanted.name), extra))
            try:
                lines = distribution(wanted.name).requires or []
            except PackageNotFoundError:
                continue
            for line in lines:
                inner = Requirement(line)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    waiting.append(inner)
    return {name for name, _ in found} - {"inlay"}


@pytest.mark.parametrize(("extras", "least"), [(("traces",), 75), (("model", "traces"), 95)])
def test_everything_that_an_image_installs_is_pinned(extras: tuple[str, ...], least: int) -> None:
    """What has no pin would be another version with each build: everything that the requirements lead to has one."""
    needed = runtime(extras)
    assert len(needed) >= least
    assert {name for name in needed if name not in PINS and not name.startswith(CHECK["FIXED_BY_TORCH"])} == set()
