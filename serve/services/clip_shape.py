"""How large and how long a clip is: what the caller gave, and what follows from it."""

from typing import TypeVar

from diffusion.model_folder import ModelCard
from serve.config import AppConfig
from serve.errors import REQUEST, ApiError
from serve.schemas import CreateVideo
from video.photo import PhotoFacts, target_size

T = TypeVar("T")

MODEL_FRAMES = 32
"""The most that a model makes at once."""

_STEP = 16  # px, of sides that are looked for: finer ones would be looked for in too many sizes


def size_of(
    create: CreateVideo,
    photo: PhotoFacts,
    area_px: int,
    model: ModelCard,
    most_px: int,
    config: AppConfig,
) -> tuple[int, int]:
    """(width, height): those given, or of `area_px` in the photo's ratio. Raises ApiError and
    UnsupportedSize."""
    if create.width is not None and create.height is not None:
        size = create.width, create.height
    else:
        size = target_size(photo.width, photo.height, area_px, max(_STEP, model.size_multiple))
    model.check_size(*size)
    if size[0] * size[1] > most_px:
        raise refused("size", f"{size[0]}x{size[1]} has more than {most_px} pixels")
    longest, ratio = max(size) / min(size), config.limits.photo.max_aspect_ratio
    if longest > ratio:
        raise refused("size", f"{size[0]}x{size[1]} is longer than {ratio:g} times its width")
    return size


def timing_of(create: CreateVideo, usual_frames: int, usual_fps: int, most: int) -> tuple[int, int]:
    """(num_frames, fps): with `seconds` given, whichever of the two is open follows from it. Raises
    ApiError."""
    fps = given(create.fps, usual_fps)
    frames = given(create.num_frames, usual_frames)
    if create.seconds is None:
        if frames > most:
            raise refused("num_frames", f"{frames} frames are more than {most}")
        return frames, fps
    seconds = float(create.seconds)
    if create.num_frames is None:
        frames = round(seconds * fps)
    elif create.fps is None and seconds > 0:
        fps = round(frames / seconds)
        if not 1 <= fps <= 60:
            raise refused(
                "seconds",
                f"{frames} frames in {create.seconds} s would play at {frames / seconds:g} fps;"
                f" at 1 to 60 fps they last {frames / 60:.3f} to {frames} s",
            )
    reach = f"8 to {most} frames at {fps} fps last {8 / fps:g} to {most / fps:g} s"
    if not 8 <= frames <= most:
        raise refused("seconds", f"{create.seconds} s at {fps} fps is out of reach: {reach}")
    # A clip is a whole number of frames, so its length may be half a frame off what was asked.
    if abs(frames - seconds * fps) > 0.5 + 1e-9:
        raise refused(
            "seconds", f"{create.seconds} s contradicts {frames} frames at {fps} fps; {reach}"
        )
    return frames, fps


def refused(param: str, message: str) -> ApiError:
    """To be raised."""
    return ApiError(400, REQUEST, "invalid_parameter", message, param)


def given(value: T | None, default: T) -> T:
    return default if value is None else value


def check_length(name: str, text: str | None, config: AppConfig) -> None:
    longest = config.limits.max_prompt_chars
    if len(text or "") > longest:
        raise refused(name, f"{name} is longer than {longest} characters")
