"""The Kubernetes manifests: valid to KubeRay, to the API server and to Ray, at one with the
configuration, and closed."""

import gzip
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from ray.dashboard.modules.reporter import reporter_agent

from catalog.run.submission import STOPPED
from cluster.kuberay import RayService
from serve.config import LoadedConfig, load
from tests.manifests_k8s import (
    KUBERNETES,
    RAYSERVICE,
    Pod,
    documents,
    groups,
    of_kind,
    other_pods,
    ray_pods,
    rayservice,
)
from tests.shared_data import shared_data

LOGS_AND_TRACES = KUBERNETES.parents[1] / "docs" / "logs-and-traces.md"
KUBERNETES_VERSION = "1.33"
OPERATORS_KINDS = {"RayService", "PodMonitor", "Probe"}
AGENT_PORT = 52365  # KubeRay's default of dashboard-agent-listen-port
PODS = [*ray_pods(), *other_pods()]
PODS_AND_MORE = [*PODS, *(replace(p, name=f"{p.name}, shipped") for p in ray_pods(optional=True))]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> LoadedConfig:
    monkeypatch.setenv("SHOPREEL_OBJECT_STORE__ACCESS_KEY", "key")
    monkeypatch.setenv("SHOPREEL_OBJECT_STORE__SECRET_KEY", "secret")
    monkeypatch.setenv("SHOPREEL_JOB_STORE__URL", "postgresql+psycopg://reel:pw@db:5432/reel")
    return load(RAYSERVICE)


@pytest.fixture(scope="module")
def rayservice_schema() -> dict[str, Any]:
    with gzip.open(shared_data("kuberay/ray.io_rayservices.yaml.gz")) as file:
        crd = yaml.load(file, yaml.CSafeLoader)
    (served,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    schema: dict[str, Any] = _strict(served["schema"]["openAPIV3Schema"])
    return schema


def _strict(schema: Any) -> Any:
    """As the API server with fieldValidation=Strict: no field that the schema does not know."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(part) for key, part in schema.items()}
    keeps_unknown = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "type" in schema and not keeps_unknown:
        strict["additionalProperties"] = False
    return strict


def problems(document: Any, schema: Any) -> list[str]:
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in errors]


@pytest.mark.shared_data
@pytest.mark.parametrize("optional", [False, True])
def test_kuberay_accepts_the_rayservice(rayservice_schema: dict[str, Any], optional: bool) -> None:
    assert problems(rayservice(optional), rayservice_schema) == []


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("workerGroupSpecs.0.numOfHost", 1),
        ("workerGroupSpecs.1.template.spec.container", []),
        ("workerGroupSpecs.1.minReplicas", "one"),
        ("gcsFaultToleranceOptions.backend", "sqlite"),
        ("headGroupSpec.template.spec.containers.0.resources.limits.memory", "8 GB"),
    ],
)
def test_kuberays_schema_finds_a_mistake(
    rayservice_schema: dict[str, Any], where: str, value: Any
) -> None:
    broken = rayservice()
    part = broken["spec"]["rayClusterConfig"]
    *parents, leaf = where.split(".")
    for parent in parents:
        part = part[int(parent) if parent.isdigit() else parent]
    part[leaf] = value
    assert problems(broken, rayservice_schema)


@pytest.mark.parametrize("optional", [False, True])
def test_the_api_server_accepts_every_other_manifest(optional: bool) -> None:
    for name, document in documents(optional):
        assert document["metadata"].get("namespace", "shopreel") == "shopreel", name
        if document["kind"] not in OPERATORS_KINDS:
            kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("optional", [False, True])
def test_the_api_server_accepts_the_pods_of_every_group(optional: bool) -> None:
    for pod in ray_pods(optional):
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": pod.spec}
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


def test_rays_autoscaler_sees_the_pools_as_we_do() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    manifest = rayservice()
    cluster = {"metadata": manifest["metadata"], "spec": manifest["spec"]["rayClusterConfig"]}
    seen = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    service = RayService.read(manifest)
    assert service is not None
    head, *workers = service.pools
    assert seen["headgroup"]["resources"]["CPU"] == head.cpus == 0
    assert seen["headgroup"]["labels"] == head.labels
    for pool in workers:
        node_type = seen[pool.group_name]
        assert node_type["resources"]["CPU"] == pool.cpus
        assert node_type["resources"].get("GPU", 0) == pool.gpus
        assert node_type["labels"] == pool.labels
        assert node_type["max_workers"] == pool.max_nodes
        assert pool.num_of_hosts == 1


def test_the_cluster_runs_the_ray_that_is_tested() -> None:
    assert rayservice()["spec"]["rayClusterConfig"]["rayVersion"] == ray.__version__


def _flat(value: Any, *parents: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, *parents, key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for part in value:
            yield from _flat(part, *parents, part["name"])
    else:
        yield ".".join(parents), value


def test_its_configuration_is_the_production_files_but_for_where_things_are(
    loaded: LoadedConfig,
) -> None:
    ours = dict(_flat(loaded.serve))
    theirs = dict(_flat(yaml.safe_load((KUBERNETES.parent / "production.yaml").read_text())))
    different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    on_cpu_nodes = {"api", "dispatcher", "housekeeper", "text_encoder", "image_encoder"}
    on_cpu_nodes |= {"video_encoder", "camera"}
    assert different == {
        "proxy_location",
        "http_options.host",
        "applications.shopreel.args.wait_for_nodes",
        "applications.shopreel.args.model.source",
        *(f"applications.shopreel.args.stages.{stage}.labels.pool" for stage in on_cpu_nodes),
        *(
            f"applications.shopreel.args.stages.{stage}.labels.role"
            for stage in ("api", "dispatcher", "housekeeper")
        ),
    }
    assert loaded.app.wait_for_nodes
    assert loaded.serve["proxy_location"] == "EveryNode"


def test_every_tier_has_a_pool_of_its_cards(loaded: LoadedConfig) -> None:
    pools = groups(rayservice())
    for tier in loaded.app.tiers:
        assert pools[tier.name]["labels"] == {**tier.labels, "vram-gb": f"{tier.vram_gb:g}"}
        assert pools[tier.name]["minReplicas"] == tier.min_replicas
        assert pools[tier.name]["maxReplicas"] == tier.max_replicas


@pytest.mark.parametrize("pod", PODS_AND_MORE, ids=lambda pod: pod.name)
def test_no_pod_runs_as_root_or_may_become_it(pod: Pod) -> None:
    context = pod.spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod.spec["containers"], *pod.spec.get("initContainers", ())):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)
    assert not any("hostPath" in volume for volume in pod.spec.get("volumes", ()))


def test_the_autoscaler_beside_the_head_is_as_closed() -> None:
    options = rayservice()["spec"]["rayClusterConfig"]["autoscalerOptions"]
    assert options["securityContext"] == PODS[0].container["securityContext"]
    assert {"cpu", "memory"} <= set(options["resources"]["requests"])


def test_only_the_head_has_a_right_in_kubernetes() -> None:
    for pod in PODS[1:]:
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["serviceAccountName"] == of_kind("ServiceAccount")[0]["metadata"]["name"]
    assert "serviceAccountName" not in PODS[0].spec  # KubeRay makes the autoscaler's


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod.name)
def test_images_are_pinned_and_resources_are_set(pod: Pod) -> None:
    needs_cuda = "nvidia.com/gpu" in pod.container["resources"].get("limits", {})
    device = "cuda" if needs_cuda else "cpu"
    assert re.fullmatch(rf"[a-z.]+/shopreel:\d+\.\d+\.\d+-{device}", pod.container["image"])
    resources = pod.container["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]
    assert "cpu" not in resources["limits"]  # throttled threads would only be slower


def test_secrets_come_by_reference_and_the_example_has_them_all() -> None:
    example = {s["metadata"]["name"]: set(s["stringData"]) for s in of_kind("Secret")}
    used: dict[str, set[str]] = {}
    for pod in PODS:
        for variable in pod.container.get("env", ()):
            if "value" in variable:
                assert not re.search("KEY|SECRET|TOKEN|PASSWORD|URL", variable["name"])
                continue
            if "fieldRef" in variable["valueFrom"]:  # of the pod itself
                continue
            reference = variable["valueFrom"]["secretKeyRef"]
            used.setdefault(reference["name"], set()).add(reference["key"])
    auth = rayservice()["spec"]["rayClusterConfig"]["authOptions"]
    assert auth["mode"] == "token"
    used.setdefault(auth["secretName"], set()).add("auth_token")  # KubeRay's key
    assert used == example
    for secret in of_kind("Secret"):
        assert all("REPLACE" in value for value in secret["stringData"].values())


def test_ports_are_where_serve_kuberay_and_prometheus_look(loaded: LoadedConfig) -> None:
    _, port = loaded.http_address
    head, *workers = ray_pods()
    for pod in (head, *workers):
        assert pod.ports["serve"] == port
        assert not any(10002 <= number <= 19999 for number in pod.ports.values())  # Ray's workers'
    endpoints = of_kind("PodMonitor")[0]["spec"]["podMetricsEndpoints"]
    assert {endpoint["port"] for endpoint in endpoints} <= set(head.ports)
    assert all("metrics" in pod.ports for pod in workers)
    for endpoint in endpoints:  # as monitoring/prometheus.yaml has it, for alerts look for it
        assert {"targetLabel": "job", "replacement": "shopreel"} in endpoint["relabelings"]
    (rule,) = of_kind("Ingress")[0]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    service = {"name": f"{rayservice()['metadata']['name']}-serve-svc", "port": {"number": port}}
    assert path["backend"]["service"] == service  # KubeRay's name for it


def test_probes_ask_the_nodes_agent_and_traffic_goes_where_a_proxy_is() -> None:
    for pod in ray_pods():
        for probe in ("startupProbe", "livenessProbe"):
            asked = {"path": "/api/healthz", "port": AGENT_PORT}
            assert pod.container[probe]["httpGet"] == asked
    for pod in ray_pods()[1:]:
        ready = {"path": "/-/healthz", "port": "serve"}
        assert pod.container["readinessProbe"]["httpGet"] == ready
    assert rayservice()["spec"]["excludeHeadPodFromServeSvc"] is True


def test_a_pod_that_ends_has_ray_drain_its_node_in_time() -> None:
    from ray.scripts.scripts import cli

    for pod in ray_pods()[1:]:
        *_, script = pod.container["lifecycle"]["preStop"]["exec"]["command"]
        drain, rest = script.split("&&")
        _, name, *arguments = shlex.split(drain)
        context = cli.commands[name].make_context(name, arguments)
        match = re.fullmatch(r"sleep (\d+); ray stop", rest.strip())
        assert match
        asleep_s = int(match[1])
        grace_s = pod.spec["terminationGracePeriodSeconds"]
        assert context.params["deadline_remaining_seconds"] < asleep_s < grace_s


def test_the_heads_state_is_on_a_volume_of_its_own() -> None:
    """A second cluster, of an upgrade, must not open the first one's RocksDB."""
    options = rayservice()["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options["backend"] == "rocksdb"
    assert "claimName" not in options["storage"]  # KubeRay makes one for each RayCluster
    names = {variable["name"] for variable in ray_pods()[0].container["env"]}
    assert not {"RAY_gcs_storage", "RAY_gcs_storage_path"} & names  # KubeRay's, or it refuses


def test_ray_tells_of_every_pod_how_full_its_disk_is() -> None:
    """In a pod it makes the figures up unless this variable, which its source names, is set."""
    variable = "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE"
    assert variable in inspect.getsource(reporter_agent)
    for pod in ray_pods():
        assert {"name": variable, "value": "1"} in pod.container["env"]


def test_disruption_budgets_hold_pods_and_let_some_go() -> None:
    at_least = {"headgroup": 1} | {
        name: group["minReplicas"] for name, group in list(groups(rayservice()).items())[1:]
    }
    for budget in of_kind("PodDisruptionBudget"):
        spec = budget["spec"]
        held = [pod.name for pod in ray_pods() if pod.suits(spec["selector"])]
        # Of pods that no scale counts, Kubernetes takes this alone.
        assert set(spec) == {"minAvailable", "selector"}
        assert isinstance(spec["minAvailable"], int)
        spare = sum(at_least[name] for name in held) - spec["minAvailable"]
        assert (held == ["headgroup"] and spare == 0) or spare > 0


def test_nobody_but_the_cluster_its_operator_and_runs_reaches_rays_ports(
    loaded: LoadedConfig,
) -> None:
    serve_port = loaded.http_address[1]
    metrics = {port for pod in ray_pods() for name, port in pod.ports.items() if "metrics" in name}
    own = {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "shopreel"}}}
    closed = set()
    for policy in of_kind("NetworkPolicy"):
        spec = policy["spec"]
        chosen = {pod.name for pod in ray_pods() if pod.suits(spec["podSelector"])}
        assert chosen, policy["metadata"]["name"]
        if spec["policyTypes"] == ["Ingress", "Egress"]:
            closed |= chosen
        for rule in spec.get("ingress", ()):
            ports = {port["port"] for port in rule.get("ports", ())}
            if rule["from"] == [own]:
                assert not ports  # any
                continue
            assert ports, rule
            if not ports <= metrics | {serve_port}:
                assert chosen == {"headgroup"}
                assert ports <= {8265, serve_port}
    assert closed == {pod.name for pod in ray_pods()}
    (catalogue,) = of_kind("CronJob")
    labels = catalogue["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/component": "catalogue"}


def test_a_night_is_stood_by_and_its_second_pod_goes_on_with_the_first_ones_run() -> None:
    (cron,) = of_kind("CronJob")
    job = cron["spec"]["jobTemplate"]["spec"]
    assert job["backoffLimit"] > 0
    (rule,) = job["podFailurePolicy"]["rules"]  # else a run that was cancelled begins again
    assert rule["action"] == "FailJob"
    assert STOPPED in rule["onExitCodes"]["values"]
    assert 1 not in rule["onExitCodes"]["values"]  # nobody answered
    (container,) = job["template"]["spec"]["containers"]
    assert "--follow" in container["args"]  # else a driver that is killed stays dead until morning
    (output,) = [word for word in container["args"] if word.startswith("--output=")]
    variables = {v["name"]: v for v in container["env"]}
    (used,) = re.findall(r"\$\((\w+)\)", output)
    path = variables[used]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.labels['batch.kubernetes.io/job-name']"  # of the Job, not of the pod


def test_the_nightly_run_reads_the_manifest_that_was_applied() -> None:
    """From a ConfigMap, which the head of the file says how to make: an image would have an old
    one."""
    (cron,) = of_kind("CronJob")
    spec = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (config,) = [w.partition("=")[2] for w in container["args"] if w.startswith("--config=")]
    (mount,), (volume,) = container["volumeMounts"], spec["volumes"]
    assert mount["name"] == volume["name"]
    assert config == f"{mount['mountPath']}/{RAYSERVICE.name}"
    text = (KUBERNETES / "catalogue.yaml").read_text().replace("\\\n#", "")
    (made,) = re.findall(r"create configmap (\S+) .*--from-file=(\S+)", text)
    assert made == (volume["configMap"]["name"], f"cluster/kubernetes/{RAYSERVICE.name}")


def test_stores_and_collector_are_reached(loaded: LoadedConfig) -> None:
    def ports(optional: bool) -> set[int]:
        return {
            port["port"]
            for name, document in documents(optional)
            if name == "network.yaml" and document["metadata"]["name"] == "shopreel"
            for rule in document["spec"]["egress"]
            for port in rule.get("ports", ())
        }

    assert loaded.app.object_store is not None
    (database,) = [s for s in of_kind("Secret") if s["metadata"]["name"] == "shopreel-postgres"]
    stores = (f"//{loaded.app.object_store.endpoint}", database["stringData"]["url"])
    assert {urlsplit(url).port for url in stores} <= ports(optional=False)
    (traces,) = re.findall(r"endpoint: (\S+)", LOGS_AND_TRACES.read_text())
    assert ports(optional=True) - ports(optional=False) == {urlsplit(traces).port, shipper_port()}


def shipper() -> dict[str, Any]:
    (config,) = of_kind("ConfigMap")
    pipeline: dict[str, Any] = yaml.safe_load(config["data"]["fluent-bit.yaml"])["pipeline"]
    return pipeline


def shipper_port() -> int:
    (output,) = shipper()["outputs"]
    port: int = output["port"]
    return port


def test_every_pod_shares_its_logs_with_the_shipper() -> None:
    (config,) = of_kind("ConfigMap")
    (reads,) = shipper()["inputs"]
    for pod in ray_pods(optional=True):
        (sidecar,) = pod.spec["initContainers"]
        assert sidecar["restartPolicy"] == "Always"
        volumes = {v["name"]: v for v in pod.spec["volumes"]}
        ours, theirs = (
            {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
            for container in (pod.container, sidecar)
        )
        assert ours["/tmp/ray"] == theirs["/tmp/ray"]
        assert volumes[ours["/tmp/ray"]]["emptyDir"] == {}
        assert all(path.startswith("/tmp/ray/") for path in reads["path"].split(","))
        (option,) = [word for word in sidecar["command"] if word.startswith("--config=")]
        folder, _, file = option.partition("=")[2].rpartition("/")
        assert volumes[theirs[folder]]["configMap"]["name"] == config["metadata"]["name"]
        assert file in config["data"]


def test_the_weights_job_fetches_what_the_pods_serve(loaded: LoadedConfig) -> None:
    (job,) = of_kind("Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    options = [argument.split("=", 1) for argument in container["args"]]
    given = dict(options)
    model = loaded.app.model
    assert given["--revision"] == model.revision
    assert given["--local-dir"] == model.source
    included = {value for name, value in options if name == "--include"}
    assert included == {"*.json", "*.txt", f"*/*model.{model.variant}*.safetensors"}
    production = yaml.safe_load((KUBERNETES.parent / "production.yaml").read_text())
    assert container["command"][-1] == production["applications"][0]["args"]["model"]["source"]
    for pod in ray_pods():
        (mount,) = pod.container["volumeMounts"]
        assert mount == {"name": "weights", "mountPath": "/models", "readOnly": True}
