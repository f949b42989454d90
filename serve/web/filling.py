"""What the form answers while somebody fills it in: prompt, advice, limits, previews."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from catalog.presets import DEFAULT_PRESET
from serve.web import markup
from serve.web.actions import QUIET
from serve.web.api import Api, Json, Refused, UploadedPhoto
from serve.web.form import Form
from serve.web.look import preview
from serve.web.wishes import BOUNDS, NUMBERS
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
        form.prompt.input(
            self._check, form.prompt, form.advice, trigger_mode="always_last", **QUIET
        )
        form.category.input(self._category, form.category, form.preset, **QUIET)
        gr.on(
            [form.category.change, form.preset.change],
            self._hints,
            [form.category, form.preset],
            form.numbers,
            **QUIET,
        )
        gr.on(
            [form.files.change, form.preset.change, form.fit.change],
            self._preview,
            [form.files, form.photo, form.preset, form.fit],
            form.previews,
            trigger_mode="always_last",
            **QUIET,
        )

    async def _category(self, category: str, request: gr.Request) -> Any:
        """The preset that a category starts from."""
        try:
            known = await self.api_of(request).presets()
        except Refused:
            return gr.skip()
        chosen = [one["preset"] for one in known["categories"] if one["id"] == category]
        return chosen[0] if chosen else DEFAULT_PRESET

    async def _hints(self, category: str, preset: str, request: gr.Request) -> list[Any]:
        api = self.api_of(request)
        try:
            limits, known = await asyncio.gather(limits_of(api), api.presets())
        except Refused:
            return [gr.skip()] * len(NUMBERS)
        return ranges(self.words, limits, preset_in_force(known, category, preset))

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

    async def _check(self, prompt: str, request: gr.Request) -> str:
        return await self._advice({"prompt": prompt}, request) if prompt.strip() else ""

    async def _advice(self, fields: Json, request: gr.Request) -> str:
        try:
            answer = await self.api_of(request).preview_prompt(fields)
        except Refused as e:
            return markup.alert(self.words, e)
        return markup.warnings(self.words, answer["warnings"])

    async def _preview(
        self, files: Sequence[str] | None, earlier: str, preset: str, fit: str, request: gr.Request
    ) -> str:
        photo = UploadedPhoto.read(earlier)
        if not files:
            return "" if photo is None else markup.earlier_photo(self.words, photo.name)
        api = self.api_of(request)
        try:
            model, known = await asyncio.gather(limits_of(api), api.presets())
        except Refused:
            return ""
        chosen = preset_in_force(known, "", preset)
        multiple = model["size_multiple"]
        shown = [
            await asyncio.to_thread(preview, Path(file), fit, chosen, multiple, self.photos)
            for file in files[:_MOST_SHOWN]
        ]
        return markup.previews(self.words, [one for one in shown if one is not None])


def ranges(words: Words, limits: Json, preset: Json) -> list[Any]:
    """Updates of the form's numbers: what they may be, and what they are where left empty."""
    bounds = {"num_frames": (limits["min_num_frames"], limits["max_num_frames"]), **BOUNDS}
    return [
        gr.update(info=words("create.left_empty", low=low, high=high, value=f"{preset[name]:g}"))
        for name, (low, high) in ((name, bounds[name]) for name in NUMBERS)
    ]


def preset_in_force(known: Json, category: str, preset: str) -> Json:
    """What the service will use where a field is left empty."""
    for one in known["categories"]:
        if one["id"] == category and one["preset"] == preset:
            defaults: Json = one["defaults"]
            return defaults
    chosen: Json = next(one for one in known["data"] if one["id"] == (preset or DEFAULT_PRESET))
    return chosen


async def limits_of(api: Api) -> Json:
    limits: Json = (await api.models())["data"][0]["limits"]
    return limits
