"""FHIR R4: one file per interaction, a router without a web framework."""
