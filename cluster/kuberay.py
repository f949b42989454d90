"""A RayService of KubeRay, as far as a rollout depends on it: the Serve config inside it, the pools
that its nodes come from, and how it is upgraded."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

_GPU = "nvidia.com/gpu"


class ManifestUnusable(Exception):
    """The manifest has not the form of a RayService; says where."""


class _Part(BaseModel):
    """Of a manifest; whatever else it says is KubeRay's affair."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel)


class _Named(_Part):
    name: str


class _Port(_Part):
    name: str = ""
    container_port: int


class _Resources(_Part):
    requests: dict[str, str | float] = {}
    limits: dict[str, str | float] = {}


class _EnvSource(_Part):
    config_map_ref: _Named | None = None
    secret_ref: _Named | None = None

    def __str__(self) -> str:
        kinds = (("ConfigMap", self.config_map_ref), ("Secret", self.secret_ref))
        return " ".join(f"{kind} {source.name}" for kind, source in kinds if source)


class _Container(_Part):
    env: tuple[_Named, ...] = ()
    env_from: tuple[_EnvSource, ...] = ()
    ports: tuple[_Port, ...] = ()
    resources: _Resources = _Resources()


class _PodSpec(_Part):
    containers: tuple[_Container, ...] = Field(min_length=1)


class _Template(_Part):
    spec: _PodSpec


class Pool(_Part):
    """One of the cluster's groups of nodes, which are pods of one template."""

    group_name: str = "head"
    labels: dict[str, str] = {}
    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=0)
    num_of_hosts: int = Field(1, ge=1)
    ray_start_params: dict[str, str] = {}
    template: _Template

    @property
    def cpus(self) -> int:
        """What Ray books from on one node: as KubeRay and Ray's autoscaler reckon it."""
        if "num-cpus" in self.ray_start_params:
            return int(self.ray_start_params["num-cpus"])
        resources = self._ray.resources
        return _rounded_up(resources.limits.get("cpu", resources.requests.get("cpu", 0)))

    @property
    def gpus(self) -> int:
        if "num-gpus" in self.ray_start_params:
            return int(self.ray_start_params["num-gpus"])
        return _rounded_up(self._ray.resources.limits.get(_GPU, 0))

    @property
    def max_nodes(self) -> int:
        return self.max_replicas * self.num_of_hosts

    @property
    def variables(self) -> set[str]:
        """Of the environment of its replicas, by name: without those that KubeRay adds, and those
        that `variable_sources` bring."""
        return {variable.name for variable in self._ray.env}

    @property
    def variable_sources(self) -> tuple[str, ...]:
        """ConfigMaps and Secrets whose keys, unknown here, are variables too."""
        return tuple(map(str, self._ray.env_from))

    @property
    def serve_port(self) -> int | None:
        """Where KubeRay takes Serve's proxy to listen."""
        ports = {port.name: port.container_port for port in self._ray.ports}
        return ports.get("serve")

    @property
    def _ray(self) -> _Container:
        return self.template.spec.containers[0]


class AuthOptions(_Part):
    """Of Ray's own ports."""

    mode: Literal["disabled", "token"] = "disabled"
    secret_name: str | None = None  # left out: KubeRay makes one, with a token of its own
    enable_k8s_token_auth: bool = Field(False, alias="enableK8sTokenAuth")


class _Cluster(_Part):
    auth_options: AuthOptions = AuthOptions()
    head_group_spec: Pool
    worker_group_specs: tuple[Pool, ...] = ()


class _Upgrade(_Part):
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"] = "NewCluster"


class _Spec(_Part):
    upgrade_strategy: _Upgrade = _Upgrade()
    serve_config_v2: str = Field(alias="serveConfigV2")
    ray_cluster_config: _Cluster


class RayService(_Part):
    spec: _Spec

    @classmethod
    def read(cls, document: Any) -> "RayService | None":
        """None for a document of another kind. Raises ManifestUnusable."""
        if not isinstance(document, Mapping) or document.get("kind") != "RayService":
            return None
        try:
            return cls.model_validate(document)
        except ValidationError as e:
            (first, *_) = e.errors(include_url=False, include_input=False)
            place = ".".join(map(str, first["loc"]))
            raise ManifestUnusable(f"no valid RayService: {place}: {first['msg']}") from None

    @property
    def serve_config(self) -> Any:
        """Raises yaml.YAMLError."""
        return yaml.safe_load(self.spec.serve_config_v2)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The head first."""
        cluster = self.spec.ray_cluster_config
        return cluster.head_group_spec, *cluster.worker_group_specs

    @property
    def auth(self) -> AuthOptions:
        return self.spec.ray_cluster_config.auth_options

    @property
    def runs_two_clusters(self) -> bool:
        """While it is upgraded, each with a head of its own."""
        return self.spec.upgrade_strategy.type != "None"


def _rounded_up(quantity: str | float) -> int:
    """A Kubernetes quantity of CPUs or cards."""
    if isinstance(quantity, str) and quantity.endswith("m"):
        return math.ceil(float(quantity[:-1]) / 1000)
    return math.ceil(float(quantity))
