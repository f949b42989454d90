"""GPU tiers: classes of card that run the UNet, told apart by node labels of our own.

Ray's accelerator names do not tell an A100-40 from an A100-80 and call a 4090 `GeForce-RTX-4090`;
nodes are therefore started with `--labels tier=NAME`.
"""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from cluster.stage import StageConfig
from diffusion.engine_config import EngineConfig


class TierConfig(StageConfig):
    """One deployment of the Denoiser on one class of card."""

    denoises: ClassVar[bool] = True

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    vram_gb: float = Field(0.0, ge=0, description="of one whole card; 0: not known")
    max_ongoing_requests: int = Field(4, ge=1, description="jobs in flight per replica")
    interactive_slots: int = Field(1, ge=0, description="of these, kept free of batch jobs")
    slo_s: float = Field(60.0, gt=0, description="wanted: a backlog is worked off in so long")
    cold_start_s: float = Field(60.0, gt=0, description="until a first replica is ready")
    stall_s: float = Field(120.0, gt=0, description="a UNet step that takes longer is a hang")
    self_test_s: float = Field(60.0, gt=0, description="an idle replica tries a step so often")
    orphan_s: float = Field(20.0, gt=0, description="no Dispatcher for so long: hand clips out")
    engine: EngineConfig = Field(default_factory=EngineConfig)
    tflops: float = Field(40.0, gt=0, description="sustained, before anything was measured")
    cost_per_hour: float | None = Field(
        None, ge=0, description="of one replica, for usage.cost; in the config's `currency`"
    )

    @model_validator(mode="after")
    def _batch_has_a_slot(self) -> "TierConfig":
        if self.interactive_slots >= self.max_ongoing_requests:
            raise ValueError(
                f"interactive_slots {self.interactive_slots} leaves batch jobs no slot of"
                f" max_ongoing_requests {self.max_ongoing_requests}"
            )
        return self

    @property
    def batch_slots(self) -> int:
        """Jobs in flight per replica that may be batch jobs."""
        return self.max_ongoing_requests - self.interactive_slots

    @property
    def deployment_name(self) -> str:
        return f"Denoiser-{self.name}"


class CameraTierConfig(TierConfig):
    """The replicas that render camera moves on CPUs. A tier like the others, with slots and a
    queue, but one that takes the clips without a UNet step, and no others."""

    denoises: ClassVar[bool] = False

    name: Literal["camera"] = "camera"
    max_ongoing_requests: int = Field(2, ge=1)
    cold_start_s: float = Field(5.0, gt=0)
    stall_s: float = Field(120.0, gt=0)
    mpx_per_s: float = Field(20.0, gt=0, description="frames' megapixels that a replica renders")
    least_area_px: int = Field(
        512**2,
        gt=0,
        description="of a frame whose size is left out: presets of small models have less",
    )
    max_area_px: int = Field(1920 * 1080, gt=0, description="of a frame")
    max_clip_bytes: int = Field(
        400_000_000, gt=0, description="of all frames together, which pass the object store"
    )

    @property
    def deployment_name(self) -> str:
        return "CameraRenderer"
