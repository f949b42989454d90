"""Product categories: which prompt and which defaults suit a watch, a dress, a dish.

A deployment may replace them, as it may replace the presets.
"""

from pydantic import BaseModel, ConfigDict, Field

from catalog.presets import DEFAULT_PRESET, Preset
from catalog.prompts import PromptTemplate


class Category(BaseModel):
    """A prompt template, and the preset to start from with what is done otherwise.

    Sizes are a preset's, so categories are as small as the presets on a small machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: PromptTemplate
    preset: str = Field(DEFAULT_PRESET, description="where the request names none")
    num_frames: int | None = Field(None, ge=8, le=32)
    fps: int | None = Field(None, ge=1, le=60)
    num_inference_steps: int | None = Field(None, ge=1, le=200)
    guidance_scale: float | None = Field(None, ge=1, le=20)
    motion_fps: int | None = Field(None, ge=1, le=60)

    def over(self, preset: Preset) -> Preset:
        """The category's own preset, changed by what the category says."""
        return preset.model_copy(update=self._said())

    def under(self, preset: Preset) -> Preset:
        """A preset that the caller chose: the category says only what that one leaves open."""
        open_to_us = {k: v for k, v in self._said().items() if k not in preset.model_fields_set}
        return preset.model_copy(update=open_to_us)

    def _said(self) -> dict[str, object]:
        return self.model_dump(exclude={"template", "preset"}, exclude_none=True)


def default_categories() -> dict[str, Category]:
    """512p is the standard preset's area and 768p the high one's. home, beauty and toys do as
    standard does: rigid things in plain light gained nothing that we know of from more steps."""
    return {
        "apparel": Category(
            template=PromptTemplate(
                subject="a garment",
                action="swaying",
                direction="gently from side to side",
                ambience="soft diffused studio light, visible fabric texture",
            ),
            num_inference_steps=60,
        ),
        "digital": Category(
            template=PromptTemplate(
                subject="an electronic device",
                action="rotating",
                direction="slowly to the right",
                ambience="cool studio light, crisp reflections gliding over its edges",
            ),
            preset="high",
            num_frames=24,
            fps=12,
            num_inference_steps=80,
        ),
        "home": Category(
            template=PromptTemplate(
                subject="a piece of home decor",
                action="filmed by a camera gliding",
                direction="slowly from left to right",
                ambience="warm window light, soft shadows",
            )
        ),
        "food": Category(
            template=PromptTemplate(
                subject="a dish of food",
                action="turning",
                direction="slowly to the left",
                ambience="warm side light, blurred table in the background",
            ),
            num_frames=16,
            num_inference_steps=50,
        ),
        "portrait": Category(
            template=PromptTemplate(
                subject="a person",
                action="smiling and turning the head",
                direction="slightly to the left",
                ambience="soft frontal light, blurred background",
            ),
            num_frames=16,
            num_inference_steps=50,
            guidance_scale=10,
        ),
        "watch": Category(
            template=PromptTemplate(
                subject="a wristwatch",
                action="rotating",
                direction="slowly clockwise",
                ambience="crisp studio light gliding over metal and glass",
            ),
            preset="high",
            num_frames=24,
            num_inference_steps=60,
            guidance_scale=11,
        ),
        "art": Category(
            template=PromptTemplate(
                subject="a work of art",
                action="filmed by a camera pushing in",
                direction="slowly toward the centre",
                ambience="even gallery light, visible surface texture",
            ),
            num_frames=16,
            num_inference_steps=80,
            guidance_scale=9,
        ),
        "beauty": Category(
            template=PromptTemplate(
                subject="a cosmetic product",
                action="turning",
                direction="slowly to the left",
                ambience="soft light gliding over its surface, pale background",
            )
        ),
        "toys": Category(
            template=PromptTemplate(
                subject="a toy",
                action="rolling forward",
                direction="slowly to the right",
                ambience="bright daylight, plain background",
            )
        ),
    }
