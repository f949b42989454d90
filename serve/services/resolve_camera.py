"""A request for the model `camera`: a camera move over the photo, and nothing generated."""

import math
import time

import uuid_utils

from catalog.presets import Preset
from diffusion.model_folder import ModelCard
from diffusion.params import SamplingParams
from serve.config import CAMERA, AppConfig
from serve.schemas import MOST_FRAMES, CreateVideo
from serve.services.camera_move import choose_move
from serve.services.clip_shape import refused, size_of, timing_of
from serve.services.resolve import SMOOTH_FPS, preset_for, prompt_for
from storage import keys
from storage.jobs import JobRequest, OutputParams
from video.photo import PhotoFacts

CARD = ModelCard(CAMERA, "camera-moves-1", size_multiple=2)
"""Its revision is a part of every result id: another one when the frames become others."""

_MEANINGLESS = (
    "num_inference_steps",
    "guidance_scale",
    "negative_prompt",
    "motion_strength",
    "motion_fps",
    "n",
    "select",
    "enable_frame_interpolation",
    "downgrade",
)


def resolve_camera(
    create: CreateVideo, photo: PhotoFacts, tenant: str, config: AppConfig
) -> JobRequest:
    """Fill in every default. Raises ApiError, UnsupportedSize, and CameraConflict where the prompt
    names two moves."""
    _refuse_meaningless(create, config)
    prompt = prompt_for(create, config)
    chosen = choose_move(create)
    preset_name, preset = preset_for(create, config)
    num_frames, fps = _timing(create, preset)
    tier = config.stages.camera
    area_px = max(preset.area_px, tier.least_area_px)
    width, height = size_of(create, photo, area_px, CARD, tier.max_area_px, config)
    if 3 * width * height * num_frames > tier.max_clip_bytes:
        most = tier.max_clip_bytes // (3 * width * height)
        message = f"{num_frames} frames of {width}x{height} are too many; {most} are possible"
        raise refused("size", message)
    return JobRequest(
        id=f"video_{uuid_utils.uuid7().hex}",
        tenant=tenant,
        model=CARD.name,
        model_revision=CARD.revision,
        photo_key=keys.input_key(tenant, photo.sha256),
        photo_sha256=photo.sha256,
        sampling=SamplingParams(
            prompt=prompt.text,
            negative_prompt="",
            width=width,
            height=height,
            num_frames=num_frames,
            num_inference_steps=0,
            guidance_scale=1.0,
            motion_fps=fps,
            seed=0,  # whichever was given: one clip, to be stored once
        ),
        output=OutputParams(fit=create.fit, fps=fps, inbetweens=0),
        camera_motion=chosen.move,
        camera_words=chosen.words,
        preset=preset_name,
        category=create.category,
        prompt_template=prompt.template,
        priority=create.priority,
        deadline_at=None if create.deadline_s is None else time.time() + create.deadline_s,
        sku=create.sku,
        batch_id=create.batch_id,
        title=create.title,
        metadata=create.metadata,
        webhook=create.webhook,
        warnings=(*photo.warnings, *chosen.told),
    )


def _refuse_meaningless(create: CreateVideo, config: AppConfig) -> None:
    """A seed is none of these: the same one gives the same video, as any other does."""
    for name in _MEANINGLESS:
        if getattr(create, name) != CreateVideo.model_fields[name].default:
            message = f"{name} means nothing to the model {CAMERA!r}, which generates nothing"
            other = "" if create.model else f", or name the model {config.model.name!r}"
            raise refused(name, f"{message}: leave it out{other}")


def _timing(create: CreateVideo, preset: Preset) -> tuple[int, int]:
    """As long as the preset's clip, where that is possible, at a rate that every shop takes."""
    fps = create.fps or SMOOTH_FPS
    frames = max(8, math.ceil(preset.num_frames / preset.fps * fps))
    return timing_of(create, min(frames, MOST_FRAMES), SMOOTH_FPS, MOST_FRAMES)
