"""From Inlay's domain to FHIR R4 resources. These modules alone import the core."""
