"""What a server can do, for callers that adapt to it."""

from typing import Literal

from pydantic import BaseModel, Field

from catalog.presets import Preset
from catalog.prompts import PromptTemplate
from video.camera.move import Move
from video.photo import Fit


class Limits(BaseModel):
    """What one request may ask for, the memory of the cluster's cards apart."""

    size_multiple: int = Field(description="px; both sides are multiples of it")
    max_area_px: int
    min_num_frames: int = 8
    max_num_frames: int
    max_prompt_chars: int
    max_candidates: int
    max_photo_bytes: int
    max_photo_pixels: int
    min_photo_side_px: int
    fits: list[Fit]
    camera_motions: list[Move] = Field(description="moves that a clip may begin with, or be")
    default_motion_strength: float | None = Field(
        description="of a camera_motion; 0 < it <= 1; null: nothing is generated"
    )


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: Literal["shopreel"] = "shopreel"
    revision: str = Field(description="sha256 of the weights; of `camera`, of its rendering")
    default: bool = Field(description="of one: it makes what a request names no model for")
    limits: Limits


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class PresetCard(Preset):
    id: str
    object: Literal["preset"] = "preset"


class CategoryCard(BaseModel):
    id: str
    object: Literal["category"] = "category"
    template: PromptTemplate
    prompt: str = Field(description="where there is no title")
    preset: str = Field(description="where the request names none")
    defaults: Preset = Field(description="that preset, with what the category does otherwise")


class PresetList(BaseModel):
    object: Literal["list"] = "list"
    data: list[PresetCard]
    categories: list[CategoryCard]
