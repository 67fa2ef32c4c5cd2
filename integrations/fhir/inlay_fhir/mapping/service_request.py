"""An order as a ServiceRequest.

https://hl7.org/fhir/R4/servicerequest.html
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from inlay_core.domain.order import Order, OrderStatus
from inlay_core.domain.patient import PersonName, Provider
from inlay_fhir.elements import Json, coding, concept, filled, instant, reference, string
from inlay_fhir.mapping.naming import SNOMED, assigner_system, identifier, procedure_concept
from inlay_fhir.site import FhirSite

# A cancelled order is revoked; a published table from v2 to FHIR says `active`, and is wrong.
_STATUSES: Final[Mapping[OrderStatus, str]] = MappingProxyType(
    {
        OrderStatus.SCHEDULED: "active",
        OrderStatus.ON_HOLD: "on-hold",
        OrderStatus.IN_PROGRESS: "active",
        OrderStatus.COMPLETED: "completed",
        OrderStatus.CANCELLED: "revoked",
        OrderStatus.DISCONTINUED: "revoked",
        OrderStatus.REPLACED: "revoked",
    }
)


def service_request(site: FhirSite, order: Order) -> Json:
    """An order. Its free text is here, because whoever may read the report may read why it was asked for."""
    named = (
        identifier(site, "PLAC", order.placer_number, order.assigner),
        identifier(site, "FILL", order.filler_number, order.assigner),
        identifier(site, "ACSN", order.accession_number, order.accession_assigner),
    )
    return filled(
        resourceType="ServiceRequest",
        id=order.id,
        meta=filled(versionId=str(order.version), lastUpdated=instant(order.updated_at) if order.updated_at else None),
        identifier=[each for each in named if each],
        status=_STATUSES[order.status],
        intent="order",
        category=[concept(coding(SNOMED, "363679005", "Imaging"))],
        priority=str(order.priority),
        code=procedure_concept(order.procedure),
        subject={"reference": f"Patient/{order.patient.id}"},
        occurrenceDateTime=instant(order.scheduled_at) if order.scheduled_at else None,
        requester=_requester(site, order.assigner, order.ordering_provider),
        reasonCode=[concept(text=order.reason)] if string(order.reason) else None,
    )


def _requester(site: FhirSite, assigner: str, provider: Provider | None) -> Json | None:
    """Who ordered, as the RIS numbers its clinicians; None when nothing is known."""
    if provider is None:
        return None
    number, name = string(provider.identifier), provider.name
    known = filled(
        identifier=filled(system=assigner_system(site, assigner), value=number) if number else None,
        display=string(_shown(name)),
    )
    return reference(type="Practitioner", **known) if known else None


def _shown(name: PersonName | None) -> str | None:
    return name.text if name else None
