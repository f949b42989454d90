"""A video as its caller sees it, in the shape of OpenAI's with flat extensions."""

from collections.abc import Iterable, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.eta import Eta
from diffusion.params import Priority
from serve.schemas.camera import CameraMotion
from serve.schemas.candidate import Candidate
from storage.jobs import NOTHING_GENERATED, Feedback, Job, JobEvent, JobStatus, Select, Stage

MEMORY_LADDER = (
    "decode_chunk",
    "chunked_unet",
    "fewer_rows",
    "solo_rows",
    "other_tier",
    "smaller_size",
    "fewer_frames",
    "camera_move",
)


class VideoError(BaseModel):
    code: str
    message: str


class Usage(BaseModel):
    unet_steps: int = Field(description="that were run, of all candidates")
    gpu_seconds: float = Field(description="seconds in the denoiser, of all candidates")
    peak_vram_bytes: int | None = Field(
        description="held on the denoiser's GPU during their steps, its weights and whoever shared"
        " a step included; null: not made on a GPU"
    )
    cost: float | None = Field(
        description="of these, at the prices of their tiers today; null: one has no price"
    )

    @classmethod
    def of(cls, parts: Iterable[Job], hourly: Mapping[str, float]) -> "Usage":
        """`hourly`: what a replica of each tier costs an hour, as far as that is known."""
        made = [part for part in parts if part.made_its_result]
        seconds = [(part.timings.get("denoising", 0.0), part.tier or "") for part in made]
        costs = [s / 3600 * hourly[tier] for s, tier in seconds if s and tier in hourly]
        known = all(tier in hourly for s, tier in seconds if s)
        peaks = [part.result.peak_vram_bytes or 0 for part in made if part.result]
        return cls(
            unet_steps=sum(part.unet_steps for part in made),
            gpu_seconds=sum(s for s, _ in seconds),
            peak_vram_bytes=max(peaks, default=0) or None,
            cost=sum(costs) if known else None,
        )


class Downgrade(BaseModel):
    """What was done otherwise than asked because memory ran out."""

    step: str = Field(
        description="smaller_size and fewer_frames change the video; camera_move: nothing was"
        " generated; decode_chunk, chunked_unet, fewer_rows, solo_rows and other_tier change no"
        " pixel"
    )
    detail: str

    @classmethod
    def of(cls, events: Iterable[JobEvent]) -> list["Downgrade"]:
        return [cls(step=e.kind, detail=e.detail) for e in events if e.kind in MEMORY_LADDER]


class VideoFeedback(BaseModel):
    """What a person thinks of a video; the last word counts."""

    model_config = ConfigDict(extra="forbid")

    rating: int = Field(ge=-1, le=1, strict=True, description="-1 bad, 0 indifferent, 1 good")
    candidate: int | None = Field(
        None, ge=0, strict=True, description="which one it is about; left out: the video as it is"
    )
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default_factory=list, max_length=16
    )

    @classmethod
    def of(cls, feedback: Feedback) -> "VideoFeedback":
        return cls(rating=feedback.rating, tags=list(feedback.tags), candidate=feedback.candidate)


class Video(BaseModel):
    """A job as its caller sees it."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: JobStatus
    progress: int = Field(description="percent")
    created_at: int
    completed_at: int | None
    expires_at: int | None
    prompt: str
    size: str
    seconds: str
    remixed_from_video_id: str | None = None
    error: VideoError | None
    stage: str | None = Field(description=f"while it is in progress: {', '.join(Stage)}")
    step: int = Field(description="denoising steps done, of all candidates")
    steps: int = Field(description="those to do; fewer than asked for by their motion_strength")
    queue_position: int | None = Field(
        description="of the first clip that waits: clips served before it; exact among the first"
        " 500 of a priority, further back within 64 and up to a second old"
    )
    eta_seconds: float | None = Field(description="until it is completed, as foreseen now")
    eta_error: float | None = Field(
        description="how far such forecasts were off lately: median of |real - foreseen| / real"
    )
    attempt: int
    tier: str | None = Field(description="class of GPU that makes or made it")
    model_revision: str = Field(description="sha256 of the model's weights")
    shared_with: str | None = Field(
        description="earlier video whose stored result this one took, without a GPU; `ID_cN`: its"
        " candidate N"
    )
    seed: int = Field(description="of the first candidate")
    n: int = Field(description="candidates asked for")
    select: Select
    preset: str
    category: str | None
    priority: Priority
    downgrades: list[Downgrade]
    num_frames: int
    fps: float = Field(description="playback rate of generated frames")
    output_num_frames: int = Field(description="in the file, interpolated ones included")
    output_fps: float = Field(description="playback rate of the file")
    made_by: str | None = Field(
        description=f"{NOTHING_GENERATED!r} of model `camera`, and where `downgrade` allowed that;"
        " null: the model generates it"
    )
    camera_motion: CameraMotion | None = Field(
        description="at whose frames the clip begins, or whose frames it is where nothing is"
        " generated"
    )
    camera_words: list[str] = Field(
        description="of the prompt, that asked for the camera_motion; none: it was given, or chosen"
    )
    camera_layers: int | None = Field(
        description="of a clip that was not generated: 2 in an orbit whose product was found and"
        " moves apart from what is behind it, else 1"
    )
    motion_strength: float | None = Field(description="null: the clip begins at no camera_motion")
    timings: dict[str, float] = Field(
        description="seconds queued and of each stage, of the selected clip"
    )
    candidates: list[Candidate] = Field(
        description="every clip; where there is but one, empty until it is completed"
    )
    usage: Usage | None
    sku: str | None
    batch_id: str | None = Field(description="of the catalogue run that asked for it")
    metadata: dict[str, str]
    warnings: list[str] = Field(description="what about photo or prompt may spoil the video")
    feedback: VideoFeedback | None

    @classmethod
    def of(
        cls,
        job: Job,
        queue_position: int | None = None,
        eta: Eta | None = None,
        kept_s: float | None = None,
        hourly: Mapping[str, float] = MappingProxyType({}),
    ) -> "Video":
        """`kept_s`: how long results are kept; None: for ever. `hourly`: costs of the tiers."""
        request, sampling, output = job.request, job.request.sampling, job.request.output
        result = job.result
        is_rendered = sampling.is_rendered or (result is not None and result.is_rendered)
        camera = request.camera(is_rendered)
        made = [job.parts[job.chosen]] if job.chosen is not None else []
        played = (sampling.num_frames - 1) * (output.inbetweens + 1) + 1
        width, height = sampling.width, sampling.height
        if result is not None:  # it may be a smaller clip than was asked for
            width, height, played = result.width, result.height, result.frames
        output_fps = output.fps * (output.inbetweens + 1)
        return cls(
            id=job.id,
            model=request.model,
            status=job.status,
            progress=_percent(job),
            created_at=int(job.created_at),
            completed_at=None if job.completed_at is None else int(job.completed_at),
            expires_at=_expires_at(job, kept_s),
            prompt=sampling.prompt,
            size=f"{width}x{height}",
            seconds=f"{played / output_fps:g}",
            error=(
                VideoError(code=job.error_code, message=job.error_message or job.error_code)
                if job.error_code and job.status is JobStatus.FAILED
                else None
            ),
            stage=job.stage if job.status is JobStatus.IN_PROGRESS else None,
            step=sum(part.unet_steps if part.result else part.step for part in job.parts),
            steps=sum(part.unet_steps for part in job.parts),
            queue_position=queue_position,
            eta_seconds=eta and round(eta.seconds, 1),
            eta_error=eta and eta.error and round(eta.error, 3),
            attempt=job.attempt,
            tier=job.tier,
            model_revision=request.model_revision,
            shared_with=_shared_with(made),
            seed=sampling.seed,
            n=request.candidates,
            select=request.select,
            preset=request.preset,
            category=request.category,
            priority=request.priority,
            downgrades=Downgrade.of(chain(*(part.events for part in made or job.parts))),
            num_frames=sampling.num_frames,
            fps=output.fps,
            output_num_frames=played,
            output_fps=output_fps,
            camera_motion=camera and CameraMotion.of(camera),
            motion_strength=None if is_rendered else sampling.motion_strength,
            made_by=NOTHING_GENERATED if is_rendered else None,
            camera_words=list(request.camera_words),
            camera_layers=result and result.camera_layers,
            timings={} if job.chosen is None else job.parts[job.chosen].timings,
            candidates=Candidate.of(job),
            usage=Usage.of(job.parts, hourly) if made else None,
            sku=request.sku,
            batch_id=request.batch_id,
            metadata=dict(request.metadata),
            warnings=list(request.warnings),
            feedback=job.feedback and VideoFeedback.of(job.feedback),
        )


def _shared_with(made: Iterable[Job]) -> str | None:
    others = (part.result.made_by for part in made if part.result and not part.made_its_result)
    return next(others, None)


def _expires_at(job: Job, kept_s: float | None) -> int | None:
    if job.status is not JobStatus.COMPLETED or job.completed_at is None or kept_s is None:
        return None
    return int(job.completed_at + kept_s)


_PERCENT_AFTER_DENOISING = {
    Stage.DECODING: 92,
    Stage.ENCODING_VIDEO: 95,
    # No more: whatever storing fails of, the video is encoded again, and nobody's bar goes back.
    Stage.STORING: 95,
    Stage.WAITING_STORAGE: 95,
}


def _percent(job: Job) -> int:
    if job.status is JobStatus.COMPLETED:
        return 100
    if job.status is not JobStatus.IN_PROGRESS:
        return 0
    return sum(map(_percent_of_part, job.parts)) // len(job.parts)


def _percent_of_part(part: Job) -> int:
    """Denoising is nearly all of the work: it takes 2 to 90, the rest what is left."""
    if part.status.is_terminal:
        return 100
    if part.status is not JobStatus.IN_PROGRESS or part.stage is None:
        return 0
    done = part.step / max(1, part.request.sampling.unet_steps)
    return _PERCENT_AFTER_DENOISING.get(part.stage, 2 + int(88 * done))


class VideoList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(BaseModel):
    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True
