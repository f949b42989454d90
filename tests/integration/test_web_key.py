"""The web page where keys are needed: asked for in the page, kept out of its reach, and accessible
to everybody. The API is the real one over the real stores; no cluster runs behind it."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from serve.web.config import WebConfig
from serve.web.routes import build_site
from serve.web.words import Language, words_of
from storage.object_store import ObjectStoreConfig
from tests.integration.browser import Tab, chromium
from tests.integration.service import Service, jpeg
from video.photo import PhotoLimits

pytestmark = pytest.mark.timeout(240)

_RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def service(s3: ObjectStoreConfig, tmp_path: Path) -> Service:
    return Service(s3, tmp_path, auth=True)


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    """API and page at one address, as Serve's proxy shows them."""
    site = build_site(WebConfig(), PhotoLimits())

    @asynccontextmanager
    async def both(_: Starlette) -> AsyncIterator[None]:
        async with (
            service.app.router.lifespan_context(service.app),
            site.router.lifespan_context(site),
        ):
            yield

    beginning = Starlette(lifespan=both)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await beginning(scope, receive, send)
        elif scope["path"].startswith("/ui"):
            await site(scope, receive, send)
        else:
            await service.app(scope, receive, send)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


def secret_of(service: Service) -> str:
    return service.key("shop-a")["Authorization"].removeprefix("Bearer ")


def test_a_key_is_asked_for_and_no_script_ever_sees_it(
    browser: Browser, url: str, service: Service
) -> None:
    secret = secret_of(service)
    created = service.create(jpeg(), headers={"Authorization": f"Bearer {secret}"}).json()
    tab = Tab(browser, url, f"/ui/en/?video={created['id']}")
    field = tab.page.get_by_label("API key")
    expect(field).to_be_visible()
    tab.shoot("key")
    field.fill("reel_nobody_knows")
    tab.click("Use this key")
    expect(tab.page.get_by_role("alert").first).to_contain_text("This key does not work")
    tab.page.get_by_label("API key").fill(secret)
    tab.click("Use this key")

    expect(tab.jobs()).to_have_attribute("data-video", created["id"])
    expect(tab.page.get_by_label("API key")).to_have_count(0)
    (cookie,) = tab.context.cookies()
    assert (cookie["value"], cookie["path"], cookie["expires"]) == (secret, "/ui", -1)
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert secret not in tab.page.content()
    assert secret not in tab.page.url
    reach = "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])"
    assert secret not in tab.page.evaluate(reach)

    tab.page.reload()
    expect(tab.jobs()).to_have_attribute("data-video", created["id"])
    tab.click("Forget my API key")
    expect(tab.page.get_by_label("API key")).to_be_visible()
    assert tab.context.cookies() == []
    assert tab.outside == set()
    tab.close()


def test_a_photo_reaches_the_api_under_the_key_of_whoever_looks(
    browser: Browser, url: str, service: Service, tmp_path: Path
) -> None:
    """No Dispatcher runs here, so the video waits; cancelling it needs none."""
    photo = tmp_path / "mug.jpg"
    photo.write_bytes(jpeg())
    key = service.key("shop-b")
    tab = Tab(browser, url, "/ui/en/")
    tab.page.get_by_label("API key").fill(key["Authorization"].removeprefix("Bearer "))
    tab.click("Use this key")
    expect(tab.page.get_by_label("Standard", exact=True)).to_be_checked()
    tab.add(photo)
    expect(tab.page.get_by_alt_text("mug.jpg, as the model will see it")).to_be_visible()
    tab.page.get_by_label("What should happen").fill("it looks very beautiful")
    expect(tab.page.get_by_text("The video may come out better if")).to_be_visible()
    tab.click("Make the video")
    expect(tab.jobs("queued")).to_have_count(1)
    (video,) = service.http.get("/v1/videos", headers=key).json()["data"]
    assert video["prompt"] == "it looks very beautiful"
    assert video["metadata"]["page_name"] == "mug.jpg"
    tab.click("Cancel")
    expect(tab.jobs("cancelled")).to_have_count(1)
    tab.close()


@pytest.mark.parametrize(("language", "dark"), [("en", False), ("zh", True)])
def test_contrast_labels_and_roles_of_every_view_pass_an_automated_check(
    browser: Browser, url: str, service: Service, language: Language, dark: bool
) -> None:
    tab, words = Tab(browser, url, f"/ui/{language}/", dark=dark), words_of(language)
    expect(tab.page.locator("#api-key")).to_be_visible()
    check(tab, "asking for a key")
    secret = secret_of(service)
    service.create(jpeg(), headers={"Authorization": f"Bearer {secret}"})
    tab.page.locator("#api-key").fill(secret)
    tab.page.locator("#api-key").press("Enter")
    expect(tab.page.locator("input[type=radio]:checked")).to_have_count(2)  # quality and model
    tab.page.get_by_role("button", name=words("create.advanced")).click()
    check(tab, "create")
    for view, shown in (
        ("gallery", "#shelf figure"),
        ("catalogue", "#runs h2"),
        ("cluster", "#service h2"),
    ):
        tab.page.get_by_role("tab", name=words(f"{view}.tab")).click()
        expect(tab.page.locator(shown).first).to_be_visible()
        check(tab, view)
        tab.shoot(f"{view}-{language}{'-dark' if dark else ''}")
    tab.close()


def check(tab: Tab, state: str) -> None:
    found = Axe().run(tab.page, options=_RULES)
    assert found.violations_count == 0, f"{state}: {found.generate_report()}"


def test_everything_is_reached_and_started_by_keyboard(
    browser: Browser, url: str, service: Service
) -> None:
    tab = Tab(browser, url, "/ui/en/")
    tab.page.locator("#api-key").fill(secret_of(service))
    tab.page.locator("#api-key").press("Enter")
    expect(tab.page.get_by_label("Standard", exact=True)).to_be_checked()
    reached: list[str] = []
    while "start" not in reached and len(reached) < 40:
        tab.page.keyboard.press("Tab")
        reached.append(
            tab.page.evaluate(
                "() => { const a = document.activeElement; return a.id || a.role || a.ariaLabel"
                " || a.type || a.tagName; }"
            )
        )
    assert "start" in reached, reached
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("alert").first).to_contain_text("Add a photo first.")
    tab.page.get_by_role("tab", name="My videos").focus()
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#shelf")).to_contain_text("No videos here.")
    tab.close()


def test_the_page_is_no_way_around_the_api(url: str) -> None:
    with httpx2.Client(base_url=url, trust_env=False) as http:
        assert http.get("/ui/media/video_0a").status_code == 401
        assert http.get("/ui/media/..%2F..%2Fv1%2Fmodels").status_code == 404
        strange = {"Origin": "https://elsewhere.example"}
        assert http.post("/ui/key", data={"key": "k"}, headers=strange).status_code == 403
        answer = http.post("/ui/key", data={"key": "", "back": "https://elsewhere.example/x"})
        assert answer.headers["location"] == "/ui/"
        answer = http.get("/ui/", headers={"Accept-Language": "zh-CN"})
        assert answer.headers["location"] == "/ui/zh/"
