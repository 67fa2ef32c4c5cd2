"""What the real helm makes of the chart, before the schemas and the rules of others."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from inlay_core.settings import Settings
from inlay_testkit.chart import (
    CHART,
    CI_VALUES,
    NEWEST,
    ROOT,
    VERSIONS,
    containers,
    is_custom,
    objections,
    of_kind,
    pods,
    rendered,
    resources,
    tool,
)

pytestmark = pytest.mark.peers

HOSPITAL, TRIAL, TRIAL_GPU, EXTERNAL = (
    CHART / "ci" / f"{name}.yaml" for name in ("hospital", "trial", "trial-gpu", "external")
)
each_ci_file = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)

# Checks of checkov that we do not follow, each with its reason. Everything else has to pass.
NOT_FOLLOWED = {
    "CKV_K8S_15": "Always pulling makes a node's start depend on the registry; digests say exactly which image runs.",
    "CKV_K8S_43": "Digests are the site's to give (api.image.digest): a chart cannot know them before a build.",
    "CKV_K8S_21": "The namespace is the release's; the default one is nobody's choice but of a rendering without one.",
    "CKV_DOCKER_7": "The base is an argument, which checkov does not resolve; `make images` insists on a digest.",
}


def values_file(folder: Path, values: dict[str, Any]) -> Path:
    """Values of a test, on a disk."""
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


LEAST: dict[str, Any] = {
    "settings": {"jwks_url": "https://idp.example.org/jwks"},
    "database": {"existingSecret": "db"},
    "redis": {"existingSecret": "redis"},
}


@each_ci_file
def test_helm_lint_has_nothing_to_say(values: Path) -> None:
    """`helm lint --strict` passes with every combination of values."""
    done = tool("helm", "lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout + done.stderr


# One interpreter for all of them: reading a version's schemas takes longer than looking at a resource.
VALIDATE = """
import json, sys, kubernetes_validate
resources = json.load(sys.stdin)
for version in sys.argv[1:]:
    for resource in resources:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            print(version, resource["kind"], resource["metadata"]["name"], error.message)
"""


def test_manifests_are_valid_for_every_version_of_kubernetes() -> None:
    """Strictly, from the oldest version that the chart names to the newest that the schemas know."""
    ours = [resource for values in CI_VALUES for resource in resources(values) if not is_custom(resource)]
    different = {json.dumps(resource, sort_keys=True): resource for resource in ours}
    done = tool("python", "-c", VALIDATE, *VERSIONS, stdin=json.dumps([*different.values()]))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_oldest_version_is_the_one_that_the_chart_names() -> None:
    """The chart refuses what it was not checked for."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    done = tool("helm", "template", "inlay", str(CHART), "--values", str(EXTERNAL), "--kube-version", "1.27")
    assert done.returncode != 0
    assert rendered(EXTERNAL, kube_version=VERSIONS[0])


@each_ci_file
def test_custom_resources_satisfy_their_schemas(values: Path) -> None:
    """Those of KEDA, of the Prometheus operator and of the Gateway API."""
    assert objections([resource for resource in resources(values) if is_custom(resource)]) == []


def test_everything_custom_is_rendered_somewhere() -> None:
    """The check of custom resources is not empty, and its schemas object to a wrong one."""
    kinds = {resource["kind"] for resource in resources(HOSPITAL) if is_custom(resource)}
    assert kinds == {"HTTPRoute", "PrometheusRule", "ScaledObject", "ServiceMonitor", "TriggerAuthentication"}
    scaled = of_kind(resources(HOSPITAL), "ScaledObject")
    assert objections([scaled | {"spec": scaled["spec"] | {"maxReplicaCount": "four"}}]) != []


def test_the_hospital_has_everything_that_the_chart_offers() -> None:
    """Each kind of resource, for the component that it is for; a template that stopped rendering is missed here."""
    names: dict[str, set[str]] = {}
    for resource in resources(HOSPITAL):
        names.setdefault(resource["kind"], set()).add(resource["metadata"]["name"].removeprefix("inlay-"))
    pods_of = {"api", "listener", "relay", "worker"}
    assert names == {
        "ConfigMap": {"settings", "files", "dashboard"},
        "Deployment": pods_of,
        "HTTPRoute": {"api"},
        "HorizontalPodAutoscaler": {"api"},
        "Ingress": {"api"},
        "Job": {"migration"},
        "NetworkPolicy": pods_of | {"migration"},
        "PodDisruptionBudget": pods_of,
        "PrometheusRule": {"inlay"},
        "ScaledObject": {"worker"},
        "Service": {"api", "listener", "metrics"},
        "ServiceAccount": pods_of | {"migration"},
        "ServiceMonitor": {"metrics"},
        "TriggerAuthentication": {"worker"},
    }


@each_ci_file
def test_what_refers_to_others_names_them(values: Path) -> None:
    """Who scales names a Deployment, who leads traffic a Service and a port of it, the monitor a Service's labels."""
    of = resources(values)
    services = {r["metadata"]["name"]: r for r in of if r["kind"] == "Service"}
    deployments = {r["metadata"]["name"] for r in of if r["kind"] == "Deployment"}
    for resource in of:
        spec, kind = resource.get("spec", {}), resource["kind"]
        if kind in {"HorizontalPodAutoscaler", "ScaledObject"}:
            assert spec["scaleTargetRef"]["name"] in deployments
        if kind == "Ingress":
            (backend,) = [path["backend"]["service"] for rule in spec["rules"] for path in rule["http"]["paths"]]
            assert backend["port"]["name"] in {p["name"] for p in services[backend["name"]]["spec"]["ports"]}
        if kind == "HTTPRoute":
            (target,) = [target for rule in spec["rules"] for target in rule["backendRefs"]]
            assert target["port"] in {p["port"] for p in services[target["name"]]["spec"]["ports"]}
        if kind == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            assert [name for name, s in services.items() if wanted <= s["metadata"]["labels"].items()] == [
                "inlay-metrics"
            ]


def test_every_switch_is_tried_on_and_off() -> None:
    """Of each value that is true or false, one file of ci/ has it so and another one so, defaults included."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    tried: dict[str, set[bool]] = {}

    def look(values: dict[str, Any], given: dict[str, Any], place: str) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                inner = given.get(name)
                look(value, inner if isinstance(inner, dict) else {}, f"{place}{name}.")
            elif isinstance(value, bool):
                tried.setdefault(f"{place}{name}", set()).add(given.get(name, value))

    for path in CI_VALUES:
        look(defaults, yaml.safe_load(path.read_text(encoding="utf-8")), "")
    assert len(tried) > 15
    # Handed on to Kubernetes as it stands: no switch of the chart.
    del tried["podSecurityContext.runAsNonRoot"]
    assert {name for name, seen in tried.items() if len(seen) < 2} == set()


def open_ports(rules: list[dict[str, Any]]) -> set[int | tuple[int, int]]:
    """Ports of TCP that a policy's rules name; a range as a pair."""
    ports = [port for rule in rules for port in rule["ports"] if port["protocol"] == "TCP"]
    return {(port["port"], port["endPort"]) if "endPort" in port else port["port"] for port in ports}


@pytest.mark.parametrize(
    ("component", "reached", "reaches"),
    [
        ("api", {8080, 9090}, {5432, 6379, 443}),
        ("listener", {2575, 11112, 9090}, {5432}),
        ("relay", {9090}, {5432, 6379, 443, (1024, 65535)}),
        ("worker", {9090}, {5432, 6379}),
        ("migration", set(), {5432}),
    ],
)
def test_pods_reach_what_they_need_and_no_more(component: str, reached: set[int], reaches: set[int]) -> None:
    """Beside names (53) a component reaches its neighbours' ports only, and is reached at its own."""
    spec = of_kind(resources(EXTERNAL), "NetworkPolicy", f"-{component}")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert open_ports(spec.get("ingress", [])) == reached
    assert open_ports(spec["egress"]) == reaches | {53}


def test_sentinels_are_reached_where_a_master_is_named(tmp_path: Path) -> None:
    """By those who talk to Redis: a sentinel tells where the master is, on a port of its own."""
    master = LEAST | {"settings": LEAST["settings"] | {"redis_master": "ward"}}
    of = resources(values_file(tmp_path, master))
    told = {name: open_ports(of_kind(of, "NetworkPolicy", f"-{name}")["spec"]["egress"]) for name in EVERY}
    assert (
        {name for name, ports in told.items() if 26379 in ports} == {"api", "relay", "worker"} == EVERY - {"listener"}
    )
    assert {name for name, ports in told.items() if 6379 in ports} == {"api", "relay", "worker"}


@pytest.mark.parametrize("name", ["postgresql", "redis"])
def test_a_trials_servers_are_reached_by_the_release_only(name: str) -> None:
    """And reach nobody; where KEDA counts jobs, it comes from another namespace."""
    spec = of_kind(resources(TRIAL), "NetworkPolicy", f"-trial-{name}")["spec"]
    (rule,) = spec["ingress"]
    assert [set(each) for each in rule["from"]] == [{"podSelector"}]
    assert "Egress" in spec["policyTypes"]
    assert "egress" not in spec
    counted = of_kind(resources(TRIAL_GPU), "NetworkPolicy", f"-trial-{name}")["spec"]["ingress"][0]["from"]
    assert ("namespaceSelector" in counted[-1]) == (name == "postgresql")


def test_containers_run_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """What the chart hands to `inlay` are commands and options that it knows."""
    from inlay_cli.main import main

    seen = [c for _, pod in pods(resources(HOSPITAL)) for c in containers(pod)]
    assert {c["args"][0] for c in seen} == {"serve", "listen", "relay", "work", "db", "model"}
    for container in seen:
        words: list[str] = container["args"]
        plain = [word for word in words[:2] if not word.startswith("-")]
        with pytest.raises(SystemExit) as ended:
            main([*(plain if words[0] == "model" else plain[:1]), "--help"])
        told = capsys.readouterr().out
        assert ended.value.code == 0
        assert [word for word in words if word.startswith("--") and word not in told] == []
        assert all(word in told for word in plain)


@each_ci_file
def test_yamllint_is_content(values: Path) -> None:
    """What helm writes is tidy YAML: no key twice, no odd indentation."""
    rules = "{extends: relaxed, rules: {line-length: disable, indentation: {indent-sequences: whatever}}}"
    done = tool("yamllint", "--strict", "--config-data", rules, "-", stdin=rendered(values))
    assert done.returncode == 0, done.stdout


def test_checkov_finds_nothing_that_is_not_decided(tmp_path: Path) -> None:
    """No check of checkov fails but those that are listed with their reason."""
    for values in CI_VALUES:
        manifests = "\n---\n".join(yaml.safe_dump(resource) for resource in resources(values))
        (tmp_path / f"{values.stem}.yaml").write_text(manifests, encoding="utf-8")
    assert checkov("kubernetes", tmp_path) <= set(NOT_FOLLOWED)


def test_checkov_finds_nothing_in_the_dockerfiles() -> None:
    """As above."""
    assert checkov("dockerfile", ROOT / "services") <= set(NOT_FOLLOWED)


def checkov(framework: str, folder: Path) -> set[str]:
    """Ids of the checks that failed; that some passed shows that it looked."""
    words = ("--framework", framework, "--skip-download", "--quiet", "--compact", "--output", "json")
    done = tool("checkov", *words, "--directory", str(folder))
    found = json.loads(done.stdout)
    assert found["summary"]["passed"] > 0
    return {check["check_id"] for check in found["results"]["failed_checks"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"database": {}}, "database.existingSecret: name the Secret"),
        ({"redis": {}}, "redis.existingSecret: name the Secret"),
        ({"trial": {"postgresql": {"enabled": True}}}, "choose one database"),
        ({"settings": {}}, "settings.jwks_url: give the jwks_uri"),
        ({"files": {"smartClients": "[[client]]"}}, "smartKey.existingSecret: files.smartClients needs the key"),
        ({"listener": {"tls": {"clients": True}}}, "listener.tls.clients needs a certificate"),
        ({"worker": {"model": {"path": "m"}}}, "worker.model.path is a folder of that volume"),
        ({"worker": {"model": {"existingClaim": "models"}}}, "name the checkpoint's folder"),
        ({"worker": {"autoscaling": {"minReplicas": 9}}}, "minReplicas is above maxReplicas"),
        ({"api": {"ingress": {"enabled": True, "host": "inlay.example.org"}}}, "reports travel over TLS only"),
        ({"settings": {"kill_swich": True}}, "kill_swich"),
        ({"worker": {"replicas": "two"}}, "worker.replicas: Invalid type"),
        ({"setings": {}}, "setings"),
    ],
)
def test_wrong_values_are_refused_in_words(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    """helm stops before anything is installed, and its message names the value and what is missing."""
    values = values_file(tmp_path, LEAST | changes)
    done = tool("helm", "template", "inlay", str(CHART), "--values", str(values))
    assert done.returncode != 0
    assert words in re.sub(r"/", ".", done.stderr).replace("..", ".") or words in done.stderr


@each_ci_file
def test_no_pod_may_more_than_it_needs(values: Path) -> None:
    """No root, no writable root, no capability, no token of the cluster, limits on everything; secrets are files."""
    seen = list(pods(resources(values)))
    assert seen
    for name, pod in seen:
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        for container in containers(pod):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
            assert not any("secretKeyRef" in str(variable) for variable in container.get("env", [])), name


@each_ci_file
def test_pods_name_things_that_exist(values: Path) -> None:
    """Volumes that are mounted are there, Secrets are given by the site or made, ports that are probed are open."""
    made = {(resource["kind"], resource["metadata"]["name"]) for resource in resources(values)}
    given = set(re.findall(r"[a-zA-Z]+(?:Secret|Claim): *([a-z0-9-]+)", values.read_text(encoding="utf-8")))
    for name, pod in pods(resources(values)):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        assert ("ServiceAccount", pod["serviceAccountName"]) in made, name
        for container in containers(pod):
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= set(volumes) | {"data"}, name
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container.get(probe, {})
                port = (asked.get("httpGet") or asked.get("tcpSocket") or {}).get("port")
                assert port is None or port in ports, name
        for volume in volumes.values():
            if secret := volume.get("secret", {}).get("secretName"):
                assert ("Secret", secret) in made or secret in given, secret
            if config := volume.get("configMap", {}).get("name"):
                assert ("ConfigMap", config) in made, config
            if claim := volume.get("persistentVolumeClaim", {}).get("claimName"):
                assert ("PersistentVolumeClaim", claim) in made or claim in given, claim


# Of the chart's own making, or files in the pods.
GIVEN_OTHERWISE = {"INLAY_AUTH": "jwt", "INLAY_SUBSCRIPTION_SECRET": "x" * 16, "INLAY_FHIR_CLIENT_KEY": "k"}


def test_settings_reach_the_pods_as_they_were_written() -> None:
    """Large numbers stay whole numbers, and words of YAML stay words: Inlay itself reads what helm wrote."""
    of = resources(HOSPITAL)
    environment = dict(of_kind(of, "ConfigMap", "-settings")["data"])
    settings = Settings.from_env(environment | GIVEN_OTHERWISE)
    assert (settings.mllp_max_frame, settings.lease_seconds, settings.kill_switch) == (4_194_304, 45.5, False)
    assert settings.zone.key == "Europe/Vienna"


@pytest.mark.parametrize("component", ["api", "listener", "relay", "worker"])
def test_a_changed_setting_replaces_the_pods(component: str, tmp_path: Path) -> None:
    """The annotation of the pods follows settings and files, and nothing else."""

    def annotation(*more: str) -> str:
        of = tuple(d for d in yaml.safe_load_all(rendered(EXTERNAL, *more)) if d)
        template = of_kind(of, "Deployment", f"-{component}")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/settings"]
        return found

    before = annotation()
    assert annotation("--set", "settings.steps=24") != before
    assert annotation("--set-string", "files.adapters=x") != before
    assert annotation("--set", "api.replicas=3") == before


def test_a_worker_is_told_which_checkpoint_to_expect() -> None:
    """The value beside the checkpoint's folder is the setting that Inlay reads; without one there is no variable."""
    told = {}
    for values in (HOSPITAL, EXTERNAL):
        (container,) = of_kind(resources(values), "Deployment", "-worker")["spec"]["template"]["spec"]["containers"]
        told[values] = [each["value"] for each in container["env"] if each["name"] == "INLAY_MODEL_DIGEST"]
    chosen = yaml.safe_load(HOSPITAL.read_text(encoding="utf-8"))["worker"]["model"]["digest"]
    assert told == {HOSPITAL: [chosen], EXTERNAL: []}
    assert Settings.from_env({"INLAY_MODEL_DIGEST": chosen}).model_digest == chosen


@each_ci_file
def test_a_worker_computes_with_as_many_threads_as_it_has_cores(values: Path) -> None:
    """Those of its limit, which the container has to have."""
    of = [resource for resource in resources(values) if resource["kind"] == "Deployment"]
    workers = [
        one["spec"]["template"]["spec"]["containers"] for one in of if one["metadata"]["name"].endswith("-worker")
    ]
    for (container,) in workers:
        (threads,) = [each for each in container["env"] if each["name"] == "OMP_NUM_THREADS"]
        assert threads["valueFrom"] == {"resourceFieldRef": {"resource": "limits.cpu"}}
        assert "cpu" in container["resources"]["limits"]


@pytest.mark.parametrize(("chosen", "device"), [({}, "cuda"), ({"count": 4}, "auto"), ({"enabled": False}, "cpu")])
def test_a_worker_works_where_it_was_meant_to(tmp_path: Path, chosen: dict[str, Any], device: str) -> None:
    """A pod that should have a GPU and has none must not load the model onto its CPU."""
    of = resources(values_file(tmp_path, {**LEAST, "worker": {"gpu": chosen}}))
    (container,) = of_kind(of, "Deployment", "-worker")["spec"]["template"]["spec"]["containers"]
    assert [one["value"] for one in container["env"] if one["name"] == "INLAY_DEVICE"] == [device]


@each_ci_file
def test_the_status_of_a_pod_has_the_last_words_of_what_ended(values: Path) -> None:
    """Whoever asks why a pod comes back again and again reads the remedy there, without looking for a log."""
    ours = [one for _, pod in pods(resources(values)) for one in containers(pod) if "inlay-" in one["image"]]
    assert ours
    assert {container["terminationMessagePolicy"] for container in ours} == {"FallbackToLogsOnError"}


@pytest.mark.parametrize("chosen", [None, 20])
def test_streams_are_full_where_the_settings_say_so(chosen: int | None, tmp_path: Path) -> None:
    """The alert's limit is the setting's, so that raising it, which the runbook advises, ends the alert."""
    settings = LEAST["settings"] | ({} if chosen is None else {"max_streams": chosen})
    values = LEAST | {"settings": settings, "monitoring": {"rules": {"enabled": True}}}
    (group,) = of_kind(resources(values_file(tmp_path, values)), "PrometheusRule")["spec"]["groups"]
    expressions = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    limit = Settings().max_streams if chosen is None else chosen
    assert expressions["InlayStreamsFull"] == f'max(inlay_http_streams{{namespace="default"}}) >= {limit}'
    assert not any(word in expression for expression in expressions.values() for word in ("HERE", "STREAMS"))


def test_a_worker_is_given_time_and_its_gpu() -> None:
    """It asks for its GPUs, gets shared memory, is not alive before its model is loaded, and may hand its job back."""
    of = resources(HOSPITAL)
    deployment = of_kind(of, "Deployment", "-worker")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod["runtimeClassName"] == "nvidia"
    assert {"name": "INLAY_DEVICE", "value": "auto"} in container["env"]
    assert {"name": "INLAY_WARM_UP", "value": "true"} in container["env"]
    probe = container["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 1800
    assert pod["terminationGracePeriodSeconds"] == 120
    shared = next(volume for volume in pod["volumes"] if volume["name"] == "shared-memory")
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    # Whoever scales the workers decides how many there are; an upgrade must not.
    assert "replicas" not in deployment["spec"]
    assert of_kind(resources(EXTERNAL), "Deployment", "-worker")["spec"]["replicas"] == 1


def test_the_listener_keeps_senders_and_their_addresses() -> None:
    """Sessions stay with one pod, the sender's address is not translated; DICOM is open only where it is set up."""
    service = of_kind(resources(HOSPITAL), "Service", "-listener")["spec"]
    assert service["sessionAffinity"] == "ClientIP"
    assert service["externalTrafficPolicy"] == "Local"
    assert {port["name"] for port in service["ports"]} == {"mllp", "dicom"}
    assert {p["name"] for p in of_kind(resources(EXTERNAL), "Service", "-listener")["spec"]["ports"]} == {"mllp"}


def test_migrations_come_before_the_new_version() -> None:
    """A hook, but with a trial's database, which comes with the release: then a Job of the release."""
    hook = of_kind(resources(EXTERNAL), "Job")["metadata"]["annotations"]["helm.sh/hook"]
    assert hook == "pre-install,pre-upgrade"
    assert "annotations" not in of_kind(resources(TRIAL), "Job")["metadata"]
    pod = of_kind(resources(HOSPITAL), "Job")["spec"]["template"]["spec"]
    secrets = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    assert secrets == {"inlay-database-owner", "inlay-files"}


EVERY = {"api", "listener", "relay", "worker"}


@pytest.mark.parametrize(
    ("secret", "setting", "file", "components"),
    [
        ("inlay-subscription", "INLAY_SUBSCRIPTION_SECRET_FILE", "subscription/secret", EVERY),
        ("inlay-smart", "INLAY_SMART_KEY_FILE", "smart/key.json", EVERY),
        ("inlay-fhir", "INLAY_FHIR_CLIENT_KEY", "fhir-client/key.json", EVERY),
        ("inlay-collector", "INLAY_TRACES_HEADERS_FILE", "traces/otlp-headers", EVERY),
        ("inlay-audit", "INLAY_AUDIT_KEY_FILE", "audit/audit-key.json", {"relay"}),
        ("inlay-oidc", "INLAY_OIDC_CLIENT_SECRET_FILE", "oidc/secret", {"api"}),
    ],
)
def test_a_secret_is_a_file_of_those_who_need_it(secret: str, setting: str, file: str, components: set[str]) -> None:
    """Its setting names the key in the folder that it is mounted at, and the others do not have it."""
    folder = f"/run/secrets/inlay/{file.partition('/')[0]}"
    for component in EVERY:
        pod = of_kind(resources(HOSPITAL), "Deployment", f"-{component}")["spec"]["template"]["spec"]
        (main,) = pod["containers"]
        names = [v["name"] for v in pod["volumes"] if v.get("secret", {}).get("secretName") == secret]
        mounts = [m["mountPath"] for m in main["volumeMounts"] if m["name"] in names and m["readOnly"]]
        paths = [v["value"] for v in main["env"] if v["name"] == setting]
        told = (mounts, paths)
        assert told == (([folder], [f"/run/secrets/inlay/{file}"]) if component in components else ([], [])), component


def test_the_token_of_a_collector_travels_over_tls() -> None:
    """Its certificate is compared with the hospital's own authority, which every process has as a file."""
    authority = {"name": "OTEL_EXPORTER_OTLP_CERTIFICATE", "value": "/run/secrets/inlay/files/ca.crt"}
    for component in EVERY:
        (main,) = of_kind(resources(HOSPITAL), "Deployment", f"-{component}")["spec"]["template"]["spec"]["containers"]
        assert {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "https://collector.monitoring:4318"} in main["env"]
        assert authority in main["env"]
        assert "/run/secrets/inlay/files" in {mount["mountPath"] for mount in main["volumeMounts"]}


def test_the_password_of_a_trial_lives_as_long_as_its_database() -> None:
    """A StatefulSet's volume stays when the release goes; a new password would not open what it holds."""
    secret = of_kind(resources(TRIAL), "Secret", "-trial-postgresql")
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "persistentVolumeClaimRetentionPolicy" not in of_kind(resources(TRIAL), "StatefulSet")["spec"]


def test_nobody_waits_for_the_token_of_traces_that_are_not_sent(tmp_path: Path) -> None:
    """A Secret that does not exist keeps a pod from starting."""
    off = values_file(tmp_path, LEAST | {"traces": {"enabled": False, "existingSecret": "inlay-collector"}})
    assert "inlay-collector" not in rendered(off)


@each_ci_file
def test_selectors_find_the_pods_that_they_mean(values: Path) -> None:
    """Each Service, budget and policy selects the pods of one component at least, unless it selects metrics."""
    of = resources(values)
    labels = [
        resource["spec"]["template"]["metadata"]["labels"]
        for resource in of
        if resource["kind"] in {"Deployment", "StatefulSet", "Job"}
    ]
    for resource in of:
        spec = resource.get("spec", {})
        selector = {
            "Service": spec.get("selector"),
            "PodDisruptionBudget": (spec.get("selector") or {}).get("matchLabels"),
            "NetworkPolicy": (spec.get("podSelector") or {}).get("matchLabels"),
        }.get(resource["kind"])
        # Policies of what this combination has not are harmless.
        absent = resource["kind"] == "NetworkPolicy" and resource["metadata"]["name"].endswith(("worker", "migration"))
        if selector and not absent:
            assert any(selector.items() <= pod.items() for pod in labels), resource["metadata"]["name"]


def test_the_newest_version_is_the_newest_that_the_schemas_know() -> None:
    """When the schemas learn of a newer Kubernetes, this list has to."""
    found = tool("python", "-c", "import kubernetes_validate as k; print(k.latest_version())").stdout
    assert found.startswith(NEWEST)
