"""DICOM: datasets, pixels, image sources."""
