"""What the form answers while somebody fills it in: prompt, advice, limits, previews."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from serve.config import CAMERA
from serve.web import markup
from serve.web.actions import QUIET
from serve.web.api import Api, Json, Refused, UploadedPhoto
from serve.web.create.form import OF_THE_MODEL, Form
from serve.web.create.preview import preview
from serve.web.limits import Offer, allowed
from serve.web.words import Words
from video.photo import PhotoLimits

_MOST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Filling:
    words: Words
    api_of: Callable[[gr.Request], Api]
    photos: PhotoLimits

    def wire(self, form: Form) -> None:
        """What changes while somebody fills in the form."""
        said = [form.category, form.title, form.prompt, form.made]
        gr.on(
            [form.category.change, form.title.change],
            self._compose,
            said,
            [form.prompt, form.made, form.advice],
            trigger_mode="always_last",
            **QUIET,
        )
        form.prompt.change(
            self._check,
            [form.prompt, form.made],
            form.advice,
            trigger_mode="always_last",
            **QUIET,
        )
        form.category.input(
            self._category,
            [form.category, form.settled],
            [form.preset, form.settled],
            **QUIET,
        )
        gr.on(
            [form.category.change, form.preset.change, form.model.change],
            self._allow,
            [form.category, form.preset, form.model],
            form.of_the_model,
            **QUIET,
        )
        form.files.change(lambda: "", None, form.refused, **QUIET)  # what it said is of the others
        gr.on(
            [form.files.change, form.preset.change, form.fit.change, form.model.change],
            self._preview,
            [form.files, form.photo, form.preset, form.fit, form.model],
            form.previews,
            trigger_mode="always_last",
            **QUIET,
        )

    async def _category(self, category: str, settled: str, request: gr.Request) -> list[Any]:
        """The preset that a category starts from. A list is left with the same event as something
        is chosen in it: that changes nothing."""
        if category == settled:
            return [gr.skip(), gr.skip()]
        try:
            return [(await Offer.of(self.api_of(request))).preset_of(category), category]
        except Refused:
            return [gr.skip(), gr.skip()]

    async def _allow(
        self, category: str, preset: str, model: str | None, request: gr.Request
    ) -> list[Any]:
        try:
            offer = await Offer.of(self.api_of(request))
        except Refused:
            return [gr.skip()] * OF_THE_MODEL
        return allowed(self.words, offer.model(model), offer.preset(category, preset))

    async def _compose(
        self, category: str, title: str, prompt: str, made: str, request: gr.Request
    ) -> list[Any]:
        """A prompt of one's own stays."""
        if prompt and prompt != made:
            return [gr.skip(), gr.skip(), await self._advice({"prompt": prompt}, request)]
        fields = {k: v for k, v in (("category", category), ("title", title.strip())) if v}
        if not fields:
            return ["", "", ""]
        try:
            answer = await self.api_of(request).preview_prompt(fields)
        except Refused as e:
            return [gr.skip(), gr.skip(), markup.alert(self.words, e)]
        shown = markup.warnings(self.words, answer["warnings"])
        return [answer["prompt"], answer["prompt"], shown]

    async def _check(self, prompt: str, made: str, request: gr.Request) -> Any:
        """Of what was made of the title, `_compose` says more."""
        if prompt == made:
            return gr.skip()
        return await self._advice({"prompt": prompt}, request) if prompt.strip() else ""

    async def _advice(self, fields: Json, request: gr.Request) -> str:
        try:
            answer = await self.api_of(request).preview_prompt(fields)
        except Refused as e:
            return markup.alert(self.words, e)
        return markup.warnings(self.words, answer["warnings"])

    async def _preview(
        self,
        files: Sequence[str] | None,
        earlier: str,
        preset: str,
        fit: str,
        model: str | None,
        request: gr.Request,
    ) -> str:
        photo = UploadedPhoto.read(earlier)
        if not files:
            return "" if photo is None else markup.earlier_photo(self.words, photo.name)
        try:
            offer = await Offer.of(self.api_of(request))
        except Refused:
            return ""
        chosen, multiple = offer.preset("", preset), offer.model(model)["limits"]["size_multiple"]
        shown = [
            await asyncio.to_thread(preview, Path(file), fit, chosen, multiple, self.photos)
            for file in files[:_MOST_SHOWN]
        ]
        known = [one for one in shown if one is not None]
        if model == CAMERA:  # which may make larger pictures than the preset says
            return markup.previews(self.words, known, "create.preview_camera", is_exact=False)
        return markup.previews(self.words, known, "create.preview", is_exact=True)
