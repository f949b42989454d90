"""From what a caller sent to a complete JobRequest: explicit value > preset > category > server
default, and no contradictions."""

import math
import secrets
import time
from typing import TypeVar

import uuid_utils

from catalog.categories import Category
from catalog.presets import DEFAULT_PRESET, MOTION_STRENGTH, NEGATIVE_PROMPT, Preset
from catalog.prompts import GENERAL, Prompt, composed, written
from diffusion.model_folder import ModelCard
from diffusion.params import SamplingParams
from serve.config import AppConfig
from serve.errors import REQUEST, ApiError
from serve.schemas import CreateVideo, PromptFields
from storage import keys
from storage.jobs import JobRequest, OutputParams
from video.camera.move import CameraMove
from video.photo import PhotoFacts, target_size

T = TypeVar("T")

_NO_MOVE = "at motion_strength 1 the model begins at noise alone: camera_motion moves nothing"

SMOOTH_FPS = 24
"""Interpolation fills up to here: below 24 frames/s most shop platforms refuse a video."""


def resolve(
    create: CreateVideo, photo: PhotoFacts, tenant: str, model: ModelCard, config: AppConfig
) -> JobRequest:
    """Fill in every default, the seed included. Raises ApiError, UnsupportedSize and
    UnusableStrength."""
    if create.model not in (None, model.name):
        raise _refused("model", f"no model {create.model!r} here; this server has {model.name!r}")
    prompt = prompt_for(create, config)
    _check_length("negative_prompt", create.negative_prompt, config)
    preset_name, preset = _preset(create, config)
    width, height = _size(create, photo, preset, model, config)
    num_frames, fps = _timing(create, preset)
    camera, strength = _camera(create, model)
    inbetweens = max(0, math.ceil(SMOOTH_FPS / fps) - 1) if create.enable_frame_interpolation else 0
    return JobRequest(
        id=f"video_{uuid_utils.uuid7().hex}",
        tenant=tenant,
        model=model.name,
        model_revision=model.revision,
        photo_key=keys.input_key(tenant, photo.sha256),
        photo_sha256=photo.sha256,
        sampling=SamplingParams(
            prompt=prompt.text,
            negative_prompt=_given(create.negative_prompt, NEGATIVE_PROMPT),
            width=width,
            height=height,
            num_frames=num_frames,
            num_inference_steps=_given(create.num_inference_steps, preset.num_inference_steps),
            guidance_scale=_given(create.guidance_scale, preset.guidance_scale),
            motion_fps=_given(create.motion_fps, preset.motion_fps),
            seed=_given(create.seed, secrets.randbits(31)),
            sampler=preset.sampler,
            timestep_spacing=preset.timestep_spacing,
            guidance_start=preset.guidance_start,
            guidance_stop=preset.guidance_stop,
            motion_strength=strength,
        ),
        output=OutputParams(fit=create.fit, fps=fps, inbetweens=inbetweens),
        camera_motion=camera,
        preset=preset_name,
        category=create.category,
        prompt_template=prompt.template,
        priority=create.priority,
        deadline_at=None if create.deadline_s is None else time.time() + create.deadline_s,
        may_downgrade=create.downgrade == "auto",
        sku=create.sku,
        batch_id=create.batch_id,
        title=create.title,
        metadata=create.metadata,
        candidates=_candidates(create, config),
        select=create.select,
        webhook=create.webhook,
        warnings=(*photo.warnings, *prompt.warnings, *([_NO_MOVE] if strength == 1 else [])),
    )


def _camera(create: CreateVideo, model: ModelCard) -> tuple[CameraMove | None, float | None]:
    """The move, and how much of it is the model's to change."""
    if create.camera_motion is None:
        if create.motion_strength is not None:
            raise _refused("motion_strength", "motion_strength is of a camera_motion: give one too")
        return None, None
    if not model.camera_moves:
        message = "this server renders no camera moves: leave camera_motion out"
        raise _refused("camera_motion", message)
    return create.camera_motion.camera, _given(create.motion_strength, MOTION_STRENGTH)


def prompt_for(fields: PromptFields, config: AppConfig) -> Prompt:
    """The caller's own words, or a prompt made from title and category. Raises ApiError."""
    category = _category(fields, config)
    if fields.prompt is not None:
        _check_length("prompt", fields.prompt, config)
        return written(fields.prompt)
    return composed(category.template if category else GENERAL, fields.title)


def _category(fields: PromptFields, config: AppConfig) -> Category | None:
    if fields.category is None:
        return None
    category = config.categories.get(fields.category)
    if category is None:
        have = ", ".join(config.categories)
        raise _refused("category", f"no category {fields.category!r}; have {have}")
    return category


def _preset(create: CreateVideo, config: AppConfig) -> tuple[str, Preset]:
    """(its name, what holds): a preset that the caller chose beats the category."""
    category = _category(create, config)
    if create.preset is None:
        name = category.preset if category else DEFAULT_PRESET
        preset = config.presets[name]
        return name, category.over(preset) if category else preset
    preset_or_none = config.presets.get(create.preset)
    if preset_or_none is None:
        raise _refused("preset", f"no preset {create.preset!r}; have {', '.join(config.presets)}")
    return create.preset, category.under(preset_or_none) if category else preset_or_none


def _candidates(create: CreateVideo, config: AppConfig) -> int:
    most = config.limits.max_candidates
    if create.n > most:
        raise _refused("n", f"{create.n} candidates are more than {most}")
    return create.n


def _check_length(name: str, text: str | None, config: AppConfig) -> None:
    longest = config.limits.max_prompt_chars
    if len(text or "") > longest:
        raise _refused(name, f"{name} is longer than {longest} characters")


def _size(
    create: CreateVideo, photo: PhotoFacts, preset: Preset, model: ModelCard, config: AppConfig
) -> tuple[int, int]:
    if create.width is not None and create.height is not None:
        size = create.width, create.height
    else:
        size = target_size(photo.width, photo.height, preset.area_px, model.size_multiple)
    model.check_size(*size)
    most = config.limits.max_area_px
    if size[0] * size[1] > most:
        raise _refused("size", f"{size[0]}x{size[1]} has more than {most} pixels")
    longest, ratio = max(size) / min(size), config.limits.photo.max_aspect_ratio
    if longest > ratio:
        raise _refused("size", f"{size[0]}x{size[1]} is longer than {ratio:g} times its width")
    return size


def _timing(create: CreateVideo, preset: Preset) -> tuple[int, int]:
    """(num_frames, fps): with `seconds` given, whichever of the two is open follows from it."""
    fps = _given(create.fps, preset.fps)
    frames = _given(create.num_frames, preset.num_frames)
    if create.seconds is None:
        return frames, fps
    seconds = float(create.seconds)
    if create.num_frames is None:
        frames = round(seconds * fps)
    elif create.fps is None and seconds > 0:
        fps = round(frames / seconds)
        if not 1 <= fps <= 60:
            raise _refused(
                "seconds",
                f"{frames} frames in {create.seconds} s would play at {frames / seconds:g} fps;"
                f" at 1 to 60 fps they last {frames / 60:.3f} to {frames} s",
            )
    reach = f"8 to 32 frames at {fps} fps last {8 / fps:g} to {32 / fps:g} s"
    if not 8 <= frames <= 32:
        raise _refused("seconds", f"{create.seconds} s at {fps} fps is out of reach: {reach}")
    # A clip is a whole number of frames, so its length may be half a frame off what was asked.
    if abs(frames - seconds * fps) > 0.5 + 1e-9:
        raise _refused(
            "seconds", f"{create.seconds} s contradicts {frames} frames at {fps} fps; {reach}"
        )
    return frames, fps


def _refused(param: str, message: str) -> ApiError:
    return ApiError(400, REQUEST, "invalid_parameter", message, param)


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
