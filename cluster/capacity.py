"""Whether machines hold what a configuration starts with: node labels, CPUs node by node, and GPUs
card by card.

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
    booked_cpus: list[float] = field(default_factory=list)  # num_cpus of each replica on it

    @classmethod
    def of(cls, labels: Mapping[str, str], cards: int, cpus: float = math.inf) -> "Node":
        return cls(labels, [Card() for _ in range(cards)], cpus)

    @property
    def vram_gb(self) -> float | None:
        """Of each card, where the node says so."""
        return float(self.labels[VRAM_LABEL]) if VRAM_LABEL in self.labels else None

    @property
    def free_cpus(self) -> float:
        return round(self.cpus - sum(self.booked_cpus), 4)

    def suits(self, stage: StageConfig) -> bool:
        return stage.labels.items() <= self.labels.items()

    def take(self, stage: StageConfig) -> bool:
        """Books one replica of it; False where it finds no room."""
        count, share = math.ceil(stage.num_gpus), min(1.0, stage.num_gpus)
        fitting = [card for card in self.cards if card.free >= share]
        if not self.suits(stage) or len(fitting) < count or self.free_cpus < stage.num_cpus:
            return False
        for card in fitting[:count]:
            card.shares.append(share)
        self.booked_cpus.append(stage.num_cpus)
        return True


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
    if lack := _lack_of_cpus(stages, nodes):
        raise NoRoom(f"{lack}: lower num_cpus or min_replicas, or start nodes with more")
    if left_over := book(stages, nodes):
        cards, cpus = sum(len(node.cards) for node in nodes), sum(node.cpus for node in nodes)
        wanted = [
            f"{n} ({stages[n].num_gpus:g} GPU, {stages[n].num_cpus:g} CPU)" for n in left_over
        ]
        raise NoRoom(
            f"Ray finds {cards} GPUs and {cpus:g} CPUs, and beside what else must run no node has"
            f" room for {', '.join(wanted)}: lower min_replicas, num_gpus or num_cpus, or use"
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


def without_node(stages: Mapping[str, StageConfig], nodes: Sequence[Node]) -> list[str]:
    """Deployments that must have a replica and whose labels no node has."""
    return [
        name
        for name, stage in stages.items()
        if stage.min_replicas > 0 and not any(node.suits(stage) for node in nodes)
    ]


def _lack_of_cpus(stages: Mapping[str, StageConfig], nodes: Sequence[Node]) -> str | None:
    """Why replicas that must run would wait for CPUs, however they are laid out; None where no
    sum says so."""
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
    """Books GPUs and CPUs of every replica that must run on `nodes`, first fit: those that the
    fewest nodes suit first, then the largest; what needs no card goes where the fewest are. Returns
    the deployments for which no room was left.

    There may be a better packing than this one finds, but Ray starts replicas as they come and
    does not look for it either."""
    replicas = [(name, stage) for name, stage in stages.items() for _ in range(stage.min_replicas)]
    suiting = {name: sum(node.suits(stage) for node in nodes) for name, stage in stages.items()}
    replicas.sort(key=lambda r: (suiting[r[0]], -r[1].num_gpus, -r[1].num_cpus))
    bare_first = sorted(nodes, key=lambda node: len(node.cards))
    left_over = [
        name
        for name, stage in replicas
        if not any(node.take(stage) for node in (nodes if stage.num_gpus else bare_first))
    ]
    return list(dict.fromkeys(left_over))
