"""Quality presets: what `preview`, `standard` and `high` mean. A deployment may override them."""

from pydantic import BaseModel, ConfigDict, Field

from diffusion.params import Sampler, TimestepSpacing

NEGATIVE_PROMPT = (
    "distorted, discontinuous, ugly, blurry, low resolution, motionless, static, disfigured"
)
"""After the model authors' own default (ali-vilab/i2vgen-xl)."""


MOTION_STRENGTH = 0.4
"""Where a request names a camera motion and no strength: most of the move stays, for two fifths of
the steps."""

DEFAULT_PRESET = "standard"
"""Where a request names neither preset nor category."""


class Preset(BaseModel):
    """Defaults of one quality level; every value can be overridden by the request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    area_px: int = Field(gt=0, description="of one frame; the sides follow the photo's ratio")
    num_frames: int = Field(ge=8, le=32)
    fps: int = Field(ge=1, le=60, description="playback rate of the generated frames")
    num_inference_steps: int = Field(ge=1, le=200)
    guidance_scale: float = Field(9.0, ge=1, le=20)
    motion_fps: int = Field(16, ge=1, le=60, description="the UNet's motion condition")
    sampler: Sampler = Sampler.DDIM
    timestep_spacing: TimestepSpacing = TimestepSpacing.CHECKPOINT
    guidance_start: float = Field(0.0, ge=0, le=1, description="of the steps, done without")
    guidance_stop: float = Field(1.0, ge=0, le=1, description="later steps cost half")


def default_presets() -> dict[str, Preset]:
    """Sizes of the published weights: 512p is the area of 512x512, 768p that of 768x768."""
    return {
        "preview": Preset(area_px=512**2, num_frames=8, fps=8, num_inference_steps=30),
        "standard": Preset(area_px=512**2, num_frames=16, fps=8, num_inference_steps=50),
        "high": Preset(area_px=768**2, num_frames=24, fps=12, num_inference_steps=80),
    }
