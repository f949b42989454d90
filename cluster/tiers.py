"""GPU tiers: classes of card that run the UNet, told apart by node labels of our own.

Ray's accelerator names do not tell an A100-40 from an A100-80 and call a 4090 `GeForce-RTX-4090`;
nodes are therefore started with `--labels tier=NAME,vram-gb=N`.
"""

from collections.abc import Sequence

from pydantic import Field

from cluster.stage import StageConfig


class TierConfig(StageConfig):
    """One deployment of the Denoiser on one class of card."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="also the node label tier=NAME")
    vram_gb: float = Field(0.0, ge=0, description="of one whole card; 0 for a CPU tier")

    @property
    def deployment_name(self) -> str:
        return f"Denoiser-{self.name}"


def missing_tiers(
    tiers: Sequence[TierConfig], node_labels: Sequence[dict[str, str]]
) -> list[TierConfig]:
    """Tiers that must have a replica but match no node.

    Ray would wait for such a node for ever and say nothing.
    """
    return [
        tier
        for tier in tiers
        if tier.min_replicas > 0
        and not any(tier.labels.items() <= labels.items() for labels in node_labels)
    ]
