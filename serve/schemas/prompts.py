"""What a prompt is made from, in every request that needs one, and `POST /v1/prompts:preview`."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from catalog.prompts import Prompt


def without_nul(text: str) -> str:
    """Postgres keeps no NUL in a text."""
    if "\x00" in text:
        raise ValueError("holds a NUL character")
    return text


class PromptFields(BaseModel):
    """A prompt in the caller's own words, or a category or a title to make one from."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "anyOf": [{"required": [name]} for name in ("prompt", "category", "title")]
        },
    )

    category: str | None = Field(
        None, min_length=1, max_length=200, description="of GET /v1/presets: a prompt and defaults"
    )
    title: str | None = Field(
        None, max_length=500, description="of the product: the subject of a prompt left out"
    )
    prompt: str | None = Field(
        None,
        min_length=1,
        validate_default=True,
        description="[subject] + [action] + [direction/speed] + [ambience], in English; required"
        " unless `category` or `title` gives one",
    )

    @field_validator("category", "title", "prompt")
    @classmethod
    def _is_text(cls, text: str | None) -> str | None:
        return None if text is None else without_nul(text)

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str | None, others: ValidationInfo) -> str | None:
        if prompt is not None and not prompt.strip():
            raise ValueError("is blank")
        title = others.data.get("title") or ""
        if prompt is None and others.data.get("category") is None and not title.strip():
            raise PydanticCustomError("missing", "Field required unless category or title is given")
        return prompt


class PromptPreview(BaseModel):
    """What `POST /v1/videos` would make of the same fields."""

    object: Literal["prompt.preview"] = "prompt.preview"
    prompt: str
    category: str | None
    template: str | None = Field(description="where the prompt was made; null: the caller's words")
    warnings: list[str]

    @classmethod
    def of(cls, prompt: Prompt, category: str | None) -> Self:
        return cls(
            prompt=prompt.text,
            category=category,
            template=prompt.template,
            warnings=list(prompt.warnings),
        )
