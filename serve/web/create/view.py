"""Create: photos and wishes in, progress, videos and what can be done with them out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from catalog.presets import DEFAULT_PRESET
from serve.web import markup
from serve.web.actions import LISTEN, QUIET, act
from serve.web.api import NO_KEY, Api, Json, Refused, UploadedPhoto
from serve.web.create.filling import Filling
from serve.web.create.form import FIELDS, Form, told, wishes_of
from serve.web.limits import Offer, allowed
from serve.web.telling import ENDED
from serve.web.wishes import Wishes, ids_of, is_id, wished
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
_SHOW_PROGRESS = """(refused) => {
  if (!refused) document.getElementById('made').scrollIntoView({block: 'start'});
}"""
"""The button may be far below what it has begun."""
_PLAY = """element.addEventListener('loadeddata', (e) => {
  const clip = e.target;
  if (!clip.autoplay || !clip.paused) return;
  clip.muted = true;
  clip.play().catch(() => {});
}, true);"""
"""Browsers play by themselves what is in sight and muted; Gradio copies elements, and with some
browsers a copy has lost its silence."""
_READ_ADDRESS = """() => {
  const asked = new URLSearchParams(window.location.search);
  return [asked.get('video') || '', asked.get('like') || ''];
}"""


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
            with gr.Column(scale=5, min_width=320, elem_id="form"):
                form = Form.draw(words)
            with gr.Column(scale=6, min_width=320, elem_id="made"):
                gr.HTML(f"<h2>{words('job.heading')}</h2>")
                progress = gr.HTML(markup.nothing(words), js_on_load=LISTEN, elem_id="progress")
                results = gr.HTML(js_on_load=LISTEN + _PLAY, elem_id="results")
        ids = gr.Textbox(visible="hidden")  # in the page all the same: `change` comes from there
        timer = gr.Timer(_TICK_S, active=False)
        Filling(words, self.api_of, self.photos).wire(form)
        seen = [progress, results, timer]
        page.load(
            self._opened,
            [ids, form.photo],
            [ids, form.photo, form.previews, form.settled, *form.values, *seen],
            js=_READ_ADDRESS,
            **QUIET,
        )
        ids.change(None, ids, None, js=_KEEP_IDS, api_visibility="private")
        form.start.click(
            self._start,
            [form.files, form.photo, ids, *form.values],
            [ids, form.refused],
            api_visibility="private",
        ).then(self._look, ids, seen, **QUIET).then(
            None, form.refused, None, js=_SHOW_PROGRESS, api_visibility="private"
        )
        timer.tick(self._look, ids, seen, **QUIET)
        for shown in (progress, results):
            shown.click(self._act, ids, [ids, form.refused], **QUIET).then(
                self._look, ids, seen, **QUIET
            )

    async def _opened(self, ids: str, like: str, request: gr.Request) -> list[Any]:
        """`like`: a video whose photo and settings the form begins with."""
        words, api = self.words, self.api_of(request)
        ids = ",".join(ids_of(ids))
        try:
            offer = await Offer.of(api)
            like_what = await api.video(like) if is_id(like) else None
        except Refused:  # the head of the page tells; here the form stays empty
            return [ids, "", *[gr.skip()] * (2 + FIELDS), *await self._look(ids, request)]
        begun = None if like_what is None else wished(like_what)
        wishes, photo = begun or (Wishes(preset=DEFAULT_PRESET), None)
        model = offer.model(wishes.model)
        strength = wishes.motion_strength or offer.models[0]["limits"]["default_motion_strength"]
        wishes = replace(wishes, model=model["id"], motion_strength=strength)
        return [
            ids,
            "" if photo is None else str(photo),
            "" if photo is None else markup.earlier_photo(words, photo.name),
            wishes.category or "",
            *self._filled_in(offer, wishes),
            *await self._look(ids, request),
        ]

    def _filled_in(self, offer: Offer, wishes: Wishes) -> list[Any]:
        """Updates of Form.values."""
        words, model = self.words, offer.model(wishes.model)
        preset = offer.preset(wishes.category or "", wishes.preset or "")
        move, speed, strength, count, negative, seed, smooth, *numbers = allowed(
            words, model, preset
        )
        models = offer.model_choices(words)
        updates = [
            gr.update(choices=offer.category_choices(words("create.no_category"))),
            *[gr.update()] * 3,  # title, prompt, what it was made of
            gr.update(choices=offer.preset_choices(words)),
            count,
            gr.update(),  # fit
            gr.update(choices=models, visible=len(models) > 1),
            *(move, speed, strength),
            *numbers,
            *(negative, seed, gr.update(), smooth),
        ]
        return [
            {**update, "value": value} for update, value in zip(updates, told(wishes), strict=True)
        ]

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
        sources: list[Path | UploadedPhoto] = [Path(file) for file in files or ()]
        if not sources and photo is not None:
            sources = [photo]
        if not sources:
            return ids, markup.hint(self.words("create.no_photo"))
        if not wishes.say_something:
            return ids, markup.hint(self.words("create.nothing_said"))
        api, troubles = self.api_of(request), []
        created: list[str] = []
        for source in sources:
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
            return [markup.hint(self.words("page.offline")), gr.skip(), gr.Timer(active=True)]
        alerts = [markup.alert(self.words, one) for one in refused.values()]
        videos = [one for one in found if not isinstance(one, Refused)]
        ended = [one for one in videos if one["status"] in ENDED]
        at_work = [one for one in videos if one["status"] not in ENDED]
        return [
            "".join([*alerts, *(markup.progress(self.words, one) for one in at_work)]),
            "".join(markup.ended(self.words, one) for one in ended),
            gr.Timer(active=bool(at_work) or not refused.keys() <= _FOR_GOOD),
        ]


async def _tried(call: Awaitable[Json]) -> Json | Refused:
    try:
        return await call
    except Refused as e:
        return e


def _joined(created: Sequence[str], ids: str) -> str:
    """The newest first, and no more than an address has room for."""
    return ",".join([*reversed(created), *ids_of(ids)][:_MOST_SHOWN])
