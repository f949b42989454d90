"""GPU tiers: classes of card that run the UNet, told apart by node labels of our own.

Ray's accelerator names do not tell an A100-40 from an A100-80 and call a 4090 `GeForce-RTX-4090`;
nodes are therefore started with `--labels tier=NAME`.
"""

from pydantic import Field

from cluster.stage import StageConfig


class TierConfig(StageConfig):
    """One deployment of the Denoiser on one class of card."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    vram_gb: float = Field(0.0, ge=0, description="of one whole card; 0: not known")

    @property
    def deployment_name(self) -> str:
        return f"Denoiser-{self.name}"
