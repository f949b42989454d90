"""The shipped Kubernetes manifests, and the pods that KubeRay makes of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = Path(__file__).parents[1] / "cluster" / "kubernetes"
RAYSERVICE = KUBERNETES / "rayservice.yaml"


def documents(optional: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """File and content of every document; `optional`: with what stands behind `#|`."""
    for path in sorted(KUBERNETES.glob("*.yaml")):
        text = path.read_text()
        for document in yaml.safe_load_all(text.replace("#| ", "") if optional else text):
            yield path.name, document


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for _, document in documents() if document["kind"] == kind]


def rayservice(optional: bool = False) -> dict[str, Any]:
    """A copy to change, in which no two parts are one object."""
    (found,) = [d for name, d in documents(optional) if name == RAYSERVICE.name]
    document: dict[str, Any] = json.loads(json.dumps(found))
    return document


def groups(service: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By name, the head's first: `headgroup`, as KubeRay calls it."""
    cluster = service["spec"]["rayClusterConfig"]
    workers = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {"headgroup": cluster["headGroupSpec"], **workers}


@dataclass(frozen=True)
class Pod:
    name: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        container: dict[str, Any] = self.spec["containers"][0]
        return container

    @property
    def ports(self) -> dict[str, int]:
        return {p["name"]: p["containerPort"] for p in self.container.get("ports", ())}

    def suits(self, selector: Mapping[str, Any]) -> bool:
        assert set(selector) <= {"matchLabels"}, "a selector that this does not know"
        return bool(selector.get("matchLabels", {}).items() <= self.labels.items())


def ray_pods(optional: bool = False) -> list[Pod]:
    """One of each group, with the labels that KubeRay adds."""
    pods = []
    for name, group in groups(rayservice(optional)).items():
        template = group["template"]
        added = {
            "ray.io/group": name,
            "ray.io/node-type": "head" if name == "headgroup" else "worker",
        }
        labels = {**template["metadata"]["labels"], **group["labels"], **added}
        pods.append(Pod(name, labels, template["spec"]))
    return pods


def other_pods() -> list[Pod]:
    """Of the Jobs."""
    jobs = {job["metadata"]["name"]: job["spec"] for job in of_kind("Job")}
    for cron in of_kind("CronJob"):
        jobs[cron["metadata"]["name"]] = cron["spec"]["jobTemplate"]["spec"]
    return [
        Pod(name, job["template"]["metadata"]["labels"], job["template"]["spec"])
        for name, job in jobs.items()
    ]
