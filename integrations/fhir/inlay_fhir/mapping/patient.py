"""A patient as the orders describe him or her.

https://hl7.org/fhir/R4/patient.html
"""

from __future__ import annotations

from inlay_core.domain.patient import Patient, PersonName
from inlay_fhir.elements import Json, filled, instant, string
from inlay_fhir.mapping.naming import identifier
from inlay_fhir.site import FhirSite


def patient_resource(site: FhirSite, patient: Patient) -> Json:
    """What the orders said of a patient."""
    record_number = identifier(site, "MR", patient.identifier, patient.assigner)
    return filled(
        resourceType="Patient",
        id=patient.id,
        meta=filled(
            versionId=str(patient.version), lastUpdated=instant(patient.updated_at) if patient.updated_at else None
        ),
        identifier=[record_number] if record_number else None,
        # A record that was merged away points to the one that took its place.
        active=False if patient.merged_into else None,
        name=[_name(patient.name)] if patient.name and _name(patient.name) else None,
        gender=patient.sex if patient.sex in ("male", "female", "other", "unknown") else None,
        birthDate=patient.birth_date.isoformat() if patient.birth_date else None,
        link=[{"other": {"reference": f"Patient/{patient.merged_into}"}, "type": "replaced-by"}]
        if patient.merged_into
        else None,
    )


def _name(name: PersonName) -> Json:
    given = [part for part in (string(name.given), string(name.middle)) if part]
    return filled(
        text=string(name.text),
        family=string(name.family),
        given=given,
        prefix=[prefix] if (prefix := string(name.prefix)) else None,
        suffix=[suffix] if (suffix := string(name.suffix)) else None,
    )
