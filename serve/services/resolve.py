"""From what a caller sent to a complete JobRequest: explicit value > preset > category > server
default, and no contradictions."""

import math
import secrets
import time

import uuid_utils

from catalog.categories import Category
from catalog.presets import DEFAULT_PRESET, MOTION_STRENGTH, NEGATIVE_PROMPT, Preset
from catalog.prompts import GENERAL, Prompt, composed, written
from diffusion.model_folder import ModelCard
from diffusion.params import SamplingParams
from serve.config import CAMERA, AppConfig
from serve.schemas import CreateVideo, PromptFields
from serve.services.camera_move import choose_move
from serve.services.clip_shape import (
    MODEL_FRAMES,
    check_length,
    given,
    refused,
    size_of,
    timing_of,
)
from storage import keys
from storage.jobs import JobRequest, OutputParams
from video.camera.move import CameraMove
from video.photo import PhotoFacts

_NO_MOVE = "at motion_strength 1 the model begins at noise alone: camera_motion moves nothing"

SMOOTH_FPS = 24
"""Interpolation fills up to here: below 24 frames/s most shop platforms refuse a video."""


def resolve(
    create: CreateVideo, photo: PhotoFacts, tenant: str, model: ModelCard, config: AppConfig
) -> JobRequest:
    """Fill in every default, the seed included. Raises ApiError, UnsupportedSize, UnusableStrength,
    and CameraConflict where a camera move may be made instead and the prompt names two."""
    if create.model not in (None, model.name):
        have = f"this server has {model.name!r} and {CAMERA!r}"
        raise refused("model", f"no model {create.model!r} here; {have}")
    prompt = prompt_for(create, config)
    check_length("negative_prompt", create.negative_prompt, config)
    preset_name, preset = preset_for(create, config)
    width, height = size_of(create, photo, preset.area_px, model, config.limits.max_area_px, config)
    num_frames, fps = timing_of(create, preset.num_frames, preset.fps, MODEL_FRAMES)
    camera, strength = _camera(create)
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
            negative_prompt=given(create.negative_prompt, NEGATIVE_PROMPT),
            width=width,
            height=height,
            num_frames=num_frames,
            num_inference_steps=given(create.num_inference_steps, preset.num_inference_steps),
            guidance_scale=given(create.guidance_scale, preset.guidance_scale),
            motion_fps=given(create.motion_fps, preset.motion_fps),
            seed=given(create.seed, secrets.randbits(31)),
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
        may_downgrade=create.downgrade != "never",
        last_resort=choose_move(create).move if create.downgrade == "camera" else None,
        sku=create.sku,
        batch_id=create.batch_id,
        title=create.title,
        metadata=create.metadata,
        candidates=_candidates(create, config),
        select=create.select,
        webhook=create.webhook,
        warnings=(*photo.warnings, *prompt.warnings, *([_NO_MOVE] if strength == 1 else [])),
    )


def _camera(create: CreateVideo) -> tuple[CameraMove | None, float | None]:
    """The move, and how much of it is the model's to change."""
    if create.camera_motion is None:
        if create.motion_strength is not None:
            raise refused("motion_strength", "motion_strength is of a camera_motion: give one too")
        return None, None
    return create.camera_motion.camera, given(create.motion_strength, MOTION_STRENGTH)


def prompt_for(fields: PromptFields, config: AppConfig) -> Prompt:
    """The caller's own words, or a prompt made from title and category. Raises ApiError."""
    category = _category(fields, config)
    if fields.prompt is not None:
        check_length("prompt", fields.prompt, config)
        return written(fields.prompt)
    return composed(category.template if category else GENERAL, fields.title)


def _category(fields: PromptFields, config: AppConfig) -> Category | None:
    if fields.category is None:
        return None
    category = config.categories.get(fields.category)
    if category is None:
        have = ", ".join(config.categories)
        raise refused("category", f"no category {fields.category!r}; have {have}")
    return category


def preset_for(create: CreateVideo, config: AppConfig) -> tuple[str, Preset]:
    """(its name, what holds): the preset that the caller chose beats the category. Raises
    ApiError."""
    category = _category(create, config)
    if create.preset is None:
        name = category.preset if category else DEFAULT_PRESET
        preset = config.presets[name]
        return name, category.over(preset) if category else preset
    preset_or_none = config.presets.get(create.preset)
    if preset_or_none is None:
        raise refused("preset", f"no preset {create.preset!r}; have {', '.join(config.presets)}")
    return create.preset, category.under(preset_or_none) if category else preset_or_none


def _candidates(create: CreateVideo, config: AppConfig) -> int:
    most = config.limits.max_candidates
    if create.n > most:
        raise refused("n", f"{create.n} candidates are more than {most}")
    return create.n
