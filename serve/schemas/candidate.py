"""The clips that are made for a video, and what was measured of each."""

from dataclasses import asdict, fields

from pydantic import BaseModel, Field

from storage.jobs import Job, JobStatus
from video.quality import Quality


class Candidate(BaseModel):
    """One clip. A measure that is null was not taken: the clip is not there, the photo was gone,
    weights are not given, or nothing could be followed from frame to frame."""

    candidate: int = Field(description="counted from 0")
    seed: int
    status: JobStatus
    selected: bool = Field(description="it is the video")
    kept: bool = Field(description="its files are at `content?candidate=`")
    error_code: str | None = Field(description="where it failed")
    score: float | None = Field(
        description="0..1, to order clips of one photo: likeness to the product x steadiness x"
        " liveliness; near 0 for a still picture as for noise"
    )
    subject_first: float | None = Field(
        description="SSIM of frame 0 to the photo on the product; 1 is equal"
    )
    subject_mean: float | None = Field(description="the same, mean over frames")
    color_shift: float | None = Field(
        description="product's colours against the photo's, mean over frames; CIELAB units"
    )
    lpips_first: float | None = Field(
        description="perceptual distance of frame 0 from the photo; 0 is equal"
    )
    lpips_mean: float | None = Field(description="the same, mean over frames")
    flicker: float | None = Field(
        description="brightness that goes up and down in what moves along; share of full range"
    )
    warp_error: float | None = Field(
        description="difference of neighbours after motion; share of full range"
    )
    tracked: float | None = Field(
        description="0..1, share of pixels that can be followed to the next frame"
    )
    motion: float | None = Field(description="mean way of a pixel per frame, share of short side")

    @classmethod
    def of(cls, job: Job) -> list["Candidate"]:
        """In their order. Of a job of one clip none before it has ended."""
        if job.result is None and not job.children:
            return []
        return [cls._of(number, part, job.chosen) for number, part in enumerate(job.parts)]

    @classmethod
    def _of(cls, number: int, part: Job, chosen: int | None) -> "Candidate":
        quality = part.result and part.result.quality
        measured = asdict(quality) if quality else dict.fromkeys(f.name for f in fields(Quality))
        return cls(
            candidate=number,
            seed=part.request.sampling.seed,
            status=part.status,
            selected=number == chosen,
            kept=part.result is not None and not part.expired,
            error_code=part.error_code,
            **measured,
        )
