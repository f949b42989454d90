"""What this server can do, for callers that adapt: models, presets and categories."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from catalog.presets import MOTION_STRENGTH
from catalog.prompts import composed
from diffusion.model_folder import ModelCard
from serve.config import AppConfig
from serve.schemas import (
    MOST_FRAMES,
    CategoryCard,
    Limits,
    Model,
    ModelList,
    PresetCard,
    PresetList,
)
from serve.services.clip_shape import MODEL_FRAMES
from serve.services.resolve_camera import CARD
from storage.tenants import Tenant
from video.camera.move import Move
from video.photo import Fit


def discovery_routes(
    config: AppConfig, model: ModelCard, tenant_of: Callable[..., Any]
) -> APIRouter:
    router = APIRouter(dependencies=[Depends(tenant_of)])
    limits = Limits(
        size_multiple=model.size_multiple,
        max_area_px=config.limits.max_area_px,
        max_num_frames=MODEL_FRAMES,
        max_prompt_chars=config.limits.max_prompt_chars,
        max_candidates=config.limits.max_candidates,
        max_photo_bytes=config.limits.photo.max_bytes,
        max_photo_pixels=config.limits.photo.max_pixels,
        min_photo_side_px=config.limits.photo.min_side_px,
        fits=list(Fit),
        camera_motions=list(Move),
        default_motion_strength=MOTION_STRENGTH,
    )
    camera_limits = limits.model_copy(
        update={
            "size_multiple": CARD.size_multiple,
            "max_area_px": config.stages.camera.max_area_px,
            "max_num_frames": MOST_FRAMES,
            "max_candidates": 1,
            "default_motion_strength": None,
        }
    )
    renders = config.default_model_name == CARD.name
    models = [
        Model(id=card.name, revision=card.revision, default=default, limits=its)
        for card, its, default in ((model, limits, not renders), (CARD, camera_limits, renders))
    ]
    presets = [
        PresetCard(id=name, **preset.model_dump()) for name, preset in config.presets.items()
    ]
    categories = [
        CategoryCard(
            id=name,
            template=category.template,
            prompt=composed(category.template, None).text,
            preset=category.preset,
            defaults=category.over(config.presets[category.preset]),
        )
        for name, category in config.categories.items()
    ]

    @router.get("/v1/models")
    async def list_models() -> ModelList:
        return ModelList(data=models)

    @router.get("/v1/presets")
    async def list_presets(tenant: Annotated[Tenant, Depends(tenant_of)]) -> PresetList:
        return PresetList(data=presets, categories=categories)

    return router
