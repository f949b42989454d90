"""`shopreel doctor` before a rollout: what would hang or be refused is named, and nothing else."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from cluster.capacity import NoRoom, require_room
from cluster.kuberay import ManifestUnusable, RayService
from cluster.preflight import Check
from cluster.preflight_kuberay import check_ray_token, check_service, check_upgrade
from cluster.preflight_stores import (
    check_clock,
    check_job_table,
    check_nodes_weights,
    check_secrets,
)
from cluster.rollout import check_pools
from cluster.stage import StageConfig
from diffusion.model_folder import ModelConfig, ModelFolder
from serve.config import ConfigError, LoadedConfig, load
from storage.job_store import JobStoreConfig
from storage.sql.database import Database
from tests.manifests_k8s import RAYSERVICE, rayservice

VARIABLES = {
    "SHOPREEL_OBJECT_STORE__ACCESS_KEY": "key",
    "SHOPREEL_OBJECT_STORE__SECRET_KEY": "secret",
    "SHOPREEL_JOB_STORE__URL": "postgresql+psycopg://reel:pw@db:5432/reel",
}
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def changed(folder: Path, change: Change) -> LoadedConfig:
    """The shipped manifest, with the cluster in it changed."""
    manifest = rayservice()
    change(manifest["spec"]["rayClusterConfig"])
    path = folder / "rayservice.yaml"
    path.write_text(yaml.safe_dump(manifest))
    return load(path)


def of_service(loaded: LoadedConfig, *, waits: bool = True) -> dict[str, Check]:
    assert loaded.service is not None
    port = loaded.http_address[1]
    return by_name(check_service(loaded.service, port, VARIABLES, waits=waits))


def of_upgrade(loaded: LoadedConfig, *, sqlite: bool = False) -> Check:
    assert loaded.service is not None
    return check_upgrade(loaded.service, loaded.app.deployments, sqlite=sqlite)


def of_token(loaded: LoadedConfig, token: str | None) -> Check:
    assert loaded.service is not None
    return check_ray_token(loaded.service.auth, token)


def of_pools(loaded: LoadedConfig) -> dict[str, Check]:
    assert loaded.service is not None
    return by_name(check_pools(loaded.service, loaded.app.deployments, loaded.app.tiers))


def by_name(checks: Iterable[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_the_shipped_manifest_has_nothing_to_mend() -> None:
    loaded = load(RAYSERVICE)
    checks = of_service(loaded) | of_pools(loaded)
    assert {check.status for check in checks.values()} == {"ok"}
    assert {"pool head", "pool cpu", "pool a100", "pool rtx4090", "pools"} <= set(checks)


def _unlabel(cluster: dict[str, Any]) -> None:
    cluster["workerGroupSpecs"][1]["labels"] = {"tier": "a10"}


def _no_cards(cluster: dict[str, Any]) -> None:
    resources = cluster["workerGroupSpecs"][2]["template"]["spec"]["containers"][0]["resources"]
    del resources["limits"]["nvidia.com/gpu"]


def _narrow(cluster: dict[str, Any]) -> None:
    resources = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]
    resources["requests"]["cpu"] = "2500m"


def _few(cluster: dict[str, Any]) -> None:
    cluster["workerGroupSpecs"][0] |= {"minReplicas": 1, "maxReplicas": 1}


def _two_cpus_beside_a_card(cluster: dict[str, Any]) -> None:
    """The denoiser takes both, and the decoder on its card finds none."""
    cluster["workerGroupSpecs"][1]["maxReplicas"] = 1
    resources = cluster["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]["resources"]
    resources["requests"]["cpu"] = "2"


def _smaller_cards(cluster: dict[str, Any]) -> None:
    cluster["workerGroupSpecs"][1]["labels"]["vram-gb"] = "40"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_unlabel, "labels {'tier': 'a100'} of Denoiser-a100"),
        (_no_cards, "no node has room for Denoiser-rtx4090 (1 GPU, 2 CPU)"),
        (_narrow, "a replica of TextEncoder books 4 CPUs and no node for it has more than 3"),
        (_few, "labelled {'pool': 'cpu'} book 12.9 CPUs and Ray has 8"),
        (_two_cpus_beside_a_card, "labelled {'tier': 'a100'} book 3 CPUs and Ray has 2"),
        (_smaller_cards, "counts on 80 GB, a card has 40"),
    ],
)
def test_pools_that_can_never_hold_the_deployments_are_refused(
    tmp_path: Path, change: Change, says: str
) -> None:
    check = of_pools(changed(tmp_path, change))["pools"]
    assert check.status == "fail"
    assert says in check.found


def test_pools_that_stop_short_of_the_most_replicas_are_warned_of(tmp_path: Path) -> None:
    def fewer(cluster: dict[str, Any]) -> None:
        cluster["workerGroupSpecs"][2]["maxReplicas"] = 4

    checks = of_pools(changed(tmp_path, fewer))
    assert checks["pools"].status == "ok"
    assert checks["pools at most"].status == "warn"
    assert "'tier': 'rtx4090'} book 32 CPUs" in checks["pools at most"].found


def test_a_replica_that_no_single_node_holds_has_no_room() -> None:
    nodes = [{"Alive": True, "Labels": {}, "Resources": {"CPU": 8}}] * 2
    require_room({"text": StageConfig(num_cpus=8)}, nodes)
    with pytest.raises(NoRoom, match="a replica of text books 9 CPUs and no node"):
        require_room({"text": StageConfig(num_cpus=9)}, nodes)


def test_cpus_of_nodes_with_other_labels_do_not_count() -> None:
    stages = {"api": StageConfig(num_cpus=3, min_replicas=2, max_replicas=2, labels={"pool": "a"})}
    small = {"Alive": True, "Labels": {"pool": "a"}, "Resources": {"CPU": 4}}
    other = {"Alive": True, "Labels": {"pool": "b"}, "Resources": {"CPU": 64}}
    require_room(stages, [small, small])
    with pytest.raises(NoRoom, match="book 6 CPUs and Ray has 4"):
        require_room(stages, [small, other])


def test_an_sqlite_file_and_two_clusters_do_not_go_together(tmp_path: Path) -> None:
    loaded = load(RAYSERVICE)
    refused = of_upgrade(loaded, sqlite=True)
    assert refused.status == "fail"
    assert "upgradeStrategy: {type: None}" in refused.fix
    manifest = rayservice()
    manifest["spec"]["upgradeStrategy"] = {"type": "None"}
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(manifest))
    assert of_upgrade(load(path), sqlite=True).status == "ok"


def test_a_second_cluster_is_said_to_need_cards_of_its_own(tmp_path: Path) -> None:
    shipped = of_upgrade(load(RAYSERVICE))
    assert shipped.status == "warn"
    assert "with 1 GPU of pool a100, 1 GPU of pool rtx4090" in shipped.found

    def more(cluster: dict[str, Any]) -> None:
        cluster["workerGroupSpecs"][1]["minReplicas"] = 0  # its replicas make it grow
        cluster["workerGroupSpecs"][2]["minReplicas"] = 3

    found = of_upgrade(changed(tmp_path, more)).found
    assert "with 1 GPU of pool a100, 3 GPU of pool rtx4090" in found

    def replicas(cluster: dict[str, Any]) -> None:
        for group in cluster["workerGroupSpecs"][1:]:
            group["minReplicas"] = 0
            for container in group["template"]["spec"]["containers"]:
                del container["resources"]["limits"]["nvidia.com/gpu"]

    assert of_upgrade(changed(tmp_path, replicas)).status == "ok"  # on CPUs alone


@pytest.mark.parametrize(
    ("token", "status", "says"),
    [
        (None, "fail", "not set here"),
        ("", "fail", "not set here"),
        ("REPLACE", "fail", "still the example's"),
        ("s3cr3t", "fail", "6 characters"),
        ("0123456789abcdef" * 2, "ok", "Secret shopreel-ray"),
    ],
)
def test_rays_token_is_real_and_long(token: str | None, status: str, says: str) -> None:
    check = of_token(load(RAYSERVICE), token)
    assert (check.status, says in check.found) == (status, True), check
    assert not token or token == "REPLACE" or token not in f"{check}"


@pytest.mark.parametrize(
    ("auth", "status"),
    [
        (None, "fail"),
        ({"mode": "disabled"}, "fail"),
        ({"mode": "token"}, "ok"),
        ({"mode": "token", "enableK8sTokenAuth": True}, "fail"),
    ],
)
def test_rays_ports_want_a_token_whosever_it_is(
    tmp_path: Path, auth: dict[str, Any] | None, status: str
) -> None:
    def other(cluster: dict[str, Any]) -> None:
        cluster["authOptions"] = auth
        if auth is None:
            del cluster["authOptions"]

    assert of_token(changed(tmp_path, other), None).status == status


def test_variables_that_a_secret_may_bring_are_no_failure(tmp_path: Path) -> None:
    def from_secret(cluster: dict[str, Any]) -> None:
        container = cluster["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]
        container["env"] = container["env"][1:]
        container["envFrom"] = [{"secretRef": {"name": "stores"}}, {"configMapRef": {"name": "c"}}]

    check = of_service(changed(tmp_path, from_secret))["variables"]
    assert check.status == "warn"
    assert "pool a100: no SHOPREEL_JOB_STORE__URL" in check.found
    assert "Secret stores, ConfigMap c" in check.found


def test_labels_where_kuberay_refuses_them_are_named(tmp_path: Path) -> None:
    def elsewhere(cluster: dict[str, Any]) -> None:
        cluster["workerGroupSpecs"][1]["rayStartParams"] = {"labels": "tier=a100"}

    check = of_service(changed(tmp_path, elsewhere))["node labels"]
    assert check.status == "fail"
    assert check.found.startswith("pool a100: rayStartParams;")


def test_what_every_pool_must_have_is_looked_for_in_each(tmp_path: Path) -> None:
    def lacking(cluster: dict[str, Any]) -> None:
        container = cluster["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]
        container["env"] = container["env"][1:]
        container["ports"][0]["containerPort"] = 8000

    checks = of_service(changed(tmp_path, lacking), waits=False)
    assert checks["variables"].status == checks["port serve"].status == "fail"
    assert checks["variables"].found.startswith("pool a100: no SHOPREEL_JOB_STORE__URL;")
    assert checks["port serve"].found.startswith("pool a100: 8000;")
    assert checks["wait_for_nodes"].status == "fail"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda manifest: manifest["spec"].pop("serveConfigV2"), "spec.serveConfigV2"),
        (lambda manifest: manifest["spec"].update(serveConfigV2="["), "cannot be read"),
        (lambda manifest: manifest["spec"].update(serveConfigV2="a: 1"), "no Serve config file"),
    ],
)
def test_a_manifest_that_holds_no_configuration_is_named(
    tmp_path: Path, change: Callable[[Any], Any], says: str
) -> None:
    manifest = rayservice()
    change(manifest)
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(manifest))
    with pytest.raises(ConfigError, match=says):
        load(path)


def test_only_a_rayservice_is_read_as_one() -> None:
    assert RayService.read({"kind": "RayCluster"}) is None
    assert RayService.read("text") is None
    with pytest.raises(ManifestUnusable, match=r"spec\.upgradeStrategy\.type"):
        RayService.read(rayservice() | {"spec": {"upgradeStrategy": {"type": "Never"}}})


@pytest.mark.parametrize(
    ("ahead_s", "status"),
    [(0.4, "ok"), (-2.0, "ok"), (2.5, "warn"), (-9.0, "warn"), (10.5, "fail"), (-3600.0, "fail")],
)
def test_clocks_apart_are_told_by_how_much(ahead_s: float, status: str) -> None:
    check = check_clock("clock", ahead_s, precision_s=2)
    assert check.status == status
    side = "as this" if status == "ok" else "ahead of" if ahead_s > 0 else "behind"
    assert side in check.found


def test_a_job_table_is_looked_at_and_left_as_it_is(database_url: str) -> None:
    config = JobStoreConfig(url=database_url)
    with Database(database_url).writing() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '0005'"))
    checks = by_name(check_job_table(config))
    assert checks["job table"].status == "warn"
    assert "0006" in checks["job table"].found
    assert by_name(check_job_table(config))["job table"].status == "warn"  # nothing was migrated
    clock = {"clock of Postgres": "ok"} if database_url.startswith("postgres") else {}
    assert {n: c.status for n, c in checks.items() if n != "job table"} == clock


def test_a_job_table_of_a_newer_program_is_refused(database_url: str) -> None:
    with Database(database_url).writing() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    (check,) = check_job_table(JobStoreConfig(url=database_url))
    assert check.status == "fail"
    assert "newer than this program's" in check.found


def test_a_job_table_that_is_not_there_is_told_from_one_that_can_be_made(tmp_path: Path) -> None:
    (missing,) = check_job_table(None)
    (new,) = check_job_table(JobStoreConfig(url=f"sqlite:///{tmp_path}/jobs.sqlite"))
    (nowhere,) = check_job_table(JobStoreConfig(url=f"sqlite:///{tmp_path}/no/jobs.sqlite"))
    (refused,) = check_job_table(JobStoreConfig(url="postgresql+psycopg://a:b@127.0.0.1:9/reel"))
    assert [c.status for c in (missing, new, nowhere, refused)] == ["fail", "ok", "fail", "fail"]
    assert not (tmp_path / "jobs.sqlite").exists()


def test_secrets_are_the_environments_and_real() -> None:
    given = {
        "a": ("s3cr3t", "environment SHOPREEL_A"),
        "b": ("s3cr3t", "production.yaml"),
        "c": ("postgresql://reel:REPLACE@db/reel", "environment SHOPREEL_C"),
    }
    checks = list(check_secrets(given, "production.yaml"))
    assert [check.status for check in checks] == ["ok", "warn", "fail"]
    assert not any("s3cr3t" in f"{check}" for check in checks)


def test_weights_elsewhere_are_not_fetched_here(tiny: ModelFolder) -> None:
    here = check_nodes_weights(ModelConfig(source=str(tiny.path)))
    there = check_nodes_weights(ModelConfig(source="/models/i2vgen-xl"))
    hub = check_nodes_weights(ModelConfig(source="ali-vilab/i2vgen-xl", revision="0" * 40))
    loose = check_nodes_weights(ModelConfig(source="ali-vilab/i2vgen-xl"))
    assert [c.status for c in (here, there, hub, loose)] == ["ok", "warn", "warn", "fail"]
    assert "not on this machine" in there.found
