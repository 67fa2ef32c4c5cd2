"""The radiograph of the demonstration: a phantom with known findings, as the DICOM file that a modality would send."""

from collections.abc import Mapping
from types import MappingProxyType

# Drawn neither in training (small seeds) nor by the evaluation: just a number for the picture's noise.
SEED = 20_260_101
FINDINGS = {"heart": "mildly enlarged", "right_effusion": "moderate", "pacemaker": "left"}
# Of the study that is left to be read on the page.
OTHER_FINDINGS = {"heart": "markedly enlarged", "left_effusion": "small", "consolidation": "right lower lobe"}


def phantom_file(
    study_instance_uid: str,
    accession_number: str,
    findings: Mapping[str, str] = MappingProxyType(FINDINGS),
    seed: int = SEED,
) -> bytes:
    """A Part 10 file, marked as a phantom (rule of safety 9).

    Another `seed` is another picture with the same findings.
    """
    from inlay_model.phantom.dicom import dicom_file
    from inlay_model.phantom.findings import Findings
    from inlay_model.phantom.render import phantom

    return dicom_file(phantom(seed, Findings.normal(**findings)).image, study_instance_uid, accession_number)
