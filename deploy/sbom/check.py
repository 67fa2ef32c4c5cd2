"""Holds a bill of materials against the environment that it tells of, the pins and what the distribution asks for.

check.py BILL ENVIRONMENT EXTRA...: status 1 and a line for each fault. That it is valid CycloneDX is for the tool that
writes it to say.
"""

import json
import re
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Torch fixes these itself for its builds for CUDA; constraints.txt names what it leaves open.
FIXED_BY_TORCH = ("nvidia-", "cuda-toolkit")
# Holds nothing but the names of NVIDIA's own packages, and no licence.
NAMES_ONLY = "cuda-toolkit"


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(constraints: str) -> dict[str, str]:
    """Name -> the version that constraints.txt fixes."""
    return {normal(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.MULTILINE)}


def asked_for(project: dict[str, Any], extras: list[str]) -> set[str]:
    """Names that the distribution requires itself, with these extras; none of ours depends on the platform."""
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines}


def faults(bill: dict[str, Any], installed: dict[str, str], pinned: dict[str, str], asked: set[str]) -> list[str]:
    """What is wrong with a bill, in words, by name.

    `installed` are the versions that the environment holds by name. The part of a build ("+cpu") is in no pin.
    """
    listed = {normal(part["name"]): part for part in bill["components"]}
    absent = {"the distribution asks for it": asked, "is installed": set(installed) - asked}
    found = [
        f"{name}: {why}, and the bill does not have it"
        for why, names in absent.items()
        for name in sorted(names - set(listed))
    ]
    for name, part in sorted(listed.items()):
        version = part.get("version", "")
        if installed.get(name) != version:
            found.append(f"{name}: the bill says {version or 'no version'}, installed is {installed.get(name)}")
        if not name.startswith(FIXED_BY_TORCH) and pinned.get(name) != version.partition("+")[0]:
            found.append(f"{name}: {version or 'no version'} is listed, constraints.txt says {pinned.get(name)}")
        if not part.get("licenses") and name != NAMES_ONLY:
            found.append(f"{name}: has no licence")
    return found


def installed_in(environment: Path) -> dict[str, str]:
    """Versions by name of what an environment holds beside Inlay, which is what the bill is of."""
    sites = [str(site) for site in environment.glob("lib/python3.*/site-packages")]
    held = {normal(str(each.metadata["Name"])): each.version for each in distributions(path=sites)}
    if held.pop("inlay", None) is None:
        raise SystemExit(f"{environment} does not hold Inlay")
    return held


def main(bill: str, environment: str, *extras: str) -> None:
    """Ends the process with the faults, where there are some."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    told = json.loads(Path(bill).read_text(encoding="utf-8"))
    found = faults(told, installed_in(Path(environment)), pinned, asked_for(project, [*extras]))
    if found:
        raise SystemExit("\n".join([f"{Path(bill).name} is not what the image holds:", *found]))


if __name__ == "__main__":
    main(*sys.argv[1:])
