"""Whether machines hold what a configuration starts with: node labels, and GPUs card by card.

Ray would wait for a node that is missing, or too small, for ever and say nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.stage import StageConfig

CUDA_CONTEXT_GB = 0.6
"""About what a process takes of a card besides the memory that PyTorch caps to its fraction."""


VRAM_LABEL = "vram-gb"
"""Node label with the memory of each of its cards."""


class NoRoom(Exception):
    """A deployment can never start on these nodes; the message names it and what it lacks."""


@dataclass(slots=True)
class Card:
    shares: list[float] = field(default_factory=list)  # num_gpus of each replica on it, at most 1

    @property
    def free(self) -> float:
        return round(1 - sum(self.shares), 4)  # Ray counts in ten thousandths

    def lacks_gb(self, vram_gb: float) -> float:
        """How much the caps and CUDA contexts of several replicas exceed a card of `vram_gb`."""
        if len(self.shares) < 2:
            return 0.0
        taken = sum(self.shares) * vram_gb + len(self.shares) * CUDA_CONTEXT_GB
        return max(0.0, round(taken - vram_gb, 2))


@dataclass(frozen=True, slots=True)
class Node:
    labels: Mapping[str, str]
    cards: list[Card]
    cpus: float = math.inf  # as Ray books them

    @classmethod
    def of(cls, labels: Mapping[str, str], cards: int, cpus: float = math.inf) -> "Node":
        return cls(labels, [Card() for _ in range(cards)], cpus)

    @property
    def vram_gb(self) -> float | None:
        """Of each card, where the node says so."""
        return float(self.labels[VRAM_LABEL]) if VRAM_LABEL in self.labels else None

    def suits(self, stage: StageConfig) -> bool:
        return stage.labels.items() <= self.labels.items()


def require_room(stages: Mapping[str, StageConfig], ray_nodes: Iterable[Mapping[str, Any]]) -> None:
    """Raises NoRoom unless the replicas that must run fit on the nodes that `ray.nodes()` lists."""
    nodes = [
        Node.of(
            node["Labels"], int(node["Resources"].get("GPU", 0)), node["Resources"].get("CPU", 0)
        )
        for node in ray_nodes
        if node["Alive"]
    ]
    for name in without_node(stages, nodes):
        raise NoRoom(
            f"no node has the labels {dict(stages[name].labels)} of {name}: start one with"
            f" `ray start --labels`, or correct the labels; the nodes have"
            f" {[dict(node.labels) for node in nodes]}"
        )
    if left_over := book(stages, nodes):
        raise NoRoom(
            f"Ray finds {sum(len(node.cards) for node in nodes)} GPUs, and none of them has room"
            f" for {', '.join(left_over)}: lower min_replicas or num_gpus, or use"
            " cluster/local.yaml on a machine without GPUs"
        )
    for node in nodes:
        for card in node.cards:
            if node.vram_gb and (lack_gb := card.lacks_gb(node.vram_gb)):
                raise NoRoom(
                    f"{' + '.join(f'{share:g}' for share in card.shares)} of a card of"
                    f" {node.vram_gb:g} GB and {CUDA_CONTEXT_GB} GB per process for CUDA are"
                    f" {lack_gb:g} GB too much: lower num_gpus of those that share it"
                )
    if lack := _lack_of_cpus(stages, nodes):
        raise NoRoom(f"{lack}: lower num_cpus or min_replicas, or start nodes with more")


def without_node(stages: Mapping[str, StageConfig], nodes: Sequence[Node]) -> list[str]:
    """Deployments that must have a replica and whose labels no node has."""
    return [
        name
        for name, stage in stages.items()
        if stage.min_replicas > 0 and not any(node.suits(stage) for node in nodes)
    ]


def _lack_of_cpus(stages: Mapping[str, StageConfig], nodes: Sequence[Node]) -> str | None:
    """Why replicas that must run would wait for CPUs; None where no sum says so."""
    for name, stage in stages.items():
        if not stage.min_replicas:
            continue
        cpus = [node.cpus for node in nodes if node.suits(stage)]
        if stage.num_cpus > max(cpus):
            return (
                f"a replica of {name} books {stage.num_cpus:g} CPUs and no node for it has more"
                f" than {max(cpus):g}"
            )
        # Those of the same nodes, or of some of them.
        bound = [other for other in stages.values() if stage.labels.items() <= other.labels.items()]
        needed = sum(other.min_replicas * other.num_cpus for other in bound)
        if needed > sum(cpus):
            where = f" on nodes labelled {dict(stage.labels)}" if stage.labels else ""
            return (
                f"the replicas that must run{where} book {needed:g} CPUs and Ray has {sum(cpus):g}"
            )
    return None


def book(stages: Mapping[str, StageConfig], nodes: Sequence[Node]) -> list[str]:
    """Books the GPUs of every replica that must run on the cards of `nodes`, first fit: those with
    labels first, then the largest. Returns the deployments for which no card was left."""
    replicas = [
        (name, stage)
        for name, stage in stages.items()
        for _ in range(stage.min_replicas)
        if stage.num_gpus > 0
    ]
    replicas.sort(key=lambda replica: (not replica[1].labels, -replica[1].num_gpus))
    left_over = [name for name, stage in replicas if not _book_one(stage, nodes)]
    return list(dict.fromkeys(left_over))


def _book_one(stage: StageConfig, nodes: Sequence[Node]) -> bool:
    count, share = max(1, int(stage.num_gpus)), min(1.0, stage.num_gpus)
    for node in nodes:
        fitting = [card for card in node.cards if card.free >= share]
        if node.suits(stage) and len(fitting) >= count:
            for card in fitting[:count]:
                card.shares.append(share)
            return True
    return False
