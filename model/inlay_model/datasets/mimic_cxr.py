"""MIMIC-CXR and MIMIC-CXR-JPG from a local folder in PhysioNet's layout.

Johnson et al., Scientific Data 6:317 (2019), physionet.org/content/mimic-cxr-jpg. Images stand in
`files/p10/p10000032/s50414267/<dicom id>.jpg` (or .dcm), the report beside them in `s50414267.txt`, here or under
`mimic-cxr-reports/files`. `mimic-cxr-2.0.0-split.csv` and `-metadata.csv` (each also .gz) give split and view.
The data may be used under its own agreement only; among other things it forbids sending text to third parties.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from inlay_model.datasets.items import DatasetProblem, ReportedStudy, Split
from inlay_model.datasets.report_text import sections_of
from inlay_model.datasets.tables import rows, text_of

# A draft begins with the frontal view; of several the posteroanterior one is the better image.
_FRONTAL = {"PA": 0, "AP": 1}
_SUFFIXES = (".jpg", ".dcm", ".png")
# Columns of the two tables.
_VIEW = ("dicom_id", "ViewPosition")
_SPLIT = ("dicom_id", "subject_id", "study_id", "split")


def studies(folder: Path, split: Split = "test") -> Iterator[ReportedStudy]:
    """The studies of a split that have a frontal image and a report with Findings or Impression, in the split's order.

    What is named in the tables and not there is left out, for hardly anyone has all of it; raises `DatasetProblem`
    where nothing is found at all, or for a file that is damaged, with the line.
    """
    views = {row["dicom_id"]: row["ViewPosition"] for row in rows(_table(folder, "metadata"), _VIEW)}
    wanted: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows(_table(folder, "split"), _SPLIT):
        if row["split"] == split:
            wanted[row["subject_id"], row["study_id"]].append(row["dicom_id"])
    given = 0
    for (subject, study), images in wanted.items():
        found = _study(folder, subject, study, images, views)
        if found is not None:
            given += 1
            yield found
    if not given:
        raise DatasetProblem(
            f"MIMIC-CXR: no study of the split {split} has both image and report in {folder}. "
            "Unpack both there, or choose another --split."
        )


def _study(folder: Path, subject: str, study: str, images: list[str], views: Mapping[str, str]) -> ReportedStudy | None:
    place = Path(f"p{subject[:2]}") / f"p{subject}"
    report = _first(folder / base / place / f"s{study}.txt" for base in ("files", "mimic-cxr-reports/files"))
    if report is None:
        return None
    sections = sections_of(text_of(report))
    # By view and then by name, so that the same folder always gives the same image.
    frontal = sorted((image for image in images if views.get(image) in _FRONTAL), key=lambda i: (_FRONTAL[views[i]], i))
    others = sorted(image for image in images if image not in frontal)
    shots = [
        _first(folder / "files" / place / f"s{study}" / f"{image}{suffix}" for suffix in _SUFFIXES)
        for image in (*frontal, *others)
    ]
    # A frontal image that is in the tables and not in the folder does not make the lateral one the first.
    if not frontal or shots[0] is None or not {"findings", "impression"} & set(sections):
        return None
    return ReportedStudy(f"s{study}", tuple(shot for shot in shots if shot is not None), sections)


def _first(paths: Iterator[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _table(folder: Path, name: str) -> Path:
    plain = folder / f"mimic-cxr-2.0.0-{name}.csv"
    found = _first(iter((plain, plain.with_suffix(".csv.gz"))))
    if found is None:
        raise DatasetProblem(
            f"MIMIC-CXR: there is no {plain.name} (or .gz) in {folder}. Name the folder that holds the tables."
        )
    return found
