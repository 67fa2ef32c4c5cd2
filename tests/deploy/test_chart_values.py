"""The chart's own files agree with the code and with each other; helm itself is asked in test_chart_rendered.py."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from prometheus_client import Metric

from inlay_api.metrics import Metrics
from inlay_core.application.ports import Delivery, Destination
from inlay_core.domain.job import JobState
from inlay_core.settings import Settings, schema
from inlay_gateway.metrics import Deliveries, ListenerMetrics, Rounds
from inlay_gateway.metrics import registry_of as relay_registry
from inlay_testkit.chart import CHART, CI_VALUES, ROOT
from inlay_testkit.core import StillClock
from inlay_testkit.engine import FakeModel
from inlay_testkit.memory import Memory
from inlay_worker.metrics import WAYS
from inlay_worker.metrics import registry_of as worker_registry

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))["alerts"]
DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))


def complaints(values: dict[str, Any]) -> list[str]:
    """What the schema says of values on top of the defaults of nothing."""
    return [f"{error.json_path}: {error.message}" for error in Draft7Validator(SCHEMA).iter_errors(values)]


def leaves(rules: dict[str, Any], place: str = "") -> set[str]:
    """Paths of the values that a schema describes."""
    found = set()
    for name, rule in rules.items():
        path = f"{place}.{name}".lstrip(".")
        found |= leaves(rule["properties"], path) if rule.get("properties") and path != "settings" else {path}
    return found


def given(values: Any, described: set[str], place: str = "") -> set[str]:
    """Paths of the values that stand in values.yaml, as deep as the schema describes them."""
    if place in described or not isinstance(values, dict):
        return {place}
    return {path for name, value in values.items() for path in given(value, described, f"{place}.{name}".lstrip("."))}


def test_schema_holds_every_setting_that_the_site_chooses() -> None:
    """The generated part of the schema is what the settings say now; `make docs` writes it."""
    assert (CHART / "values.schema.json").read_text(encoding="utf-8") == GENERATE["chart_schema"]()
    assert set(SCHEMA["properties"]["settings"]["properties"]) == set(schema()) - GENERATE["SET_BY_THE_CHART"]
    assert set(schema()) >= GENERATE["SET_BY_THE_CHART"]


def test_every_value_has_its_default_and_its_description() -> None:
    """values.yaml and the schema name the same values, and each has words."""
    described = leaves(SCHEMA["properties"])
    assert given(DEFAULTS, described) == described - {"global"}
    assert complaints(DEFAULTS) == []

    def wordless(rules: dict[str, Any], place: str = "") -> list[str]:
        return [
            path
            for name, rule in rules.items()
            for path in [
                *([] if rule.get("description") else [f"{place}{name}"]),
                *wordless(rule.get("properties", {}), f"{place}{name}."),
            ]
        ]

    assert wordless(SCHEMA["properties"]) == []


@pytest.mark.parametrize("path", CI_VALUES, ids=lambda path: path.stem)
def test_ci_values_satisfy_the_schema(path: Path) -> None:
    """Each combination that is tried is one that the schema allows."""
    assert complaints(yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("values", "place", "words"),
    [
        ({"setings": {}}, "$", "'setings' was unexpected"),
        ({"settings": {"kill_swich": True}}, "$.settings", "'kill_swich' was unexpected"),
        ({"settings": {"kill_switch": "perhaps"}}, "$.settings.kill_switch", "'perhaps' is not of type 'boolean'"),
        ({"settings": {"precision": "int8"}}, "$.settings.precision", "'int8' is not one of ['bf16', 'fp8', '4bit']"),
        ({"settings": {"accelerate": "fast"}}, "$.settings.accelerate", "'fast' is not one of ['auto', True, False]"),
        ({"settings": {"database_url": "postgresql://u:p@h/d"}}, "$.settings", "'database_url' was unexpected"),
        ({"settings": {"oidc_client_secret": "s"}}, "$.settings", "'oidc_client_secret' was unexpected"),
        ({"api": {"replicas": 0}}, "$.api.replicas", "0 is less than the minimum of 1"),
        ({"api": {"replicas": "2"}}, "$.api.replicas", "'2' is not of type 'integer'"),
        ({"api": {"image": {"digest": "sha256:abc"}}}, "$.api.image.digest", "does not match"),
        ({"listener": {"service": {"mllpPort": 70000}}}, "$.listener.service.mllpPort", "greater than the maximum"),
        ({"images": {"size": "lots"}}, "$.images.size", "does not match"),
        ({"worker": {"model": {"digest": "sha256:abc"}}}, "$.worker.model.digest", "does not match"),
        ({"settings": {"model_digest": "ab" * 32}}, "$.settings", "'model_digest' was unexpected"),
        ({"worker": {"model": {"fetch": {"revision": "main"}}}}, "$.worker.model.fetch.revision", "does not match"),
    ],
)
def test_wrong_values_are_refused_with_their_place(values: dict[str, Any], place: str, words: str) -> None:
    """A misspelt name, a wrong kind and a number out of range are refused, and the message says where."""
    (complaint,) = complaints(values)
    assert complaint.startswith(f"{place}: ")
    assert words in complaint


def test_no_combination_turns_graphs_and_kernels_off_or_needs_to_turn_them_on() -> None:
    """A worker on a GPU has them by default; auto, true and false are values all the same."""
    for said in ("auto", True, False):
        assert complaints({"settings": {"accelerate": said}}) == []
    for path in CI_VALUES:
        assert "accelerate" not in yaml.safe_load(path.read_text(encoding="utf-8")).get("settings", {})


def families() -> list[Metric]:
    """What Inlay's processes expose."""
    metrics = Metrics(Memory(), StillClock())
    metrics.answered("GET", "/livez", 200, 0.1)
    listener = ListenerMetrics()
    listener.connections(lambda: 0)
    relay = relay_registry(Rounds())
    Deliveries(relay)
    registries = [metrics.registry, listener.registry, relay, worker_registry(FakeModel())]
    return [family for registry in registries for family in registry.collect()]


def metric_names() -> set[str]:
    """The samples that Inlay's processes expose, as Prometheus stores them."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    return {family.name + suffix for family in families() for suffix in suffixes[family.type]}


def test_the_page_of_metrics_has_those_that_exist() -> None:
    """docs/reference/metrics.md has a row for every metric, with its kind, and none that nobody exposes."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(inlay_\w+)` \| (\w+) \|", page, flags=re.MULTILINE)
    ends = {"counter": "_total"}
    assert sorted(rows) == sorted({(family.name + ends.get(family.type, ""), family.type) for family in families()})


def page_labels() -> dict[str, set[str]]:
    """Names of the labels that the page of metrics gives each metric."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(inlay_\w+)` \| \w+ \|([^|]*)\|", page, flags=re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_the_page_of_metrics_has_their_labels() -> None:
    """Those of every sample that is exposed at the start, neither more nor fewer."""
    told = page_labels()
    samples = [sample for family in families() for sample in family.samples if not sample.name.endswith("_created")]
    seen = {re.sub("_(bucket|count|sum)$", "", s.name): set(s.labels) - {"le"} for s in samples}
    assert len(seen) > 10
    assert {name: told[name] for name in seen} == seen


def named_in(expression: str) -> set[str]:
    """Metrics of Inlay that a PromQL expression names."""
    return set(re.findall(r"\binlay_[a-z0-9_]+\b", expression))


def test_alerts_and_panels_look_at_metrics_that_exist() -> None:
    """Each alert and each panel names at least one metric of ours (or `up`), and none that nobody exposes."""
    known = metric_names()
    for expression in every_expression():
        named = named_in(expression)
        assert named or expression.startswith("up{"), expression
        assert named <= known, named - known


def label_values() -> dict[tuple[str, str], set[str]]:
    """(sample, label) -> the values that it can have, of labels whose values are known beforehand."""
    found: dict[tuple[str, str], set[str]] = {
        ("inlay_jobs_ended_total", "state"): set(JobState),
        ("inlay_outbox", "state"): set(Delivery),
        ("inlay_deliveries_total", "to"): set(Destination),
        ("inlay_model_passes_total", "way"): set(WAYS),
        ("up", "component"): {"api", "listener", "relay", "worker"},
    }
    for sample in (sample for family in families() for sample in family.samples):
        for label, value in sample.labels.items():
            found.setdefault((sample.name, label), set()).add(value)
    return found


# Statuses are those of HTTP; a stage is named where a job goes through it.
NOT_LISTED = {"inlay_http_requests_total": {"status"}, "inlay_job_seconds_bucket": {"stage"}}


def test_alerts_and_panels_select_label_values_that_exist() -> None:
    """A state, priority or outcome that no process ever tells would make an alert that never comes."""
    known = label_values()
    compared = 0
    for expression in every_expression():
        for name, selector in re.findall(r"\b(inlay_[a-z0-9_]+|up)\{([^}]*)\}", expression):
            for label, values in re.findall(r'(\w+)(?:=~|!=|=)"([^"$]*)"', selector):
                if label not in NOT_LISTED.get(name, set()):
                    assert set(values.split("|")) <= known[name, label], f"{name}: {label}"
                    compared += 1
    assert compared >= 10


def every_expression() -> list[str]:
    """Those of alerts and panels."""
    return [*(alert["expr"] for alert in ALERTS), *panel_expressions()]


def test_rates_are_taken_of_what_only_rises() -> None:
    """A rate of a gauge is a number without meaning; the total of a counter looks at nothing new."""
    rising = {f.name + end for f in families() for end in ("_total", "_bucket") if f.type in {"counter", "histogram"}}
    rated, plain = set(), set()
    for expression in every_expression():
        rated |= set(re.findall(r"(?:rate|increase)\((inlay_\w+)", expression))
        plain |= set(re.findall(r"(?<!rate\()(?<!increase\()\b(inlay_\w+)", expression))
    assert rated
    assert rated <= rising
    # The one exception: a pass that failed makes a worker slow until it is restarted, and with that the figure is gone.
    assert plain & rising == {"inlay_model_passes_total"}


def test_a_rise_is_seen_from_the_first_one_on() -> None:
    """What alerts take the rise of is exposed before it happens: from nothing to one is no rise for Prometheus."""
    there = {
        (sample.name, *pair) for family in families() for sample in family.samples for pair in sample.labels.items()
    }
    looked_at = [
        (name, label, value)
        for alert in ALERTS
        for name, label, value in re.findall(r'increase\((\w+)\{HERE, (\w+)="([^"]+)"\}', alert["expr"])
    ]
    assert {name for name, _, _ in looked_at} == {"inlay_hl7_messages_total", "inlay_jobs_ended_total"}
    assert [each for each in looked_at if each not in there] == []


def test_windows_hold_several_samples() -> None:
    """Four intervals of the chart's monitor, so that a scrape that is missed leaves a rate to compute."""
    interval = re.fullmatch(r"(\d+)s", DEFAULTS["monitoring"]["serviceMonitor"]["interval"])
    assert interval is not None
    windows = [int(minutes) for expression in every_expression() for minutes in re.findall(r"\[(\d+)m\]", expression)]
    assert len(windows) > 20
    assert min(windows) * 60 >= 4 * int(interval[1])
    assert len(windows) == sum(expression.count("[") for expression in every_expression())


def test_results_are_grouped_by_labels_that_exist() -> None:
    """One that no metric of the expression has would put everything together; a pod is a label of every target."""
    labels = page_labels()
    for expression in every_expression():
        known = {"le"} if "_bucket" in expression else set()
        for name in named_in(expression):
            known |= {*labels[name.removesuffix("_bucket")], "pod"}
        for group in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {label.strip() for label in group.split(",")} <= known, expression


def test_alerts_say_how_long_how_bad_and_what() -> None:
    """What one scrape says wakes nobody; how bad it is decides where Alertmanager sends it."""
    for alert in ALERTS:
        assert set(alert) == {"alert", "expr", "for", "severity", "summary"}, alert["alert"]
        assert re.fullmatch(r"[1-9]\d*m", alert["for"]), alert["alert"]
        assert alert["severity"] in {"critical", "warning", "info"}, alert["alert"]
        assert alert["summary"].endswith("."), alert["alert"]


def test_every_metric_is_on_the_dashboard() -> None:
    """The page of metrics says so; a histogram is there by one of its samples."""
    shown = {name for expression in panel_expressions() for name in named_in(expression)}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket",), "gauge": ("",)}
    missing = {f.name for f in families() if not {f.name + end for end in suffixes[f.type]} & shown}
    assert missing == set()


def panel_expressions() -> list[str]:
    """What the dashboard asks Prometheus for."""
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_every_alert_has_its_runbook() -> None:
    """The page of alerts has a heading for each, and none for an alert that is gone."""
    page = (ROOT / "docs" / "howto" / "alerts.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (Inlay\w+)$", page, flags=re.MULTILINE) == [alert["alert"] for alert in ALERTS]


def test_alerts_are_of_one_namespace_each() -> None:
    """An expression restricts every metric to the release's namespace: two releases do not answer for each other."""
    for alert in ALERTS:
        selectors = re.findall(r"\b(?:inlay_[a-z0-9_]+|up)(\{[^}]*\})?", alert["expr"])
        assert selectors, alert["alert"]
        assert all(selector.startswith("{HERE") for selector in selectors), alert["alert"]


def test_settings_of_the_chart_are_known_to_the_code() -> None:
    """Every INLAY_ name in a template is a setting, or the file of a secret one."""
    import dataclasses

    known = {f"INLAY_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    known |= {f"INLAY_{f.name.upper()}_FILE" for f in dataclasses.fields(Settings) if f.metadata["secret"]}
    templates = "".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").rglob("*.*"))
    named = set(re.findall(r"\bINLAY_[A-Z0-9_]+[A-Z0-9]\b", templates))
    assert named
    assert named <= known, named - known
