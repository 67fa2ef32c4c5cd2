"""docs/howto/deploy.md, followed to the letter as far as that goes without a cluster."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from inlay_cli.commands.check import PROBES
from inlay_core.settings import Settings
from inlay_gateway.dicom import site_of
from inlay_testkit.chart import CHART, ROOT, containers, is_custom, objections, pods, rendered, resources

pytestmark = pytest.mark.peers

PAGE = (ROOT / "docs" / "howto" / "deploy.md").read_text(encoding="utf-8")
(TRIAL,) = re.findall(r"cat > trial.yaml <<'END'\n(.*?)\nEND\n", PAGE, flags=re.DOTALL)
HOSPITAL, KEDA = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def written(folder: Path, *parts: str) -> Path:
    """Values of the page as one file."""
    path = folder / "values.yaml"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def made_secrets() -> dict[str, set[str]]:
    """Secrets that the page has made by kubectl, each with its keys."""
    commands = PAGE.replace("\\\n", " ").splitlines()
    found = {}
    for command in commands:
        if match := re.search(r"create secret (generic|tls) (\S+) (.*)", command):
            keys = re.findall(r"--from-(?:file|literal)=([^=\s]+)", match[3])
            found[match[2]] = {"tls.crt", "tls.key"} if match[1] == "tls" else set(keys)
    return found


def named_secrets(of: tuple[dict[str, Any], ...]) -> dict[str, set[str]]:
    """Secrets that the pods mount and do not come with the release, each with the files that are read from it."""
    come = {resource["metadata"]["name"] for resource in of if resource["kind"] == "Secret"}
    found: dict[str, set[str]] = {}
    for _, pod in pods(of):
        by_volume = {v["name"]: v["secret"]["secretName"] for v in pod.get("volumes", []) if "secret" in v}
        for container in containers(pod):
            values = [str(variable.get("value", "")) for variable in container.get("env", [])]
            for mount in container.get("volumeMounts", []):
                if (secret := by_volume.get(mount["name"])) and secret not in come:
                    within = [v.removeprefix(f"{mount['mountPath']}/") for v in values if mount["mountPath"] + "/" in v]
                    found.setdefault(secret, set()).update(within)
    return found


def test_the_trial_needs_nothing_that_does_not_come_with_it(tmp_path: Path) -> None:
    """It mounts no Secret of the site's, and the services that the page forwards to are there."""
    of = resources(written(tmp_path, TRIAL))
    assert named_secrets(of) == {}
    services = {r["metadata"]["name"]: {p["port"] for p in r["spec"]["ports"]} for r in of if r["kind"] == "Service"}
    forwarded = re.findall(r"port-forward service/(\S+) (?:\d+:)?(\d+)", PAGE)
    assert len(forwarded) == 2
    assert all(int(port) in services[name] for name, port in forwarded)


def test_the_hospital_reads_the_secrets_that_the_page_has_made(tmp_path: Path) -> None:
    """Each Secret and each of its keys is made before it is named; only the certificate of the Ingress is no file."""
    named, made = named_secrets(resources(written(tmp_path, HOSPITAL))), made_secrets()
    assert set(named) | {"inlay-tls"} == set(made)
    assert {secret: keys for secret, keys in named.items() if not keys <= made[secret]} == {}
    assert named["inlay-redis"] == {"broker-url", "progress-url"}, "something was looked at"
    assert set(re.findall(r"/run/secrets/inlay/files/([a-z.-]+)", PAGE)) == {"ca.crt"} <= made["inlay-files"]


def test_settings_and_files_of_the_hospital_are_those_that_inlay_reads(tmp_path: Path) -> None:
    """Inlay takes them as they are."""
    of = resources(written(tmp_path, HOSPITAL))
    maps = {r["metadata"]["name"]: r["data"] for r in of if r["kind"] == "ConfigMap"}
    dicom = tmp_path / "dicom.toml"
    dicom.write_text(maps["inlay-files"]["dicom.toml"], encoding="utf-8")
    settings = Settings.from_env(maps["inlay-settings"] | {"INLAY_DICOM_CONFIG": str(dicom)})
    assert [peer.ae_title for peer in site_of(settings).listener.peers] == ["XRAY1"]


def test_workers_that_are_scaled_satisfy_their_schema(tmp_path: Path) -> None:
    """The values of KEDA beside those of the hospital."""
    both = yaml.safe_load(HOSPITAL)
    both["worker"] |= yaml.safe_load(KEDA)["worker"]
    custom = [resource for resource in resources(written(tmp_path, yaml.safe_dump(both))) if is_custom(resource)]
    assert {resource["kind"] for resource in custom} == {"ScaledObject", "TriggerAuthentication"}
    assert objections(custom) == []


def test_values_and_checks_that_the_page_names_exist() -> None:
    """Values stand in values.yaml (settings in the schema), and `inlay check` knows the parts."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    defaults["settings"] = schema["properties"]["settings"]["properties"]
    tops = "|".join(defaults)
    named = set(re.findall(rf"`((?:{tops})(?:\.[a-zA-Z_]+)+)(?:=\w+)?`", PAGE))
    assert len(named) > 10

    def exists(path: str) -> bool:
        found: Any = defaults
        for name in path.split("."):
            if not isinstance(found, dict) or name not in found:
                return False
            found = found[name]
        return True

    assert [path for path in named if not exists(path)] == []
    checked = re.findall(r"--only (\w+)", PAGE)
    assert checked
    assert set(checked) <= set(PROBES)


def test_the_deployment_that_the_page_goes_into_is_there(tmp_path: Path) -> None:
    """`kubectl exec deploy/...` names one of the release called inlay."""
    deployments = re.findall(r"exec deploy/(\S+)", PAGE)
    assert deployments
    for name in deployments:
        assert f"kind: Deployment\nmetadata:\n  name: {name}\n" in rendered(written(tmp_path, HOSPITAL))
