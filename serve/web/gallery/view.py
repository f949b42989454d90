"""Gallery: my videos, newest first, with what can be done with each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from serve.web import markup
from serve.web.actions import LISTEN, QUIET, act
from serve.web.api import Api, Refused
from serve.web.gallery.listing import newest
from serve.web.limits import Offer
from serve.web.telling import ENDED
from serve.web.words import Words

_PAGE = 24
_TICK_S = 3.0
_STATUSES = ("queued", "in_progress", "completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class GalleryView:
    words: Words
    api_of: Callable[[gr.Request], Api]

    def draw(self, tab: gr.Tab) -> None:
        words = self.words
        everything = (words("gallery.all"), "")
        with gr.Row():
            statuses = [(words(f"gallery.statuses.{one}"), one) for one in _STATUSES]
            status = gr.Dropdown(
                [everything, *statuses], value="", label=words("gallery.status"), min_width=140
            )
            category = gr.Dropdown(
                [everything], value="", label=words("create.category"), min_width=140
            )
            sku = gr.Textbox(label=words("create.sku"), max_length=200, min_width=140)
        trouble = gr.HTML()
        shelf = gr.HTML(js_on_load=LISTEN, elem_id="shelf")
        more = gr.Button(words("gallery.more"), visible=False)
        count = gr.Number(_PAGE, precision=0, visible="hidden")
        timer = gr.Timer(_TICK_S, active=False)  # ticks while one of those shown is being made
        asked, shown = [status, sku, category, count], [shelf, more, timer]
        tab.select(self._opened, None, [category, count], **QUIET).then(
            self._look, asked, shown, **QUIET
        )
        gr.on(
            [status.change, category.change, sku.submit, sku.blur], _first, None, count, **QUIET
        ).then(self._look, asked, shown, **QUIET)
        timer.tick(self._look, asked, shown, **QUIET)
        more.click(_next, count, count, **QUIET).then(self._look, asked, shown, **QUIET)
        shelf.click(self._act, None, trouble, **QUIET).then(self._look, asked, shown, **QUIET)

    async def _opened(self, request: gr.Request) -> list[Any]:
        try:
            offer = await Offer.of(self.api_of(request))
        except Refused:  # the shelf tells
            return [gr.skip(), _PAGE]
        return [gr.update(choices=offer.category_choices(self.words("gallery.all"))), _PAGE]

    async def _look(
        self, status: str, sku: str, category: str, count: int, request: gr.Request
    ) -> list[Any]:
        try:
            videos, has_more = await newest(
                self.api_of(request),
                int(count),
                status=status,
                sku=sku.strip(),
                category=category,
            )
        except Refused as e:
            return [markup.alert(self.words, e), gr.update(visible=False), gr.Timer(active=False)]
        at_work = any(one["status"] not in ENDED for one in videos)
        return [
            markup.shelf(self.words, videos),
            gr.update(visible=has_more),
            gr.Timer(active=at_work),
        ]

    async def _act(self, event: gr.EventData, request: gr.Request) -> str:
        try:
            await act(self.api_of(request), event._data)
        except Refused as e:
            return markup.alert(self.words, e)
        return ""


def _first() -> int:
    return _PAGE


def _next(count: int) -> int:
    return int(count) + _PAGE
