"""Everything below /ui: the page in two languages, the key's cookie, videos' and runs' files."""

from importlib.resources import files
from typing import Annotated
from urllib.parse import urlsplit

import gradio as gr
import httpx2
from fastapi import FastAPI, Form, Request
from fastapi.responses import RedirectResponse, Response

from serve.web.api import KEY_COOKIE, Api, Refused
from serve.web.catalogue.runs import is_of_report, is_run
from serve.web.config import WebConfig
from serve.web.hosting.document import Document
from serve.web.hosting.door import PREFIX
from serve.web.hosting.handing import hand_on
from serve.web.hosting.headers import PageHeaders
from serve.web.page import build_page
from serve.web.wishes import is_id
from serve.web.words import LANGUAGES, preferred, words_of
from video.photo import PhotoLimits

_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "sans-serif"]


def build_site(config: WebConfig, photos: PhotoLimits) -> FastAPI:
    site = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    http = httpx2.AsyncClient(trust_env=False, limits=httpx2.Limits(max_connections=200))

    def api_of(request: Request | gr.Request) -> Api:
        # Gradio's stands around Starlette's.
        return Api.of(http, getattr(request, "request", request), config.api_url)

    @site.get(f"{PREFIX}/")
    async def choose_language(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        language = preferred(request.headers.get("accept-language"))
        return RedirectResponse(f"{PREFIX}/{language}/{query}", headers={"Vary": "Accept-Language"})

    @site.post(f"{PREFIX}/key")
    async def keep_key(
        request: Request, key: Annotated[str, Form()] = "", back: Annotated[str, Form()] = ""
    ) -> Response:
        """The browser gives the key back with every request below /ui until it is closed; no
        script can read it. A form of another site is refused: it would put its own key in."""
        if not _is_our_own(request):
            return Response(status_code=403)
        place = urlsplit(back).path
        if not place.startswith(f"{PREFIX}/"):
            place = f"{PREFIX}/"
        query = urlsplit(back).query.replace("key=wrong", "").strip("&")
        key = key.strip()
        known = not key or await _is_known(api_of(request), key)
        if not known:
            query = f"{query}&key=wrong".strip("&")
        response = RedirectResponse(f"{place}?{query}" if query else place, status_code=303)
        if known and key:
            response.set_cookie(
                KEY_COOKIE,
                key,
                path=PREFIX,
                httponly=True,
                samesite="strict",
                secure=_is_over_tls(request),
            )
        elif known:
            response.delete_cookie(KEY_COOKIE, path=PREFIX)
        return response

    @site.get(f"{PREFIX}/media/{{video_id}}")
    async def media(video_id: str, request: Request) -> Response:
        """A file of a video, as the API gives it, for elements that can send no key."""
        if not is_id(video_id):
            return Response(status_code=404)
        return await hand_on(api_of(request), f"/v1/videos/{video_id}/content", request)

    @site.get(f"{PREFIX}/batches/{{batch_id}}/{{name:path}}")
    async def of_a_run(batch_id: str, name: str, request: Request) -> Response:
        """A run's report and, by the addresses that stand in it, what it links to."""
        if not is_run(batch_id) or not is_of_report(name):
            return Response(status_code=404)
        return await hand_on(api_of(request), f"/v1/batches/{batch_id}/{name}", request)

    for language in LANGUAGES:
        words = words_of(language)
        gr.mount_gradio_app(
            site,
            build_page(words, api_of, photos, config.grafana_url),
            path=f"{PREFIX}/{language}",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            max_file_size=photos.max_bytes,
            theme=_theme(),
            css=files("serve.web").joinpath("page.css").read_text("utf-8"),
        )
    pages = {f"{PREFIX}/{language}/": words_of(language) for language in LANGUAGES}
    site.add_middleware(Document, pages=pages)
    site.add_middleware(PageHeaders)
    return site


def _theme() -> gr.themes.Base:
    """Gradio's own greys and greens are too faint to read by WCAG's measure (4.5 : 1)."""
    faint, faint_dark = "#52525b", "#d4d4d8"
    return gr.themes.Base(primary_hue="teal", font=_FONTS, font_mono=["monospace"]).set(
        body_text_color_subdued=faint,
        body_text_color_subdued_dark=faint_dark,
        input_placeholder_color=faint,
        input_placeholder_color_dark=faint_dark,
        block_label_text_color=faint,
        block_label_text_color_dark=faint_dark,
        block_title_text_color=faint,
        block_title_text_color_dark=faint_dark,
        color_accent="*primary_700",
        link_text_color="*primary_700",
        link_text_color_visited="*primary_800",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def _is_our_own(request: Request) -> bool:
    """By the header that no page can set for another: browsers send it with every form."""
    origin = request.headers.get("origin")
    hosts = (request.headers.get("host"), request.headers.get("x-forwarded-host"))
    return origin is None or urlsplit(origin).netloc in hosts


def _is_over_tls(request: Request) -> bool:
    """As the browser sees it: a gateway may end TLS and say so."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))


async def _is_known(api: Api, key: str) -> bool:
    try:
        await Api(api.http, api.base_url, {"Authorization": f"Bearer {key}"}).models()
    except Refused as e:
        return e.code == "unreachable"  # then the page says so
    except ValueError:  # no header can hold it
        return False
    return True
