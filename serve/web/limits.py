"""What the service offers, as models with limits and presets; and the form by it."""

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import gradio as gr

from catalog.presets import DEFAULT_PRESET
from serve.config import CAMERA
from serve.web.api import Api, Json
from serve.web.wishes import BOUNDS, GENERATED_ONLY, NUMBERS
from serve.web.words import Words


@dataclass(frozen=True, slots=True)
class Offer:
    """What `GET /v1/models` and `GET /v1/presets` tell."""

    models: list[Json]
    presets: list[Json]
    categories: list[Json]

    @classmethod
    async def of(cls, api: Api) -> Self:
        """Raises Refused."""
        models, known = await asyncio.gather(api.models(), api.presets())
        return cls(models["data"], known["data"], known["categories"])

    def model(self, name: str | None) -> Json:
        """The one in force: the service's default, unless `name` is another's."""
        named = (one for one in self.models if one["id"] == name)
        return next(named, None) or next(one for one in self.models if one["default"])

    def preset(self, category: str, preset: str) -> Json:
        """What the service will use where a field is left empty."""
        for one in self.categories:
            if one["id"] == category and one["preset"] == preset:
                defaults: Json = one["defaults"]
                return defaults
        return next(one for one in self.presets if one["id"] == (preset or DEFAULT_PRESET))

    def preset_of(self, category: str) -> str:
        """The one that a category starts from."""
        return next(
            (one["preset"] for one in self.categories if one["id"] == category), DEFAULT_PRESET
        )

    def model_choices(self, words: Words) -> list[tuple[str, str]]:
        return [
            (
                words("create.models.camera" if one["id"] == CAMERA else "create.models.generated"),
                one["id"],
            )
            for one in self.models
        ]

    def preset_choices(self, words: Words) -> list[tuple[str, str]]:
        """From the smallest to the largest."""
        presets = sorted(self.presets, key=lambda one: one["area_px"] * one["num_frames"])
        return [(words.get(f"create.presets.{one['id']}", one["id"]), one["id"]) for one in presets]

    def category_choices(self, none: str) -> list[tuple[str, str]]:
        """`none`: what no category is called."""
        named = [(one["id"].capitalize(), one["id"]) for one in self.categories]
        return [(none, ""), *named]


def allowed(words: Words, model: Json, preset: Json) -> list[Any]:
    """Updates of Form.of_the_model: what has no meaning to the model is not shown."""
    limits, generates = model["limits"], model["id"] != CAMERA
    moves, strength = limits["camera_motions"], limits["default_motion_strength"]
    no_move = words("create.no_move" if generates else "create.move_of_words")
    named = [(words.get(f"create.moves.{one}", one), one) for one in moves]
    most = limits["max_candidates"]
    return [
        gr.update(choices=[(no_move, ""), *named], visible=bool(moves)),
        gr.update(visible=bool(moves)),
        gr.update(visible=bool(moves) and strength is not None),
        gr.update(maximum=max(2, most), visible=most > 1),
        *[gr.update(visible=generates)] * 3,
        *(_number(words, name, limits, preset, generates) for name in NUMBERS),
    ]


def _number(words: Words, name: str, limits: Json, preset: Json, generates: bool) -> Any:
    low, high = BOUNDS.get(name) or (limits["min_num_frames"], limits["max_num_frames"])
    if generates:
        value = f"{preset[name]:g}"
        return gr.update(
            visible=True, info=words("create.left_empty", low=low, high=high, value=value)
        )
    shown = name not in GENERATED_ONLY
    return gr.update(visible=shown, info=words("create.may_be_empty", low=low, high=high))
