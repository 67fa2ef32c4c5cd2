"""Interaction `capabilities`: the CapabilityStatement, made from the table of routes and of search parameters.

https://hl7.org/fhir/R4/http.html#capabilities, https://hl7.org/fhir/R4/capabilitystatement.html
"""

from __future__ import annotations

from typing import Final

from inlay_fhir.elements import Json, filled
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.lookup import LOOKUPS, Lookup
from inlay_fhir.mapping.searching import PARAMETERS, Parameter
from inlay_fhir.operations import definition_id
from inlay_fhir.search import INCLUDES, REVERSE_INCLUDES
from inlay_fhir.table import DOCUMENTATION, ROUTES

STATUS_OPERATION: Final = (
    "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-status"
)
FHIR_VERSION: Final = "4.0.1"
# When what this endpoint offers last changed; a statement whose date moves with the clock could not be compared.
STATED: Final = "2026-11-21"


def capabilities(exchange: Exchange) -> Answer:
    """What this endpoint can do; it says nothing of any patient, so the trail does not hear of it."""
    return Answer(capability_statement(exchange.request.base_url, exchange.site.version))


def capability_statement(base_url: str, version: str) -> Json:
    """The statement of an instance at `base_url`."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": STATED,
        "kind": "instance",
        "software": {"name": "Inlay", "version": version},
        "implementation": {"description": "Drafts of radiology reports, and what became of them", "url": base_url},
        "fhirVersion": FHIR_VERSION,
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "documentation": "Every answer that shows a record is in the audit trail.",
                "security": _security(base_url),
                "resource": [_resource(name, base_url) for name in DOCUMENTATION],
                "interaction": [{"code": route.code} for route in ROUTES if not route.resource],
            }
        ],
    }


def _definition(operation: str, base_url: str) -> str:
    if operation == "status":
        return STATUS_OPERATION
    return f"{base_url}/OperationDefinition/{definition_id(operation)}"


def _security(base_url: str) -> Json:
    smart = {"system": "http://terminology.hl7.org/CodeSystem/restful-security-service", "code": "SMART-on-FHIR"}
    return {
        "extension": [
            {
                "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
                "extension": [{"url": "token", "valueUri": f"{base_url}/auth/token"}],
            }
        ],
        "service": [{"coding": [smart]}],
        "description": "Systems: SMART Backend Services, where the site registered them. People: a bearer token (JWT) "
        "of the hospital's provider with a role that may read.",
    }


def _resource(name: str, base_url: str) -> Json:
    routes = [route for route in ROUTES if route.resource == name]
    codes = dict.fromkeys(route.code for route in routes if route.code != "operation")
    is_report = name == "DiagnosticReport"
    return filled(
        type_=name,
        documentation=DOCUMENTATION[name],
        interaction=[{"code": code} for code in codes],
        versioning="versioned" if "vread" in codes else "no-version",
        readHistory="history-instance" in codes,
        conditionalCreate=True if "create" in codes and name != "Subscription" else None,
        conditionalRead="not-match",
        searchInclude=list(INCLUDES) if is_report else None,
        searchRevInclude=list(REVERSE_INCLUDES) if is_report else None,
        searchParam=[_parameter(parameter) for parameter in (PARAMETERS if is_report else LOOKUPS.get(name, ()))],
        operation=[
            {"name": operation, "definition": _definition(operation, base_url)}
            for operation in dict.fromkeys(route.operation for route in routes if route.operation)
        ],
    )


def _parameter(parameter: Parameter | Lookup) -> Json:
    return {"name": parameter.name, "type": parameter.type, "documentation": parameter.documentation}
