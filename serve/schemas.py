"""The wire: what a caller sends and gets. The shape is OpenAI's Videos API with flat extensions."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Json,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import models_json_schema

from diffusion.params import Priority
from storage.jobs import Job, JobEvent, JobStatus
from video.photo import Fit

Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


MEMORY_LADDER = (
    "decode_chunk",
    "chunked_unet",
    "fewer_rows",
    "solo_rows",
    "other_tier",
    "smaller_size",
    "fewer_frames",
)


class ImageReference(BaseModel):
    """The photo inside a JSON body."""

    model_config = ConfigDict(extra="forbid")

    image_url: str = Field(
        max_length=40_000_000, description="a data URL: data:image/jpeg;base64,…"
    )


class CreateVideo(BaseModel):
    """Parameters of `POST /v1/videos`; what is left out comes from the preset."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, description="[subject] + [action] + [direction] + [ambience]")
    model: str | None = None
    preset: str = "standard"
    size: Annotated[str, Field(pattern=r"^[0-9]{1,5}x[0-9]{1,5}$")] | None = Field(
        None, description="WIDTHxHEIGHT in pixels, the same as `width` and `height`"
    )
    width: int | None = Field(None, gt=0, le=99_999)
    height: int | None = Field(None, gt=0, le=99_999)
    seconds: Annotated[str, Field(pattern=r"^\d{1,3}(\.\d{1,3})?$")] | None = Field(
        None, description="length of the clip: num_frames / fps"
    )
    num_frames: int | None = Field(None, ge=8, le=32)
    fps: int | None = Field(None, ge=1, le=60, description="playback rate of generated frames")
    enable_frame_interpolation: bool = Field(
        False, description="insert frames by optical flow until the file plays at 24 fps or more"
    )
    motion_fps: int | None = Field(None, ge=1, le=60, description="the model's motion condition")
    num_inference_steps: int | None = Field(None, ge=1, le=200)
    guidance_scale: float | None = Field(None, ge=1, le=20)
    negative_prompt: str | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)
    fit: Fit = Fit.CROP
    downgrade: Literal["auto", "never"] = Field(
        "never", description="auto: a smaller clip is better than none where memory runs out"
    )
    priority: Priority = Field(Priority.INTERACTIVE, description="batch waits for interactive")
    deadline_s: float | None = Field(
        None, gt=0, le=7 * 86_400, description="from now; nobody wants the video later than this"
    )
    title: str | None = Field(None, max_length=500)
    sku: str | None = Field(None, min_length=1, max_length=200)
    metadata: Metadata = Field(default_factory=dict)

    @field_validator("prompt", "negative_prompt", "title", "sku")
    @classmethod
    def _is_text(cls, text: str | None) -> str | None:
        if text is not None and "\x00" in text:
            raise ValueError("holds a NUL character")
        return text

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("is blank")
        return prompt

    @model_validator(mode="after")
    def _one_way_to_say_the_size(self) -> "CreateVideo":
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height go together")
        if self.size is not None:
            width, height = (int(side) for side in self.size.split("x"))
            if self.width is not None and (width, height) != (self.width, self.height):
                raise ValueError(f"size {self.size} contradicts {self.width}x{self.height}")
            self.width, self.height = width, height
        return self


class CreateVideoJson(CreateVideo):
    input_reference: ImageReference


class CreateVideoForm(CreateVideo):
    input_reference: Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
    metadata: Json[Metadata] = Field(default_factory=dict)  # as JSON text


class VideoError(BaseModel):
    code: str
    message: str


class Usage(BaseModel):
    gpu_seconds: float = Field(description="seconds in the denoiser")


class Downgrade(BaseModel):
    """What was done otherwise than asked because memory ran out."""

    step: str = Field(
        description="smaller_size and fewer_frames change the video; decode_chunk, chunked_unet,"
        " fewer_rows, solo_rows and other_tier change no pixel"
    )
    detail: str

    @classmethod
    def of(cls, events: Iterable[JobEvent]) -> list["Downgrade"]:
        return [cls(step=e.kind, detail=e.detail) for e in events if e.kind in MEMORY_LADDER]


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
    stage: str | None
    step: int
    steps: int
    queue_position: int | None
    attempt: int
    tier: str | None = Field(description="class of GPU that makes or made it")
    seed: int
    preset: str
    priority: Priority
    downgrades: list[Downgrade]
    num_frames: int
    fps: float = Field(description="playback rate of generated frames")
    output_num_frames: int = Field(description="in the file, interpolated ones included")
    output_fps: float = Field(description="playback rate of the file")
    timings: dict[str, float]
    usage: Usage | None
    sku: str | None
    metadata: dict[str, str]
    warnings: list[str] = Field(description="what about the photo may spoil the video")

    @classmethod
    def of(cls, job: Job, queue_position: int | None = None) -> "Video":
        request, sampling, output = job.request, job.request.sampling, job.request.output
        result = job.result
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
            expires_at=None,
            prompt=sampling.prompt,
            size=f"{width}x{height}",
            seconds=f"{played / output_fps:g}",
            error=(
                VideoError(code=job.error_code, message=job.error_message or job.error_code)
                if job.error_code and job.status is JobStatus.FAILED
                else None
            ),
            stage=job.stage if job.status is JobStatus.IN_PROGRESS else None,
            step=job.step if result is None else sampling.num_inference_steps,
            steps=sampling.num_inference_steps,
            queue_position=queue_position,
            attempt=job.attempt,
            tier=job.tier,
            seed=sampling.seed,
            preset=request.preset,
            priority=request.priority,
            downgrades=Downgrade.of(job.events),
            num_frames=sampling.num_frames,
            fps=output.fps,
            output_num_frames=played,
            output_fps=output_fps,
            timings={} if result is None else result.timings,
            usage=(
                None if result is None else Usage(gpu_seconds=result.timings.get("denoising", 0.0))
            ),
            sku=request.sku,
            metadata=dict(request.metadata),
            warnings=list(request.warnings),
        )


_PERCENT_AFTER_DENOISING = {"decoding": 92, "encoding_video": 95, "waiting_storage": 95}


def _percent(job: Job) -> int:
    """Denoising is nearly all of the work: it takes 2 to 90, the rest what is left."""
    if job.status is JobStatus.COMPLETED:
        return 100
    if job.status is not JobStatus.IN_PROGRESS or job.stage is None:
        return 0
    done = job.step / job.request.sampling.num_inference_steps
    return _PERCENT_AFTER_DENOISING.get(job.stage, 2 + int(88 * done))


class VideoList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    error: ErrorDetail


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    status: Literal["ready", "not_ready"]
    broken: list[str] = Field(description="what keeps a request from succeeding now")


def create_body_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """OpenAPI's requestBody of `POST /v1/videos`, and the component schemas that it refers to."""
    bodies: dict[str, type[BaseModel]] = {
        "multipart/form-data": CreateVideoForm,
        "application/json": CreateVideoJson,
    }
    references, definitions = models_json_schema(
        [(model, "validation") for model in bodies.values()],
        ref_template="#/components/schemas/{model}",
    )
    content = {
        media_type: {"schema": references[model, "validation"]}
        for media_type, model in bodies.items()
    }
    return {"required": True, "content": content}, definitions["$defs"]
