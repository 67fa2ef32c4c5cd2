"""Writes the pages and the part of the chart's schema that come from the code (`make docs`); tests compare them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from inlay_api import openapi
from inlay_core.domain import lifecycle
from inlay_core.settings import reference, schema
from inlay_fhir.reference import page as fhir_page
from inlay_hl7.mapping.reference import page as hl7_page

REFERENCE = Path(__file__).parent / "reference"


def lifecycle_page() -> str:
    """The table of transitions, as a diagram."""
    return (
        "# Life of a report\n\n"
        "Generated from `services/core/inlay_core/domain/lifecycle.py`; do not edit.\n"
        "An arrow is labelled with the events that take it. What has no arrow is refused.\n\n"
        f"```mermaid\n{lifecycle.diagram()}```\n"
    )


def api_page() -> str:
    """The table of calls."""
    return openapi.page(openapi.all_routes())


CHART = Path(__file__).parents[1] / "deploy" / "helm" / "inlay"
# What the chart itself sets, from values of their own or because a pod is made like that.
SET_BY_THE_CHART = frozenset(
    {
        *("home", "images_folder", "auth", "metrics_port", "traces", "traces_headers"),
        *("database_url", "broker_url", "redis_url", "subscription_secret", "smart_key_file", "fhir_client_key"),
        *("audit_key_file", "oidc_client_secret"),
        *("http_host", "http_port", "mllp_host", "mllp_port", "dicom_host", "dicom_port"),
        *("mllp_tls_certificate", "mllp_tls_key", "mllp_tls_clients"),
        *("hl7_mapping", "hl7_targets", "dicom_config", "adapters", "smart_clients", "jwks_file"),
        *("model", "model_revision", "model_digest", "device", "warm_up"),
    }
)


def chart_schema() -> str:
    """The schema of the chart's values, with every setting that is the site's to choose."""
    stored = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    stored["properties"]["settings"] = {
        "type": "object",
        "description": "Settings of Inlay (docs/reference/settings.md): names without INLAY_, in small letters.",
        "additionalProperties": False,
        "properties": {name: rule for name, rule in schema().items() if name not in SET_BY_THE_CHART},
    }
    return json.dumps(stored, indent=2) + "\n"


def values_page() -> str:
    """The table of the chart's values: what each does from the schema, what it is by default from values.yaml."""
    rules = json.loads(chart_schema())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    rows = "\n".join(_rows(rules, defaults, rules["$defs"], ""))
    return (
        "# Values of the Helm chart\n\n"
        "Generated from `deploy/helm/inlay/values.schema.json` and `values.yaml`; do not edit. `settings` takes\n"
        "every [setting](settings.md) that the chart does not set itself, in small letters without `INLAY_`.\n\n"
        f"| value | kind | default | what it does |\n|---|---|---|---|\n{rows}\n"
    )


def _rows(rules: dict[str, Any], defaults: Any, kinds: dict[str, Any], place: str) -> Iterator[str]:
    for name, rule in rules["properties"].items():
        path, default = f"{place}{name}", defaults.get(name) if isinstance(defaults, dict) else None
        if rule.get("properties") and path != "settings":
            yield f"| **`{path}`** | | | {rule['description']} |"
            yield from _rows(rule, default, kinds, f"{path}.")
            continue
        kind = kinds[rule["$ref"].rpartition("/")[2]] if "$ref" in rule else rule
        words = " or ".join(kind["type"]) if isinstance(kind["type"], list) else kind["type"]
        choices = ": " + ", ".join(str(each) or "empty" for each in kind["enum"]) if "enum" in kind else ""
        shown = "–" if default in ("", None, {}, []) else f"`{json.dumps(default)}`"
        yield f"| `{path}` | {words}{choices} | {shown} | {rule['description']} |"


PAGES = {
    "settings.md": reference,
    "lifecycle.md": lifecycle_page,
    "fhir-capability.md": fhir_page,
    "api.md": api_page,
    "hl7-conformance.md": hl7_page,
    "values.md": values_page,
}


def main() -> None:
    """Write every page, and the schema."""
    (CHART / "values.schema.json").write_text(chart_schema(), encoding="utf-8")
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
