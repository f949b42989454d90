"""What callers may ask of an API replica."""

from pydantic import BaseModel, ConfigDict, Field

from video.photo import PhotoLimits
from video.photo_pool import PhotoPoolConfig


class Limits(BaseModel):
    """Of one request, of one tenant, and of all at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photo: PhotoLimits = Field(default_factory=PhotoLimits)
    photo_pool: PhotoPoolConfig = Field(default_factory=PhotoPoolConfig)
    max_body_bytes: int = Field(32 << 20, gt=0)
    max_body_bytes_at_once: int = Field(
        256 << 20,
        gt=0,
        description="of all bodies, photos and files that one API replica holds; above it 503",
    )
    max_area_px: int = Field(1280 * 768, gt=0, description="width x height of one frame")
    max_prompt_chars: int = Field(2000, gt=0)
    max_candidates: int = Field(
        8,
        ge=1,
        le=100,
        description="clips that one request makes; quotas of jobs count each, that of creations per"
        " minute counts the request",
    )
    max_lingering: int = Field(
        500, ge=0, description="event streams and waiting requests at once, per API replica"
    )
    max_lingering_per_tenant: int = Field(250, ge=0)
    max_queued_jobs: int = Field(
        100_000, gt=0, description="of all tenants; above it new ones are sent away with a 503"
    )
