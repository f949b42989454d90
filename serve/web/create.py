"""Create: photos and wishes in, progress, videos and what can be done with them out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from catalog.presets import DEFAULT_PRESET
from serve.web import markup
from serve.web.api import Api, Json, Refused
from serve.web.look import preview
from serve.web.telling import ENDED
from serve.web.wishes import NEGATIVE_CHARS, Wishes, again, ids_of
from serve.web.words import Words
from video.photo import Fit, PhotoLimits

_TICK_S = 1.0
_MOST_SHOWN = 12
_RATINGS = {"good": 1, "bad": -1}
_ACTIONS = """element.addEventListener('click', (e) => {
  const button = e.target.closest('[data-act]');
  if (button) trigger('click', {act: button.dataset.act, video: button.dataset.video});
});"""
_KEEP_IDS = """(ids) => {
  const url = new URL(window.location);
  ids ? url.searchParams.set('video', ids) : url.searchParams.delete('video');
  window.history.replaceState(null, '', url);
}"""
_READ_IDS = "() => [new URLSearchParams(window.location.search).get('video') || '']"

Updates = dict[Any, Any]


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
                files = gr.File(
                    label=words("create.photos"), file_count="multiple", file_types=["image"]
                )
                previews = gr.HTML(container=False)
                with gr.Row():
                    category = gr.Dropdown(label=words("create.category"), min_width=140)
                    title = gr.Textbox(
                        label=words("create.title"),
                        placeholder=words("create.title_hint"),
                        max_length=500,
                        min_width=220,
                        scale=2,
                    )
                prompt = gr.Textbox(
                    label=words("create.prompt"), info=words("create.prompt_help"), lines=3
                )
                advice = gr.HTML()
                preset = gr.Radio(label=words("create.preset"))
                count = gr.Slider(
                    1,
                    2,
                    value=1,
                    step=1,
                    label=words("create.candidates"),
                    info=words("create.candidates_help"),
                )
                advanced = self._advanced()
                start = gr.Button(words("create.start"), variant="primary", elem_id="start")
                refused = gr.HTML()
            with gr.Column(scale=6, min_width=320):
                gr.HTML(f"<h2>{words('job.heading')}</h2>")
                progress = gr.HTML(markup.nothing(words), js_on_load=_ACTIONS, elem_id="progress")
                results = gr.HTML(js_on_load=_ACTIONS, elem_id="results")
        ids = gr.Textbox(visible="hidden")  # in the page all the same: `change` comes from there
        made = gr.Textbox(visible="hidden")  # the prompt that was made, to know it from one's own
        timer = gr.Timer(_TICK_S, active=False)

        hints = [advanced[name] for name in _NUMBERS]
        seen = [progress, results, timer]
        quiet: Updates = {"show_progress": "hidden", "api_visibility": "private"}
        form = [category, title, prompt, made, preset, count, *advanced.values()]

        page.load(
            self._opened, ids, [ids, category, preset, count, *hints, *seen], js=_READ_IDS, **quiet
        )
        ids.change(None, ids, None, js=_KEEP_IDS, api_visibility="private")
        gr.on(
            [category.change, title.change],
            self._compose,
            [category, title, prompt, made],
            [prompt, made, advice],
            trigger_mode="always_last",
            **quiet,
        )
        prompt.input(self._check, prompt, advice, trigger_mode="always_last", **quiet)
        category.input(self._category, category, preset, **quiet)
        gr.on([category.change, preset.change], self._hints, [category, preset], hints, **quiet)
        gr.on(
            [files.change, preset.change, advanced["fit"].change],
            self._preview,
            [files, preset, advanced["fit"]],
            previews,
            trigger_mode="always_last",
            **quiet,
        )
        start.click(
            self._start, [files, ids, *form], [ids, refused], api_visibility="private"
        ).then(self._look, ids, seen, **quiet)
        timer.tick(self._look, ids, seen, **quiet)
        for shown in (progress, results):
            shown.click(self._act, ids, [ids, refused], **quiet).then(
                self._look, ids, seen, **quiet
            )

    def _advanced(self) -> dict[str, Any]:
        """By name of the parameter; in the order of `Wishes`."""
        words = self.words
        with gr.Accordion(words("create.advanced"), open=False):
            fit = gr.Dropdown(
                [(words(f"create.fits.{one}"), str(one)) for one in Fit],
                value=str(Fit.CROP),
                label=words("create.fit"),
            )
            with gr.Row():
                numbers = {
                    name: gr.Number(
                        value=None, label=words(f"create.{label}"), precision=digits, min_width=150
                    )
                    for name, (label, digits) in _NUMBERS.items()
                }
            negative = gr.Textbox(
                label=words("create.negative"),
                info=words("create.negative_help"),
                max_length=NEGATIVE_CHARS,
            )
            with gr.Row():
                seed = gr.Number(
                    value=None,
                    label=words("create.seed"),
                    info=words("create.seed_help"),
                    precision=0,
                )
                sku = gr.Textbox(label=words("create.sku"), max_length=200)
            smooth = gr.Checkbox(label=words("create.smooth"))
        return {
            "fit": fit,
            **numbers,
            "negative_prompt": negative,
            "seed": seed,
            "sku": sku,
            "enable_frame_interpolation": smooth,
        }

    async def _opened(self, ids: str, request: gr.Request) -> list[Any]:
        words, api = self.words, self.api_of(request)
        ids = ",".join(ids_of(ids))
        try:
            limits, known = await asyncio.gather(_limits(api), api.presets())
        except Refused:  # the head of the page tells; here the form stays empty
            return [ids, *[gr.skip()] * (3 + len(_NUMBERS)), *await self._look(ids, request)]
        categories = [(words("create.no_category"), "")]
        categories += [(one["id"].capitalize(), one["id"]) for one in known["categories"]]
        presets = [
            (words.get(f"create.presets.{one['id']}", one["id"]), one["id"])
            for one in known["data"]
        ]
        most = limits["max_candidates"]
        return [
            ids,
            gr.update(choices=categories, value=""),
            gr.update(choices=presets, value=DEFAULT_PRESET),
            gr.update(maximum=most, visible=most > 1),
            *self._ranges(limits, _preset(known, "", DEFAULT_PRESET)),
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
            return [gr.skip()] * len(_NUMBERS)
        return self._ranges(limits, _preset(known, category, preset))

    def _ranges(self, limits: Json, preset: Json) -> list[Any]:
        frames = limits["min_num_frames"], limits["max_num_frames"]
        bounds = {"num_frames": frames, **_BOUNDS}
        return [
            gr.update(
                info=self.words("create.left_empty", low=low, high=high, value=f"{preset[name]:g}")
            )
            for name, (low, high) in ((name, bounds[name]) for name in _NUMBERS)
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
        self, files: Sequence[str] | None, preset: str, fit: str, request: gr.Request
    ) -> str:
        api = self.api_of(request)
        try:
            model, known = await asyncio.gather(_limits(api), api.presets())
        except Refused:
            return ""
        chosen = _preset(known, "", preset)
        multiple = model["size_multiple"]
        shown = [
            await asyncio.to_thread(preview, Path(file), fit, chosen, multiple, self.photos)
            for file in (files or [])[:_MOST_SHOWN]
        ]
        return markup.previews(self.words, [one for one in shown if one is not None])

    async def _start(
        self, request: gr.Request, files: Sequence[str] | None, ids: str, *form: Any
    ) -> tuple[str, str]:
        """One job a photo; what is refused does not keep the others."""
        wishes = _wishes(*form)
        if not files:
            return ids, _hint(self.words("create.no_photo"))
        if not wishes.say_something:
            return ids, _hint(self.words("create.nothing_said"))
        api, created, troubles = self.api_of(request), [], []
        for file in map(Path, files):
            try:
                uploaded = await api.upload(file, file.name)
                created.append((await api.create(wishes.fields(uploaded["id"], file.name)))["id"])
            except Refused as e:
                troubles.append(markup.alert(self.words, e, file.name))
        return _joined(created, ids), "".join(troubles)

    async def _act(self, ids: str, event: gr.EventData, request: gr.Request) -> tuple[str, str]:
        chosen: dict[str, str] = event._data or {}
        act, (video_id, *_) = chosen.get("act"), [*ids_of(chosen.get("video", "")), ""]
        if act is None or not video_id:
            return ids, ""
        api, created = self.api_of(request), []
        try:
            if act == "cancel":
                await api.cancel(video_id)
            elif act == "again":
                body = again(await api.video(video_id))
                created = [(await api.create(body))["id"]] if body else []
            elif act in _RATINGS:
                await api.rate(video_id, _RATINGS[act])
        except Refused as e:
            return ids, markup.alert(self.words, e)
        return _joined(created, ids), ""

    async def _look(self, ids: str, request: gr.Request) -> list[Any]:
        """[progress, results, timer]. What has not changed is drawn the same, so it plays on."""
        wanted = ids_of(ids)
        if not wanted:
            return [markup.nothing(self.words), "", gr.Timer(active=False)]
        api = self.api_of(request)
        found = await asyncio.gather(*(_tried(api.video(one)) for one in wanted))
        at_work, ended = [], []
        for one in found:
            if isinstance(one, Refused):
                at_work.append(markup.alert(self.words, one))
            elif one["status"] in ENDED:
                ended.append(markup.ended(self.words, one))
            else:
                at_work.append(markup.progress(self.words, one))
        if any(isinstance(one, Refused) and one.code == "unreachable" for one in found):
            return [_hint(self.words("page.offline")), gr.skip(), gr.Timer(active=True)]
        return ["".join(at_work), "".join(ended), gr.Timer(active=len(ended) < len(wanted))]


_NUMBERS: dict[str, tuple[str, int | None]] = {  # parameter: (name of its words, digits)
    "num_inference_steps": ("steps", 0),
    "guidance_scale": ("guidance", None),
    "num_frames": ("frames", 0),
    "fps": ("fps", 0),
    "motion_fps": ("motion", 0),
}
_BOUNDS = {
    "num_inference_steps": (1, 200),
    "guidance_scale": (1, 20),
    "fps": (1, 60),
    "motion_fps": (1, 60),
}
"""Of the parameters' schemas at /openapi.json; tests/unit/test_web.py holds the two together."""


def _wishes(
    category: str, title: str, prompt: str, made: str, preset: str, count: int, *advanced: Any
) -> Wishes:
    fit, steps, guidance, frames, fps, motion, negative, seed, sku, smooth = advanced
    own = prompt.strip() if prompt.strip() != made.strip() else ""
    return Wishes(
        category=category or None,
        title=title.strip() or None,
        prompt=own or None,
        preset=preset or None,
        n=int(count),
        fit=None if fit == Fit.CROP else fit,
        num_inference_steps=steps,
        guidance_scale=guidance,
        num_frames=frames,
        fps=fps,
        motion_fps=motion,
        negative_prompt=negative.strip() or None,
        seed=seed,
        sku=sku.strip() or None,
        enable_frame_interpolation=smooth,
    )


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
