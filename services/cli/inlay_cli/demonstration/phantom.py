"""The radiograph of the demonstration: a phantom with known findings, as the DICOM file that a modality would send."""

import io
from collections.abc import Mapping
from types import MappingProxyType

# Drawn neither in training (small seeds) nor by the evaluation: just a number for the picture's noise.
SEED = 20_260_101
FINDINGS = {"heart": "mildly enlarged", "right_effusion": "moderate", "pacemaker": "left"}
# Of the study that is left to be read on the page.
OTHER_FINDINGS = {"heart": "markedly enlarged", "left_effusion": "small", "consolidation": "right lower lobe"}
# A thorax of 35 cm across the 384 pixels of a phantom.
SPACING = ["0.9115", "0.9115"]


def phantom_file(
    study_instance_uid: str,
    accession_number: str,
    findings: Mapping[str, str] = MappingProxyType(FINDINGS),
    seed: int = SEED,
) -> bytes:
    """A Part 10 file: DX, PA view, 8 bits, marked as a phantom by image type and model name (rule of safety 9).

    Another `seed` is another picture with the same findings.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.filewriter import dcmwrite
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    from inlay_model.phantom.findings import Findings
    from inlay_model.phantom.render import phantom

    pixels = phantom(seed, Findings.normal(**findings)).image
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    facts = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": study_instance_uid,
        "SeriesInstanceUID": generate_uid(),
        "AccessionNumber": accession_number,
        "PatientID": "PHANTOM-1",
        "PatientName": "Phantom^Petra",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "StudyDate": "20260101",
        "StudyTime": "120000",
        "Manufacturer": "Inlay",
        "ManufacturerModelName": "Inlay Phantom",
        "ImageType": ["DERIVED", "SECONDARY", "PHANTOM"],
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientOrientation": ["L", "F"],
        "PresentationIntentType": "FOR PRESENTATION",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "BurnedInAnnotation": "NO",
        "ImagerPixelSpacing": SPACING,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1,
        "PresentationLUTShape": "IDENTITY",
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "WindowCenter": 128,
        "WindowWidth": 256,
        "LossyImageCompression": "00",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    for keyword, value in facts.items():
        setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OB"
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()
