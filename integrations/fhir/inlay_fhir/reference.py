"""The reference page of this endpoint, written from the tables that the router obeys."""

from __future__ import annotations

from typing import Final

from inlay_fhir.capability import FHIR_VERSION
from inlay_fhir.mapping.core import Status
from inlay_fhir.mapping.diagnostic_report import fhir_status
from inlay_fhir.mapping.searching import PARAMETERS
from inlay_fhir.search import INCLUDES, REVERSE_INCLUDES, SORTS
from inlay_fhir.site import FhirSite
from inlay_fhir.table import DOCUMENTATION, ROUTES

_HEAD: Final = f"""# FHIR capability

Generated from `integrations/fhir/inlay_fhir` (routes, search parameters, status mapping); do not edit.

FHIR R4 ({FHIR_VERSION}), JSON, at `/fhir`. `GET /fhir/metadata` says the same as a CapabilityStatement.
Every request needs a bearer token; what a role may read is the core's table of permissions.

"""

_TAIL: Final = """
## How it answers

- **Versions.** `ETag: W/"n"` is the version of a report, an order or a patient, and a digest of the content elsewhere.
  `If-None-Match` (`W/"3"`, `"3"`, a bare `3`, a list, `*`) is answered with 304. A `vread` has the text of that version
  and the order and patient as they stand now: once these have changed after a version of a report was made, that
  version is answered in full, whatever the client has. No report is ever deleted: a withdrawn one is
  `entered-in-error` and can still be read.
- **Writing.** `create` places an order: 201 with `Location` and `ETag`. `If-None-Exist: identifier=system|value`
  creates once, however many identical requests come at once: others get that order with 200; where several fit, 412.
  Another order with a number that is taken is 409. A study joins the order that its accession number or `basedOn`
  names, if that is of the same patient (else 409). Operations take the version that the caller saw in `If-Match` (428
  without it) and compare it inside the transaction (412). `Prefer: return=minimal|representation|OperationOutcome`.
- **Formats.** `application/fhir+json` and `application/json`, by `Accept` or `_format`; anything else is 406. A posted
  search is a form, any other body `application/fhir+json`, else 415. HEAD is answered like GET.
- **Errors.** Each 4xx and 5xx is an OperationOutcome with an issue type; it names the place, never a value.
- **Searches.** Unknown parameters are ignored and left out of the link `self`; `Prefer: handling=strict` refuses them.
  A modifier or value that cannot be obeyed is always 400. Dates without a zone are UTC. `_count=0` and
  `_summary=count` give the total; `_summary` (`true`, `text`, `data`) and `_elements` give parts, tagged `SUBSETTED`.
  Pages are linked; follow the links.
- **Batches.** A Bundle of type `batch`, posted to `/fhir`, has up to 50 reads and searches; each is answered and
  recorded as if it had come alone. Entries that change something are refused (405).
- **Notifications.** A Subscription (topic `urn:x-inlay:subscription-topic:report-published`, filter
  `DiagnosticReport?status=...`) is active once its endpoint has taken a handshake. Each published version (a draft, a
  signature, an amendment, a cancellation, a withdrawal) is then posted as an id-only Bundle with a rising event number,
  in order, again and again (for about two days) until the answer is 2xx. `X-Inlay-Signature` is `sha256=` and the
  HMAC-SHA256 of `X-Inlay-Timestamp`, a point and the body. Endpoints are of the origins in
  `INLAY_SUBSCRIPTION_ORIGINS`; redirects are not followed. Only the owner sees a subscription; a deleted one is 410.
- **Audit.** What is shown is recorded before it is sent, each report version by itself; and so is every refusal
  and failure with its status (without a known sender it is counted only). Of a search the trail keeps the names of the
  parameters, not their values. An AuditEvent has both ends of the wire, the user, the record, its patient and the
  request's id, as IHE BALP lays them out.

## What is checked of it

`make test-peers` puts every type of resource, in every status, before three independent checks:

- HL7's structure definitions of R4, in `@medplum/core`: elements, cardinality, types, formats, and the constraints of
  resources; not bindings, not the constraints of data types.
- HL7's JSON schema of R4: elements, types, formats, and the values of codes; not that what is required is there.
- HL7's code systems as R4 has them: that each code exists and has the display that is told; not codes of LOINC, SNOMED
  CT, DICOM and IHE, nor those that are younger than R4.

Narrative, attachments (size, hash) and empty values are checked by Inlay's own tests, with the models of
`fhir.resources`. Profiles (US Core, IHE) are held by tests of single elements; HL7's own validator and its terminology
server have not seen these resources. fhirpy, fhirclient and fhir-kit-client are used against the running server.

## What a resource says

- **AI.** While nobody signed, a report with words of the model has the label `AIAST`, and the notice in its narrative
  and presented form. Elements (`text`, `conclusion`, `presentedForm`) with words that no clinician has locked or edited
  carry a DS4P inline label as well, announced by `PROCESSINLINELABEL`, and the Provenance targets them by path: both
  shrink with each lock and end with the signature. Words of the demonstration model keep their notice for ever.
- **DiagnosticReport.** `text.div` has every section, escaped; `presentedForm` is the whole text in UTF-8, exact to the
  byte, with size and SHA-1; `conclusion` is the impression. A character that XML or a FHIR string cannot carry is
  U+FFFD in those and kept in `presentedForm`. The same text stands there as HTML and as PDF, with patient, accession,
  status and signer; the PDF is left out where its font (`INLAY_PDF_FONT`) lacks a character of the report.
  `effectiveDateTime` is StudyDate and StudyTime of the image that was drafted from (in `INLAY_TIME_ZONE` where the
  header states no offset), and until then the time that the order plans.
  `issued`, `performer` and `resultsInterpreter` come with the signature; the model is never one of them.
- **Provenance.** `<report id>.<version>` targets that version. Agents: who made it, the verifier of a signed version
  (with a Signature, without cryptographic data), and each model whose words stand in it, in the role
  `Artificial-Intelligence`. Entities: the version before, images, prompt and model by SHA-256, and the run record.
- **ServiceRequest.** Cancelled, discontinued and replaced orders are `revoked`.
- **ImagingStudy.** `available` once a worker had the images or the order was completed.
- **Identifiers.** An assigner that is a URI or an OID is used as it is; a name gets the prefix `urn:x-inlay:assigner:`.
  Types are those of table 0203: MR, PLAC, FILL, ACSN.
"""


def page() -> str:
    """The page as Markdown."""
    return _HEAD + "\n".join([*_interactions(), "", *_parameters(), "", *_statuses()]) + "\n" + _TAIL


def _interactions() -> list[str]:
    lines = ["## Interactions", "", "| resource | interactions | what it is |", "|---|---|---|"]
    for name, words in DOCUMENTATION.items():
        codes = ", ".join(dict.fromkeys(route.code for route in ROUTES if route.resource == name))
        lines.append(f"| {name} | {codes} | {words} |")
    lines.append("| (the endpoint) | batch | Several reads in one request. |")
    paths = [f"- `{route.method} /fhir/{route.path}`".replace("/`", "`") for route in ROUTES]
    return [*lines, "", *paths]


def _parameters() -> list[str]:
    lines = ["## Search of DiagnosticReport", "", "| parameter | also as | type | finds by |", "|---|---|---|---|"]
    for parameter in PARAMETERS:
        others = ", ".join(f"`{name}`" for name in parameter.others)
        lines.append(f"| `{parameter.name}` | {others} | {parameter.type} | {_cell(parameter.documentation)} |")
    values = {"_include": list(INCLUDES), "_revinclude": list(REVERSE_INCLUDES), "_sort": list(SORTS)}
    shown = [f"- `{name}`: " + ", ".join(f"`{value}`" for value in known) for name, known in values.items()]
    return [*lines, "", "Several values after a comma are alternatives (dates excepted).", "", *shown]


def _cell(text: str) -> str:
    """Text of a table: a bar would end the cell."""
    return text.replace("|", "\\|")


def _statuses() -> list[str]:
    site = FhirSite()
    rows = [f"| {status} | {fhir_status(site, status)} |" for status in Status]
    setting = "Where `INLAY_FHIR_DRAFT_STATUS` is `preliminary`, that stands in place of `partial`."
    return ["## Status", "", "| report | DiagnosticReport.status |", "|---|---|", *rows, "", setting]
