"""The page in one language: its head, the key where one is needed, and its views."""

from collections.abc import Callable

import gradio as gr

from serve.web import markup
from serve.web.actions import QUIET
from serve.web.api import NO_KEY, Api, Refused
from serve.web.catalogue.view import CatalogueView
from serve.web.cluster.view import ClusterView
from serve.web.create.view import CreateView
from serve.web.gallery.view import GalleryView
from serve.web.words import Words
from video.photo import PhotoLimits

_WHERE = "() => [window.location.pathname + window.location.search]"


def build_page(
    words: Words,
    api_of: Callable[[gr.Request], Api],
    photos: PhotoLimits,
    grafana_url: str | None,
) -> gr.Blocks:
    with gr.Blocks(
        title=words("page.title"), analytics_enabled=False, delete_cache=(3600, 3600)
    ) as page:
        gr.HTML(markup.heading(words))
        key = gr.HTML(elem_id="key")
        where = gr.Textbox(visible="hidden")

        async def ask_for_key(back: str, request: gr.Request) -> str:
            api = api_of(request)
            try:
                await api.models()
            except Refused as e:
                if e.code in NO_KEY:
                    return markup.key_form(words, back, wrong="key=wrong" in back)
                return markup.alert(words, e)
            return markup.forget_form(words, back) if api.headers else ""

        page.load(ask_for_key, where, key, js=_WHERE, **QUIET)
        with gr.Tabs(overflow_behavior="wrap") as tabs:
            with gr.Tab(words("gallery.create_tab"), id="create") as create:
                CreateView(words, api_of, photos).draw(page)
            with gr.Tab(words("gallery.tab"), id="gallery") as gallery:
                GalleryView(words, api_of).draw(gallery)
            with gr.Tab(words("catalogue.tab"), id="catalogue") as catalogue:
                CatalogueView(words, api_of).draw(page, tabs, catalogue)
            with gr.Tab(words("cluster.tab"), id="cluster") as cluster:
                ClusterView(words, api_of, grafana_url).draw(cluster, create, gallery, catalogue)
    # Gradio runs one call of a function at a time unless told; these all wait for the API.
    return page.queue(default_concurrency_limit=None)
