"""The Indiana University chest X-rays from a local folder in the layout of Open-i: reports as XML, images as PNG.

Demner-Fushman et al., JAMIA 23(2):304 (2016), openi.nlm.nih.gov: `NLMCXR_reports.tgz` unpacks to
`ecgen-radiology/*.xml`, `NLMCXR_png.tgz` to PNG files. There is no published split: studies are dealt into ten parts by
a digest of their id, eight for training, one for validation, one for test.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from inlay_model.datasets.items import DatasetProblem, ReportedStudy, Split

_PARTS: dict[int, Split] = {8: "validate", 9: "test"}


def split_of(study: str) -> Split:
    """The split of a study, by its id alone."""
    return _PARTS.get(int.from_bytes(hashlib.sha256(study.encode()).digest()[:8], "big") % 10, "train")


def studies(folder: Path, split: Split = "test") -> Iterator[ReportedStudy]:
    """The studies of a split with an image and a report with Findings or Impression, by number.

    Open-i says no view. The first image that a report names is taken as the frontal one, which it mostly is. Raises
    `DatasetProblem` where nothing is found at all, or for a file that is no XML.
    """
    images = {path.stem: path for path in folder.rglob("*.png")}
    given = 0
    for file in sorted(folder.rglob("*.xml"), key=lambda path: (len(path.stem), path.stem)):
        found = _study(file, images)
        if found is not None and split_of(found.id) == split:
            given += 1
            yield found
    if not given:
        raise DatasetProblem(
            f"IU X-ray: no study of the split {split} has both image and report in {folder}. "
            "Unpack both archives there, or choose another --split."
        )


def _study(file: Path, images: dict[str, Path]) -> ReportedStudy | None:
    try:
        root = ET.parse(file).getroot()  # noqa: S314 - the user's own files; expat bounds entity expansion
    except ET.ParseError as problem:
        raise DatasetProblem(f"{file.name} is no XML. Unpack the reports again, or take the file away.") from problem
    sections = {}
    for part in root.iter("AbstractText"):
        text = " ".join("".join(part.itertext()).split())
        if text:
            sections[part.get("Label", "").lower()] = text
    named = [image.get("id", "") for image in root.iter("parentImage")]
    shots = tuple(images[name] for name in named if name in images)
    if not shots or shots[0].stem != named[0] or not {"findings", "impression"} & set(sections):
        return None
    return ReportedStudy(f"CXR{file.stem}", shots, sections)
