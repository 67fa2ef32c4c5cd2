"""The Helm chart as tests see it: its files, and what the real helm makes of them."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[3]
CHART: Final = ROOT / "deploy" / "helm" / "inlay"
CI_VALUES: Final = sorted((CHART / "ci").glob("*.yaml"))
TOOLS: Final = ROOT / "tests" / "support" / "pip-deploy" / ".venv" / "bin"
NEWEST: Final = "1.37"
VERSIONS: Final = tuple(f"1.{minor}" for minor in range(28, 38))
# What the cluster is told to offer, so that helm renders everything.
APIS: Final = ("keda.sh/v1alpha1/ScaledObject", "monitoring.coreos.com/v1/ServiceMonitor")
# Above a slow helm, below the patience of somebody who waits.
_SECONDS: Final = 900


def tool(name: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of the chart's tools from its own environment."""
    program = TOOLS / name
    assert program.exists(), f"{program} is missing: tests/support/install-peers installs it"
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, input=stdin, check=False, timeout=_SECONDS, cwd=ROOT
    )


def rendered(values: Path | None = None, *more: str, kube_version: str = NEWEST) -> str:
    """The manifests that helm makes; AssertionError with what helm says where it refuses."""
    chosen = [] if values is None else ["--values", str(values)]
    apis = [word for api in APIS for word in ("--api-versions", api)]
    done = tool("helm", "template", "inlay", str(CHART), "--kube-version", kube_version, *apis, *chosen, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def resources(values: Path) -> tuple[dict[str, Any], ...]:
    """The resources that helm makes of a file of values; parsed once, so change none."""
    return tuple(document for document in yaml.safe_load_all(rendered(values)) if document)


def is_custom(resource: dict[str, Any]) -> bool:
    """Whether Kubernetes itself does not know this kind."""
    group = resource["apiVersion"].rpartition("/")[0]
    return group in {"keda.sh", "monitoring.coreos.com", "gateway.networking.k8s.io"}


def pods(of: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and specification of every pod that these resources make."""
    for resource in of:
        if resource["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield resource["metadata"]["name"], resource["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All of a pod, those that run first as well."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def of_kind(of: tuple[dict[str, Any], ...], kind: str, name: str = "") -> dict[str, Any]:
    """The one resource of a kind, where there are several that whose name ends so."""
    (found,) = [r for r in of if r["kind"] == kind and r["metadata"]["name"].endswith(name)]
    return found


def objections(custom: list[dict[str, Any]]) -> list[str]:
    """What the schemas of custom resources object to."""
    script = ROOT / "tests" / "support" / "npm-deploy" / "validate.mjs"
    done = subprocess.run(
        [shutil.which("node") or "node", str(script)],
        input=json.dumps(custom),
        capture_output=True,
        text=True,
        check=True,
        timeout=_SECONDS,
    )
    found: list[str] = json.loads(done.stdout)
    return found
