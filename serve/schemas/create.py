"""The body of `POST /v1/videos`: OpenAI's fields with flat extensions."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
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
from serve.schemas.camera import FormCameraMotion, GivenCameraMotion
from serve.schemas.prompts import PromptFields, without_nul
from storage.jobs import SEEDS, Select
from video.photo import Fit

Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


MOST_FRAMES = 300


class ImageReference(BaseModel):
    """The photo inside a JSON body."""

    model_config = ConfigDict(extra="forbid")

    image_url: str | None = Field(
        None,
        max_length=40_000_000,
        description="a data URL, data:image/jpeg;base64,…, or an https URL of a host that this"
        " server may fetch from",
    )
    file_id: Annotated[str, Field(max_length=128), AfterValidator(without_nul)] | None = Field(
        None, description="of a file at /v1/files"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "ImageReference":
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("give image_url or file_id, one of them")
        return self


class CreateVideo(PromptFields):
    """Parameters of `POST /v1/videos`; what is left out comes from the preset, then from the
    category, then from the server."""

    model: str | None = Field(
        None,
        max_length=200,
        description="one of GET /v1/models; `camera` renders a camera move and generates nothing",
    )
    preset: str | None = Field(
        None, max_length=200, description="left out: the category's, or `standard`"
    )
    size: Annotated[str, Field(pattern=r"^[0-9]{1,5}x[0-9]{1,5}$")] | None = Field(
        None, description="WIDTHxHEIGHT in pixels, the same as `width` and `height`"
    )
    width: int | None = Field(None, gt=0, le=99_999)
    height: int | None = Field(None, gt=0, le=99_999)
    seconds: Annotated[str, Field(pattern=r"^\d{1,3}(\.\d{1,3})?$")] | None = Field(
        None, description="length of the clip: num_frames / fps"
    )
    num_frames: int | None = Field(
        None, ge=8, le=MOST_FRAMES, description="at most 32, but of model `camera`"
    )
    fps: int | None = Field(None, ge=1, le=60, description="playback rate of generated frames")
    enable_frame_interpolation: bool = Field(
        False, description="insert frames by optical flow until the file plays at 24 fps or more"
    )
    motion_fps: int | None = Field(None, ge=1, le=60, description="the model's motion condition")
    num_inference_steps: int | None = Field(None, ge=1, le=200)
    camera_motion: GivenCameraMotion | None = Field(
        None,
        description="the clip begins at the frames of this move over the photo, and the model goes"
        " on from there; a name alone is that move at normal speed. Model `camera` takes it from"
        " the prompt's words where it is left out",
    )
    motion_strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="of a camera_motion: how much is the model's to change, and the share of"
        " num_inference_steps that is run; 1 is the clip without a camera_motion",
    )
    guidance_scale: float | None = Field(None, ge=1, le=20)
    negative_prompt: str | None = None
    seed: int | None = Field(None, ge=0, lt=SEEDS)
    n: int = Field(
        1,
        ge=1,
        description="candidates: clips that differ by their seed alone, which is `seed` + 0, 1, …;"
        " the one with the highest score is the video",
    )
    select: Select = Field(
        "best", description="all: the other candidates are kept too, at `content?candidate=k`"
    )
    fit: Fit = Fit.CROP
    downgrade: Literal["auto", "camera", "never"] = Field(
        "never",
        description="auto: a smaller clip is better than none where memory runs out; camera: and a"
        " camera move, of which nothing is generated, is better than none",
    )
    priority: Priority = Field(Priority.INTERACTIVE, description="batch waits for interactive")
    deadline_s: float | None = Field(
        None, gt=0, le=7 * 86_400, description="from now; nobody wants the video later than this"
    )
    sku: str | None = Field(None, min_length=1, max_length=200)
    batch_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]{1,64}$", description="to list these videos by"
    )
    metadata: Metadata = Field(default_factory=dict)
    webhook: str | None = Field(
        None, max_length=2048, description="URL of a host that is allowed here; hears of the end"
    )

    @field_validator("negative_prompt", "sku")
    @classmethod
    def _has_no_nul(cls, text: str | None) -> str | None:
        return None if text is None else without_nul(text)

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
    camera_motion: FormCameraMotion | None = Field(
        None, description="the name of a move, or move, speed and ease as JSON text"
    )


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
