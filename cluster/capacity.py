"""Whether machines hold what a configuration starts with: node labels, and GPUs card by card.

Ray would wait for a node that is missing, or too small, for ever and say nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.stage import StageConfig

CUDA_CONTEXT_GB = 0.6
"""About what a process takes of a card besides the memory that PyTorch caps to its fraction."""


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

    @classmethod
    def of(cls, labels: Mapping[str, str], cards: int) -> "Node":
        return cls(labels, [Card() for _ in range(cards)])

    def suits(self, stage: StageConfig) -> bool:
        return stage.labels.items() <= self.labels.items()


def without_node(stages: Mapping[str, StageConfig], nodes: Sequence[Node]) -> list[str]:
    """Deployments that must have a replica and whose labels no node has."""
    return [
        name
        for name, stage in stages.items()
        if stage.min_replicas > 0 and not any(node.suits(stage) for node in nodes)
    ]


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
