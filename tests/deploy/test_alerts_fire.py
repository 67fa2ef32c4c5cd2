"""The chart's alerts and panels before Prometheus' own tool: all of PromQL parses, and each alert fires and ends.

A course is what an alert watches, a sample each thirty seconds in promtool's notation: `0+5x3` are 0 5 10 15, `2x3` are
four times 2, `_` is no sample, `stale` the end of a target.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from inlay_testkit.chart import CHART, of_kind, resources

pytestmark = pytest.mark.peers

EXPRESSIONS = [
    target["expr"]
    for panel in json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    for target in panel["targets"]
]


@dataclass(frozen=True)
class Course:
    """What happens, the labels that the alert comes with, and when it is still quiet, fires, and is over.

    Series are of one namespace, which is added; `over` is after the cause is gone and the expression's window with it.
    """

    series: dict[str, str]
    quiet: str
    fires: str
    over: str
    labels: dict[str, str] = field(default_factory=dict)


COURSES = {
    # Away from minute 5 to minute 20.
    "InlayTargetDown": Course(
        {'up{component="worker",pod="w-1"}': "1x9 0x29 1x20", 'up{component="worker",pod="w-2"}': "1x80"},
        *("9m", "10m", "20m30s"),
        {"namespace": "default", "component": "worker", "pod": "w-1"},
    ),
    # Five messages from minute 10 on.
    "InlayOrdersNotStored": Course(
        {'inlay_hl7_messages_total{ack="AR",outcome="unavailable"}': "0x19 1+1x4 5x60"},
        *("10m30s", "12m", "18m"),
    ),
    # A third of what comes from minute 20 to minute 50.
    "InlayOrdersRefused": Course(
        {
            'inlay_hl7_messages_total{ack="AA",outcome="accepted"}': "0+10x200",
            'inlay_hl7_messages_total{ack="AE",outcome="content-error"}': "0x39 0+5x60 300x100",
        },
        *("35m", "45m", "70m"),
    ),
    # One in ten takes longer than a second, from minute 10 to minute 30.
    "InlayIntakeSlow": Course(
        {
            'inlay_hl7_answer_seconds_bucket{le="1.0"}': "0+100x20 2090+90x40 5790+100x60",
            'inlay_hl7_answer_seconds_bucket{le="2.5"}': "0+100x122",
            'inlay_hl7_answer_seconds_bucket{le="+Inf"}': "0+100x122",
        },
        *("20m", "25m", "45m"),
    ),
    # Queued at minute 5, taken at minute 25, told by two replicas; what is not STAT waits much longer.
    "InlayStatJobsWait": Course(
        {
            'inlay_jobs_oldest_seconds{pod="api-1",priority="stat"}': "0x9 0+30x39 0x20",
            'inlay_jobs_oldest_seconds{pod="api-2",priority="stat"}': "0x9 0+30x39 0x20",
            'inlay_jobs_oldest_seconds{pod="api-1",priority="routine"}': "3000x80",
        },
        *("11m", "12m", "25m30s"),
    ),
    "InlayJobsWait": Course(
        {'inlay_jobs_oldest_seconds{pod="api-1",priority="routine"}': "3000+30x80 0x30"},
        *("20m", "21m", "41m"),
    ),
    # The last worker goes at minute 5, and one comes back.
    "InlayNoWorker": Course(
        {
            'inlay_jobs{state="queued",priority="routine"}': "3x99",
            'inlay_prefix_cache_bytes{pod="w-1"}': "100x9 stale",
            'inlay_prefix_cache_bytes{pod="w-2"}': "_x50 100x49",
        },
        *("14m30s", "15m30s", "27m"),
    ),
    "InlayWorkerSlow": Course(
        {
            'inlay_model_passes_total{pod="w-1",way="failed"}': "_x10 1x39 stale",
            'inlay_model_passes_total{pod="w-2",way="fast"}': "0+9x80",
        },
        *("5m", "7m", "27m"),
        {"pod": "w-1"},
    ),
    # Ten in five minutes.
    "InlayJobsFail": Course(
        {'inlay_jobs_ended_total{kind="draft",pod="w-1",state="failed"}': "0x9 1+1x9 10x99"},
        *("7m", "15m", "45m"),
    ),
    "InlayResultsWait": Course(
        {
            'inlay_outbox_oldest_seconds{pod="api-1",to="oru"}': "_x10 0+30x60 stale",
            'inlay_outbox_oldest_seconds{pod="api-1",to="fhir"}': "30x80",
        },
        *("25m", "27m", "37m"),
        {"to": "oru"},
    ),
    "InlayDeadLetters": Course(
        {
            'inlay_outbox{pod="api-1",state="dead",to="oru"}': "0x9 1x39 0x20",
            'inlay_outbox{pod="api-1",state="pending",to="dicom"}': "7x80",
        },
        *("5m30s", "6m30s", "25m30s"),
        {"to": "oru"},
    ),
    "InlayDutyHangs": Course(
        {'inlay_duty_round_seconds{duty="results",pod="relay-1"}': "0x9 0+30x60 0x20"},
        *("20m", "21m", "36m"),
        {"duty": "results"},
    ),
    # One in eleven, from minute 20 to minute 50.
    "InlayHttpErrors": Course(
        {
            'inlay_http_requests_total{method="GET",route="/",status="200"}': "0+100x200",
            'inlay_http_requests_total{method="GET",route="/",status="503"}': "0x39 0+10x60 600x80",
        },
        *("33m", "45m", "65m"),
    ),
    "InlayStreamsFull": Course(
        {'inlay_http_streams{pod="api-1"}': "8x39 7x40", 'inlay_http_streams{pod="api-2"}': "2x80"},
        *("14m", "15m30s", "20m30s"),
    ),
}


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    """What Prometheus' own tool says."""
    program = shutil.which("promtool") or "promtool"
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=120)


def file_of(path: Path, content: dict[str, Any]) -> str:
    """A file that promtool reads."""
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def rules() -> dict[str, Any]:
    """The rules as helm makes them of the chart, in the shape of a file of Prometheus."""
    spec: dict[str, Any] = of_kind(resources(CHART / "ci" / "hospital.yaml"), "PrometheusRule")["spec"]
    return spec


def in_namespace(series: dict[str, str], namespace: str) -> list[dict[str, str]]:
    """Series with the label that Prometheus adds."""
    return [
        {"series": name.replace("{", f'{{namespace="{namespace}",'), "values": values}
        for name, values in series.items()
    ]


def test_every_alert_has_a_course(rules: dict[str, Any]) -> None:
    """A new alert is not taken in before somebody has shown that it fires."""
    assert {rule["alert"] for group in rules["groups"] for rule in group["rules"]} == set(COURSES)


def test_prometheus_takes_all_rules(rules: dict[str, Any], tmp_path: Path) -> None:
    """Expressions, durations, labels and annotations; no rule stands there twice."""
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", file_of(tmp_path / "rules.yaml", rules))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(COURSES)} rules found" in done.stdout


def panels(expressions: list[str]) -> dict[str, Any]:
    """Expressions of panels as rules that record them, since promtool reads rules."""
    recorded = [
        {"record": f"panel:{number}", "expr": expression.replace("$namespace", "default")}
        for number, expression in enumerate(expressions)
    ]
    return {"groups": [{"name": "panels", "rules": recorded}]}


def test_prometheus_takes_all_panels(tmp_path: Path) -> None:
    """Each expression of the dashboard parses, its functions are known and get what they take."""
    done = promtool("check", "rules", file_of(tmp_path / "panels.yaml", panels(EXPRESSIONS)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(EXPRESSIONS)} rules found" in done.stdout


@pytest.mark.parametrize("wrong", ["rate(inlay_orders_total)", "sum by (ack (inlay_orders_total)", "inlay_orders[5]"])
def test_wrong_expressions_would_be_refused(wrong: str, tmp_path: Path) -> None:
    """A missing window, a missing bracket, a duration without unit: the two checks above are not empty."""
    assert promtool("check", "rules", file_of(tmp_path / "panels.yaml", panels([wrong]))).returncode != 0


@pytest.mark.parametrize("alert", COURSES)
def test_an_alert_fires_and_ends(alert: str, rules: dict[str, Any], tmp_path: Path) -> None:
    """Not before its time, then once with its labels and words, and no more when the cause is gone.

    The same course in another namespace is another release's affair: the alert stays quiet.
    """
    course = COURSES[alert]
    (rule,) = [rule for group in rules["groups"] for rule in group["rules"] if rule["alert"] == alert]
    fired = {"exp_labels": course.labels | rule["labels"], "exp_annotations": rule["annotations"]}

    def told(namespace: str, at: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        return {
            "interval": "30s",
            "input_series": in_namespace(course.series, namespace),
            "alert_rule_test": [{"eval_time": t, "alertname": alert, "exp_alerts": alerts} for t, alerts in at.items()],
        }

    file_of(tmp_path / "rules.yaml", rules)
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [
            told("default", {course.quiet: [], course.fires: [fired], course.over: []}),
            told("elsewhere", {course.fires: []}),
        ],
    }
    done = promtool("test", "rules", file_of(tmp_path / "tests.yaml", tests))
    assert done.returncode == 0, done.stdout + done.stderr
