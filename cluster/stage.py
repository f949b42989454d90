"""How one deployment is sized and placed: replicas, resources, concurrency."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_METRICS_INTERVAL_S = 1
"""How soon autoscaling sees load. Serve marks it deprecated, but 2.60 reads nothing else."""


LEAVE_POLL_S = 0.2
"""How often a leaving replica looks whether its requests have ended; Serve's 2 s are long."""


HEALTH_PERIOD_S = 3.0
"""Three failures in a row replace a replica; of one whose process has ended, the first does."""


class StageConfig(BaseModel):
    """Replicas, resources and concurrency of one deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float = Field(1.0, gt=0, description="per replica; above it, scale up")
    max_ongoing_requests: int = Field(2, ge=1, description="one at work and the next one's inputs")
    upscale_delay_s: float = Field(3.0, ge=0)
    downscale_delay_s: float = Field(120.0, ge=0)
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0, description="a fraction shares the card and caps its memory")
    labels: dict[str, str] = Field(default_factory=dict, description="node labels to run on")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: cuda where num_gpus is above 0; cpu rehearses GPU nodes without"
    )
    threads: int = Field(1, ge=1, description="compute threads; Ray would set one below one CPU")
    stall_s: float = Field(300.0, gt=0, description="work on one clip that takes longer is a hang")
    drain_s: float = Field(
        30.0, ge=0, description="for work in flight when a replica is stopped, by SIGTERM too"
    )

    @model_validator(mode="after")
    def _range(self) -> "StageConfig":
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}"
            )
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise ValueError(f"num_gpus {self.num_gpus}: above one, Ray knows whole cards only")
        return self

    @property
    def torch_device(self) -> str:
        if self.device != "auto":
            return self.device
        return "cuda" if self.num_gpus else "cpu"

    def options(self, name: str) -> dict[str, Any]:
        """Keyword arguments of `ray.serve.deployment`."""
        actor: dict[str, Any] = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        if self.labels:
            actor["label_selector"] = dict(self.labels)
        return {
            "name": name,
            "ray_actor_options": actor,
            "max_ongoing_requests": self.max_ongoing_requests,
            "graceful_shutdown_timeout_s": self.drain_s,
            "graceful_shutdown_wait_loop_s": LEAVE_POLL_S,
            "health_check_period_s": HEALTH_PERIOD_S,
            "autoscaling_config": {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": self.target_ongoing_requests,
                "upscale_delay_s": self.upscale_delay_s,
                "downscale_delay_s": self.downscale_delay_s,
                "metrics_interval_s": _METRICS_INTERVAL_S,
            },
        }
