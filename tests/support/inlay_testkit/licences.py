"""The licences of what is installed: `make licences` lists them, and a test holds them against what may be.

What Inlay ships is permissive. LGPL packages may be installed beside it, never copied into it; GPL ones may not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions

PERMISSIVE = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSD",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "HPND",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "PSF-2.0",
        "Python-2.0",
        "Unlicense",
        "Zlib",
    }
)
# May be installed, not copied: a weak copyleft that ends at the package's own files.
INSTALLED_ONLY = frozenset({"LGPL", "LGPL-3.0-only", "LGPL-3.0-or-later", "LGPL-2.1-or-later", "MPL-2.0", "NVIDIA"})
# What packages write where no identifier of SPDX stands: licence texts and classifiers, in the order of trust.
_WORDS = (
    (r"lesser general public|\blgpl", "LGPL"),
    (r"mozilla public license|\bmpl", "MPL-2.0"),
    (r"affero|\bagpl", "AGPL"),
    (r"general public license|\bgpl", "GPL"),
    (r"apache", "Apache-2.0"),
    (r"\bmit\b", "MIT"),
    (r"\bisc\b", "ISC"),
    (r"\bbsd\b|redistribution and use in source and binary forms", "BSD"),
    (r"python software foundation|\bpsf", "PSF-2.0"),
    (r"historical permission notice|\bhpnd", "HPND"),
    (r"permission is hereby granted, free of charge", "MIT"),
    (r"public domain|unlicense", "Unlicense"),
)
# Packages whose metadata says nothing that can be read, looked up: atheris in its source distribution; cuda-toolkit
# holds nothing but the names of NVIDIA's own packages.
LOOKED_UP = {"atheris": "Apache-2.0", "cuda-toolkit": "NVIDIA"}
# CUDA's libraries, which come with torch where it is built for GPUs; their licence lets them be used and passed on.
_NVIDIA = "nvidia-"


@dataclass(frozen=True)
class Licensed:
    """An installed package and its licence, as an identifier of SPDX or a word for one."""

    name: str
    version: str
    licence: str

    @property
    def fits(self) -> bool:
        """Whether it may be installed beside Inlay."""
        return all(each in PERMISSIVE | INSTALLED_ONLY for each in parts(self.licence))


def parts(expression: str) -> list[str]:
    """The licences that must all hold; of several to choose from, the one that fits."""
    wanted: list[str] = []
    for all_of in re.split(r"\s+AND\s+", expression.replace("(", "").replace(")", "")):
        choices = [re.sub(r"\s+WITH\s+.*", "", choice).strip() for choice in re.split(r"\s+OR\s+", all_of)]
        wanted.append(next((c for c in choices if c in PERMISSIVE), choices[0]))
    return wanted


def licence_of(package: Distribution) -> str:
    """What its metadata says: the expression (PEP 639), else classifiers, else the first words that are known."""
    meta = package.metadata
    if str(meta["Name"]).startswith(_NVIDIA):
        return "NVIDIA"
    for expression in meta.get_all("License-Expression") or ():
        return str(expression)
    stated = [text.rpartition(" :: ")[2] for text in meta.get_all("Classifier") or () if text.startswith("License ::")]
    for text in (*stated, *(meta.get_all("License") or ())):
        for pattern, name in _WORDS:
            if re.search(pattern, text[:2000].lower()):
                return name
    return LOOKED_UP.get(str(meta["Name"]).lower(), "unknown")


def everything() -> list[Licensed]:
    """Each installed package once, by name."""
    found = {
        str(package.metadata["Name"]).lower(): Licensed(
            str(package.metadata["Name"]), package.version, licence_of(package)
        )
        for package in distributions()
        if package.metadata["Name"]
    }
    return [found[name] for name in sorted(found)]


def main() -> None:
    """Print the list; the exit status is 1 where one does not fit."""
    listed = everything()
    for each in listed:
        print(f"{each.name:<30} {each.version:<16} {each.licence}{'' if each.fits else '   DOES NOT FIT'}")
    raise SystemExit(0 if all(each.fits for each in listed) else 1)


if __name__ == "__main__":
    main()
