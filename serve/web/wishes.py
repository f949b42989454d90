"""What a person wishes for in the form, as the API's fields; and back again from a finished video.

The page keeps nothing. What it needs of a video later (its photo, and settings that the API does
not tell) goes into the video's metadata.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from serve.config import CAMERA
from serve.web.api import Json, UploadedPhoto

NEGATIVE_CHARS = 300  # of the text: metadata takes 512 characters a value, all settings together

NUMBERS: dict[str, tuple[str, int | None]] = {
    "num_inference_steps": ("steps", 0),
    "guidance_scale": ("guidance", None),
    "num_frames": ("frames", 0),
    "fps": ("fps", 0),
    "motion_fps": ("motion", 0),
}
"""Parameters that a person may put a number to: (name of its words, digits after the point)."""

BOUNDS = {
    "num_inference_steps": (1, 200),
    "guidance_scale": (1, 20),
    "fps": (1, 60),
    "motion_fps": (1, 60),
}
"""Of those that GET /v1/models does not tell; they stand in the schemas of /openapi.json."""

GENERATED_ONLY = (
    "num_inference_steps",
    "guidance_scale",
    "motion_fps",
    "negative_prompt",
    "motion_strength",
    "seed",
    "n",
    "enable_frame_interpolation",
)
"""Parameters that mean nothing to the model `camera`, which refuses them."""

_ID = re.compile(r"video_[0-9a-f]{1,64}")
_PHOTO, _NAME, _SETTINGS = "page_photo", "page_name", "page_settings"


@dataclass(frozen=True, slots=True)
class Wishes:
    """The form. None: left to the service."""

    category: str | None = None
    title: str | None = None
    prompt: str | None = None  # the person's own words; None: made of category and title
    preset: str | None = None
    n: int = 1
    fit: str | None = None
    model: str | None = None
    move: str | None = None  # of the camera
    speed: str | None = None  # of the move
    motion_strength: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    num_frames: int | None = None
    fps: int | None = None
    motion_fps: int | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    sku: str | None = None
    enable_frame_interpolation: bool = False

    @property
    def say_something(self) -> bool:
        return any((self.category, self.title, self.prompt))

    def fields(self, photo: UploadedPhoto) -> Json:
        """The body of POST /v1/videos."""
        said = {k: v for k, v in asdict(self).items() if v not in (None, "", False)}
        move, speed = said.pop("move", None), said.pop("speed", None)
        if move is None:  # strength and speed are a move's
            said.pop("motion_strength", None)
        else:
            said["camera_motion"] = {"move": move} | ({"speed": speed} if speed else {})
        if self.model == CAMERA:
            said = {k: v for k, v in said.items() if k not in GENERATED_ONLY}
        settings = {k: v for k, v in said.items() if k in _UNTOLD}
        if said.get("n", 1) > 1:
            said["select"] = "all"
        said["metadata"] = {
            _PHOTO: photo.file_id,
            _NAME: photo.name[:512],
            _SETTINGS: json.dumps(settings, ensure_ascii=False, separators=(",", ":")),
        }
        return {**said, "input_reference": {"file_id": photo.file_id}}


_UNTOLD = (
    "fit",
    "num_inference_steps",
    "guidance_scale",
    "motion_fps",
    "negative_prompt",
    "enable_frame_interpolation",
)
"""Parameters that no Video tells."""


def wished(video: Mapping[str, Any]) -> tuple[Wishes, UploadedPhoto] | None:
    """What `video` was made of, but for its seed; None where this page has not made it, so that
    its photo is not known."""
    metadata = video["metadata"]
    if _PHOTO not in metadata:
        return None
    camera = video["camera_motion"] or {}
    wishes = Wishes(
        category=video["category"],
        prompt=video["prompt"],
        preset=video["preset"],
        n=video["n"],
        model=video["model"],
        move=camera.get("move"),
        speed=camera.get("speed"),
        motion_strength=video["motion_strength"],
        num_frames=video["num_frames"],
        fps=round(video["fps"]),
        sku=video["sku"],
        **json.loads(metadata.get(_SETTINGS, "{}")),
    )
    return wishes, UploadedPhoto(metadata[_PHOTO], metadata[_NAME])


def again(video: Mapping[str, Any]) -> Json | None:
    """The body that makes `video` once more, with another seed; None as in `wished`, and where it
    would be the same video: a camera move has no seed."""
    found = wished(video)
    if found is None or (found[0].model == CAMERA and video["status"] == "completed"):
        return None
    return found[0].fields(found[1])


def name_of(video: Mapping[str, Any]) -> str:
    """What a person calls it."""
    return str(video["metadata"].get(_NAME) or video["sku"] or video["id"])


def ids_of(text: str) -> list[str]:
    """Those of the address: `?video=video_…,video_…`. What is none is left out."""
    return [part for part in text.split(",") if _ID.fullmatch(part)]


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None
