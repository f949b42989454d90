"""Create: photos and wishes in, progress, videos and what can be done with them out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from catalog.presets import DEFAULT_PRESET
from serve.web import markup
from serve.web.actions import LISTEN, act
from serve.web.api import NO_KEY, Api, Json, Refused, UploadedPhoto
from serve.web.form import FIELDS, Form, told, wishes_of
from serve.web.look import preview
from serve.web.telling import ENDED
from serve.web.wishes import BOUNDS, NUMBERS, Wishes, ids_of, is_id, wished
from serve.web.words import Words
from video.photo import PhotoLimits

_TICK_S = 1.0
_MOST_SHOWN = 12
_FOR_GOOD = {*NO_KEY, "video_not_found"}
"""Refusals that asking again changes nothing about; wrong keys are counted against us."""
_KEEP_IDS = """(ids) => {
  const url = new URL(window.location);
  ids ? url.searchParams.set('video', ids) : url.searchParams.delete('video');
  window.history.replaceState(null, '', url);
}"""
_READ_ADDRESS = """() => {
  const asked = new URLSearchParams(window.location.search);
  return [asked.get('video') || '', asked.get('like') || ''];
}"""

_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True, slots=True)
class CreateView:
    """`api_of` gives the API on behalf of whoever asks. Nothing is kept here: the videos' ids stand
    in the address, everything else the API knows."""

    words: Words
    api_of: Callable[[gr.Request], Api]
    photos: PhotoLimits

    def draw(self, page: gr.Blocks) -> None:
        words = self.words
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                form = Form.draw(words)
            with gr.Column(scale=6, min_width=320):
                gr.HTML(f"<h2>{words('job.heading')}</h2>")
                progress = gr.HTML(markup.nothing(words), js_on_load=LISTEN, elem_id="progress")
                results = gr.HTML(js_on_load=LISTEN, elem_id="results")
        ids = gr.Textbox(visible="hidden")  # in the page all the same: `change` comes from there
        timer = gr.Timer(_TICK_S, active=False)
        self._fill_in(form)
        seen = [progress, results, timer]
        page.load(
            self._opened,
            [ids, form.photo],
            [ids, form.photo, form.previews, *form.values, *seen],
            js=_READ_ADDRESS,
            **_QUIET,
        )
        ids.change(None, ids, None, js=_KEEP_IDS, api_visibility="private")
        form.start.click(
            self._start,
            [form.files, form.photo, ids, *form.values],
            [ids, form.refused],
            api_visibility="private",
        ).then(self._look, ids, seen, **_QUIET)
        timer.tick(self._look, ids, seen, **_QUIET)
        for shown in (progress, results):
            shown.click(self._act, ids, [ids, form.refused], **_QUIET).then(
                self._look, ids, seen, **_QUIET
            )

    def _fill_in(self, form: Form) -> None:
        """What changes while somebody fills in the form."""
        said = [form.category, form.title, form.prompt, form.made]
        gr.on(
            [form.category.change, form.title.change],
            self._compose,
            said,
            [form.prompt, form.made, form.advice],
            trigger_mode="always_last",
            **_QUIET,
        )
        form.prompt.input(
            self._check, form.prompt, form.advice, trigger_mode="always_last", **_QUIET
        )
        form.category.input(self._category, form.category, form.preset, **_QUIET)
        gr.on(
            [form.category.change, form.preset.change],
            self._hints,
            [form.category, form.preset],
            form.numbers,
            **_QUIET,
        )
        gr.on(
            [form.files.change, form.preset.change, form.fit.change],
            self._preview,
            [form.files, form.photo, form.preset, form.fit],
            form.previews,
            trigger_mode="always_last",
            **_QUIET,
        )

    async def _opened(self, ids: str, like: str, request: gr.Request) -> list[Any]:
        """`like`: a video whose photo and settings the form begins with."""
        words, api = self.words, self.api_of(request)
        ids = ",".join(ids_of(ids))
        try:
            limits, known = await asyncio.gather(_limits(api), api.presets())
            model = await api.video(like) if is_id(like) else None
        except Refused:  # the head of the page tells; here the form stays empty
            return [ids, "", *[gr.skip()] * (1 + FIELDS), *await self._look(ids, request)]
        begun = None if model is None else wished(model)
        wishes, photo = begun or (Wishes(preset=DEFAULT_PRESET), None)
        category, title, prompt, made, preset, count, fit, *others = told(wishes)
        numbers, others = others[: len(NUMBERS)], others[len(NUMBERS) :]
        ranges = self._ranges(limits, _preset(known, category, preset))
        categories = [(words("create.no_category"), "")]
        categories += [(one["id"].capitalize(), one["id"]) for one in known["categories"]]
        presets = [
            (words.get(f"create.presets.{one['id']}", one["id"]), one["id"])
            for one in known["data"]
        ]
        most = limits["max_candidates"]
        return [
            ids,
            "" if photo is None else str(photo),
            "" if photo is None else markup.earlier_photo(words, photo.name),
            gr.update(choices=categories, value=category),
            title,
            prompt,
            made,
            gr.update(choices=presets, value=preset),
            gr.update(maximum=most, visible=most > 1, value=count),
            fit,
            *({**one, "value": value} for one, value in zip(ranges, numbers, strict=True)),
            *others,
            *await self._look(ids, request),
        ]

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
            limits, known = await asyncio.gather(_limits(api), api.presets())
        except Refused:
            return [gr.skip()] * len(NUMBERS)
        return self._ranges(limits, _preset(known, category, preset))

    def _ranges(self, limits: Json, preset: Json) -> list[Any]:
        frames = limits["min_num_frames"], limits["max_num_frames"]
        bounds = {"num_frames": frames, **BOUNDS}
        return [
            gr.update(
                info=self.words("create.left_empty", low=low, high=high, value=f"{preset[name]:g}")
            )
            for name, (low, high) in ((name, bounds[name]) for name in NUMBERS)
        ]

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
            model, known = await asyncio.gather(_limits(api), api.presets())
        except Refused:
            return ""
        chosen = _preset(known, "", preset)
        multiple = model["size_multiple"]
        shown = [
            await asyncio.to_thread(preview, Path(file), fit, chosen, multiple, self.photos)
            for file in files[:_MOST_SHOWN]
        ]
        return markup.previews(self.words, [one for one in shown if one is not None])

    async def _start(
        self,
        request: gr.Request,
        files: Sequence[str] | None,
        earlier: str,
        ids: str,
        *form: Any,
    ) -> tuple[str, str]:
        """One job a photo; what is refused does not keep the others."""
        wishes, photo = wishes_of(*form), UploadedPhoto.read(earlier)
        if not files and photo is None:
            return ids, _hint(self.words("create.no_photo"))
        if not wishes.say_something:
            return ids, _hint(self.words("create.nothing_said"))
        api, created, troubles = self.api_of(request), [], []
        for source in map(Path, files) if files else (photo,):
            try:
                uploaded = await api.upload(source) if isinstance(source, Path) else source
                created.append((await api.create(wishes.fields(uploaded)))["id"])
            except Refused as e:
                troubles.append(markup.alert(self.words, e, source.name))
        return _joined(created, ids), "".join(troubles)

    async def _act(self, ids: str, event: gr.EventData, request: gr.Request) -> tuple[str, str]:
        try:
            made = await act(self.api_of(request), event._data)
        except Refused as e:
            return ids, markup.alert(self.words, e)
        return _joined([made] if made else [], ids), ""

    async def _look(self, ids: str, request: gr.Request) -> list[Any]:
        """[progress, results, timer]. What has not changed is drawn the same, so it plays on."""
        wanted = ids_of(ids)
        if not wanted:
            return [markup.nothing(self.words), "", gr.Timer(active=False)]
        api = self.api_of(request)
        found = await asyncio.gather(*(_tried(api.video(one)) for one in wanted))
        refused = {one.code: one for one in found if isinstance(one, Refused)}
        if "unreachable" in refused:
            return [_hint(self.words("page.offline")), gr.skip(), gr.Timer(active=True)]
        told = [markup.alert(self.words, one) for one in refused.values()]
        videos = [one for one in found if not isinstance(one, Refused)]
        ended = [one for one in videos if one["status"] in ENDED]
        at_work = [one for one in videos if one["status"] not in ENDED]
        return [
            "".join([*told, *(markup.progress(self.words, one) for one in at_work)]),
            "".join(markup.ended(self.words, one) for one in ended),
            gr.Timer(active=bool(at_work) or not refused.keys() <= _FOR_GOOD),
        ]


def _preset(known: Json, category: str, preset: str) -> Json:
    """What the service will use where a field is left empty."""
    for one in known["categories"]:
        if one["id"] == category and one["preset"] == preset:
            defaults: Json = one["defaults"]
            return defaults
    chosen: Json = next(one for one in known["data"] if one["id"] == (preset or DEFAULT_PRESET))
    return chosen


async def _limits(api: Api) -> Json:
    limits: Json = (await api.models())["data"][0]["limits"]
    return limits


async def _tried(call: Awaitable[Json]) -> Json | Refused:
    try:
        return await call
    except Refused as e:
        return e


def _joined(created: Sequence[str], ids: str) -> str:
    """The newest first, and no more than an address has room for."""
    return ",".join([*reversed(created), *ids_of(ids)][:_MOST_SHOWN])


def _hint(text: str) -> str:
    return f'<div class="alert" role="alert"><p>{text}</p></div>'
