"""What a browser is given of the page before any script runs: its document, and its files."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from serve.web.hosting.assets import Assets
from serve.web.hosting.document import Document, written
from serve.web.words import LANGUAGES, Language, words_of

SPEC = find_spec("gradio")
assert SPEC is not None
assert SPEC.submodule_search_locations
FRONTEND = Path(SPEC.submodule_search_locations[0], "templates", "frontend")


@pytest.mark.parametrize("language", LANGUAGES)
def test_gradios_document_is_readable_and_names_no_other_host(language: Language) -> None:
    words = words_of(language)
    document = written((FRONTEND / "index.html").read_text("utf-8"), words)
    assert f'<html lang="{words("page.language")}"' in document
    assert document.index("charset") < document.index("navigator") < document.index('"module"')
    beginning, _, rest = document.partition("<gradio-app")
    assert words("page.tagline") in beginning
    assert rest
    for name in ("og:", "twitter:", "githubusercontent", "gradio.app", "manifest.json"):
        assert name not in document


PLAIN = '<html lang="en"><head><meta charset="utf-8" /></head><gradio-app></gradio-app></html>'


def documents(_: Request) -> Response:
    return HTMLResponse(PLAIN)


def test_only_gradios_documents_are_written_anew() -> None:
    routes = [Route(path, documents) for path in ("/ui/en/", "/ui/zh/", "/ui/zh/other")]
    pages = {f"/ui/{language}/": words_of(language) for language in LANGUAGES}
    site = TestClient(Document(Starlette(routes=routes), pages))
    plain = site.get("/ui/zh/", headers={"Accept-Encoding": "identity"})
    assert 'lang="zh-CN"' in plain.text
    assert "content-encoding" not in plain.headers
    small = site.get("/ui/zh/", headers={"Accept-Encoding": "gzip"})
    assert (small.text, small.headers["content-encoding"]) == (plain.text, "gzip")
    assert 'lang="en"' in site.get("/ui/en/").text
    assert site.get("/ui/zh/other").text == PLAIN
    assert site.get("/ui/none/").status_code == 404


def test_files_are_given_out_whole_and_for_good() -> None:
    site = TestClient(Starlette(routes=[Mount("/ui/en/assets", Assets())]))
    script = max((FRONTEND / "assets").glob("index-*.js"), key=lambda file: file.stat().st_size)
    for encoding in ("gzip", "identity"):
        for _ in range(2):
            answer = site.get(f"/ui/en/assets/{script.name}", headers={"Accept-Encoding": encoding})
            assert answer.content == script.read_bytes()
            assert answer.headers.get("content-encoding", "identity") == encoding
            assert "immutable" in answer.headers["cache-control"]
            assert "javascript" in answer.headers["content-type"]
    assert int(site.get(f"/ui/en/assets/{script.name}").headers["content-length"]) < len(
        gzip.compress(script.read_bytes(), 1)
    )
    font = next((FRONTEND / "assets").glob("*.woff2"))
    answer = site.get(f"/ui/en/assets/{font.name}")
    assert answer.content == font.read_bytes()
    assert "content-encoding" not in answer.headers
    for nothing in ("none.js", "..%2Findex.html", "%2e%2e/index.html", ""):
        assert site.get(f"/ui/en/assets/{nothing}").status_code == 404
