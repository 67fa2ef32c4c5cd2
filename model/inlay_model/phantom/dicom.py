"""A phantom as the DICOM file that a modality would send, marked as a phantom in its header."""

import io

import numpy as np
import numpy.typing as npt

from inlay_model.study import PHANTOM_MODEL_NAME

# A thorax of 35 cm across the 384 pixels of a phantom.
SPACING = ["0.9115", "0.9115"]


def dicom_file(pixels: npt.NDArray[np.uint8], study_instance_uid: str, accession_number: str) -> bytes:
    """A Part 10 file of a grey image: DX, PA view, 8 bits, a phantom by image type and model name."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.filewriter import dcmwrite
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

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
        "ManufacturerModelName": PHANTOM_MODEL_NAME,
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
