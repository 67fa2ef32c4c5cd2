from pathlib import Path

from inlay_fhir.lookup import LOOKUPS
from inlay_fhir.mapping.searching import PARAMETERS
from inlay_fhir.reference import page
from inlay_fhir.table import ROUTES
from inlay_testkit.core import Ward
from inlay_testkit.fhir import BASE, FhirClient
from inlay_testkit.memory import Memory

DOCS = Path(__file__).parents[3] / "docs"


def test_the_statement_says_what_the_router_does() -> None:
    """Each interaction of the statement is a route and each route is stated; so is each search parameter."""
    statement = FhirClient(Ward(Memory()())).ask("/metadata").json
    (rest,) = statement["rest"]
    stated = {(r["type"], i["code"]) for r in rest["resource"] for i in r["interaction"]}
    stated |= {("", interaction["code"]) for interaction in rest["interaction"]}
    operations = {operation["name"] for r in rest["resource"] for operation in r.get("operation", [])}
    assert stated == {(route.resource, route.code) for route in ROUTES if not route.operation}
    assert operations == {route.operation for route in ROUTES if route.operation}
    names = {r["type"]: [p["name"] for p in r["searchParam"]] for r in rest["resource"] if "searchParam" in r}
    lookups = {kind: [lookup.name for lookup in found] for kind, found in LOOKUPS.items()}
    assert names == lookups | {"DiagnosticReport": [parameter.name for parameter in PARAMETERS]}
    assert statement["implementation"]["url"] == BASE
    assert statement["fhirVersion"] == "4.0.1"


def test_the_statement_asks_nothing_of_the_store() -> None:
    """The statement needs no rights and leaves no trace: it says nothing of anybody."""
    client = FhirClient(Ward(Memory()()))
    client.ask("/metadata")
    assert client.store.accesses == []


def test_each_search_parameter_is_obeyed() -> None:
    """A parameter that the statement names, under any of its names, is repeated in the self link: it was obeyed."""
    client = FhirClient(Ward(Memory()()))
    for parameter in PARAMETERS:
        value = "2026" if parameter.type == "date" else "x"
        for name in (parameter.name, *parameter.others):
            reply = client.ask("/DiagnosticReport", (name, value))
            assert reply.link("self") == f"{BASE}/DiagnosticReport?{name}={value}"


def test_the_reference_page_is_current() -> None:
    """docs/reference/fhir-capability.md is what `make docs` would write now."""
    assert (DOCS / "reference" / "fhir-capability.md").read_text(encoding="utf-8") == page()


def test_each_operation_of_the_statement_has_its_definition() -> None:
    """The definition that the statement names can be read, says that state is changed, and leaves no trace."""
    client = FhirClient(Ward(Memory()()))
    (rest,) = client.ask("/metadata").json["rest"]
    stated = [operation for r in rest["resource"] for operation in r.get("operation", [])]
    assert {operation["name"] for operation in stated} == {"infill", "sign", "status"}
    for operation in (each for each in stated if each["definition"].startswith(BASE)):
        definition = client.ask(operation["definition"].removeprefix(BASE)).json
        assert definition["url"] == operation["definition"]
        assert (definition["code"], definition["affectsState"]) == (operation["name"], True)
    assert client.ask("/OperationDefinition/unknown").status == 404
