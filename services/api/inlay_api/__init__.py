"""HTTP: FHIR, the workstation API and the page, with Flask."""
