"""A request for the model `camera`: a camera move over the photo, and nothing generated."""

import math
import time

import uuid_utils

from catalog.presets import Preset
from diffusion.model_folder import ModelCard
from diffusion.params import SamplingParams
from serve.config import CAMERA, AppConfig
from serve.schemas import MOST_FRAMES, CreateVideo
from serve.services.clip_shape import refused, size_of, timing_of
from serve.services.resolve import SMOOTH_FPS, preset_for, prompt_for
from storage import keys
from storage.jobs import JobRequest, OutputParams
from video.camera.move import CameraMove, Move, Speed
from video.camera.words import find_move
from video.photo import PhotoFacts

CARD = ModelCard(CAMERA, "camera-moves-1", size_multiple=2, camera_moves=True)
"""Its revision is a part of every result id: another one when the frames become others."""

USUAL_MOVE = CameraMove(Move.ZOOM_IN, Speed.SLOW)
"""Where neither camera_motion nor the prompt says which; the caller is told."""

_MEANINGLESS = (
    "num_inference_steps",
    "guidance_scale",
    "negative_prompt",
    "motion_strength",
    "motion_fps",
    "seed",
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
    _refuse_meaningless(create)
    prompt = prompt_for(create, config)
    camera, words, told = _move(create)
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
            seed=0,
        ),
        output=OutputParams(fit=create.fit, fps=fps, inbetweens=0),
        camera_motion=camera,
        camera_words=words,
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
        warnings=(*photo.warnings, *told),
    )


def _refuse_meaningless(create: CreateVideo) -> None:
    for name in _MEANINGLESS:
        if getattr(create, name) != CreateVideo.model_fields[name].default:
            message = f"{name} means nothing to the model {CAMERA!r}, which generates nothing"
            raise refused(name, f"{message}: leave it out")


def _move(create: CreateVideo) -> tuple[CameraMove, tuple[str, ...], tuple[str, ...]]:
    """The move, the prompt's words for it, and what the caller should know: explicit value > words
    of the caller's own prompt > server default."""
    if create.camera_motion is not None:
        return create.camera_motion.camera, (), ()
    if create.prompt is not None and (heard := find_move(create.prompt)):
        return heard.camera, heard.words, ()
    told = "neither camera_motion nor the prompt names a camera move: a slow zoom in was chosen"
    return USUAL_MOVE, (), (told,)


def _timing(create: CreateVideo, preset: Preset) -> tuple[int, int]:
    """As long as the preset's clip, where that is possible, at a rate that every shop takes."""
    fps = create.fps or SMOOTH_FPS
    frames = max(8, math.ceil(preset.num_frames / preset.fps * fps))
    return timing_of(create, min(frames, MOST_FRAMES), SMOOTH_FPS, MOST_FRAMES)
