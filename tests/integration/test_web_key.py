"""The web page where keys are needed: asked for in the page, and kept out of its reach."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from cluster.embedded_s3 import EmbeddedS3
from tests.integration.browser import Tab, chromium
from tests.integration.page_site import PageSite, page_site
from tests.integration.service import jpeg

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def site(s3_server: EmbeddedS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageSite]:
    with page_site(s3_server, tmp_path_factory.mktemp("key")) as site:
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_a_key_is_asked_for_and_no_script_ever_sees_it(browser: Browser, site: PageSite) -> None:
    secret = site.secret("shop-a")
    key = {"Authorization": f"Bearer {secret}"}
    created = site.service.create(jpeg(), headers=key).json()
    tab = Tab(browser, site.url, f"/ui/en/?video={created['id']}")
    expect(tab.page.get_by_label("API key")).to_be_visible()
    expect(tab.page.locator("#start")).to_be_hidden()  # of no use without a key
    tab.shoot("key")
    tab.page.get_by_label("API key").fill("reel_nobody_knows")
    tab.click("Use this key")
    expect(tab.page.get_by_text("This key does not work")).to_be_visible()
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
    browser: Browser, site: PageSite, tmp_path: Path
) -> None:
    photo = tmp_path / "mug.jpg"
    photo.write_bytes(jpeg())
    secret = site.secret("shop-b")
    tab = Tab(browser, site.url)
    tab.page.get_by_label("API key").fill(secret)
    tab.click("Use this key")
    expect(tab.page.get_by_label("Standard", exact=True)).to_be_checked()
    tab.add(photo)
    expect(tab.page.get_by_alt_text("mug.jpg, as the model will see it")).to_be_visible()
    tab.page.get_by_label("What should happen").fill("it looks very beautiful")
    expect(tab.page.get_by_text("The video may come out better if")).to_be_visible()
    tab.page.get_by_label("What should happen").fill("a mug turns slowly to the left, soft light")
    expect(tab.page.get_by_text("The video may come out better if")).to_have_count(0)
    tab.click("Make the video")
    expect(tab.jobs("queued")).to_have_count(1)
    with httpx2.Client(base_url=site.url, trust_env=False) as http:
        listed = http.get("/v1/videos", headers={"Authorization": f"Bearer {secret}"})
    (video,) = listed.json()["data"]
    assert video["prompt"] == "a mug turns slowly to the left, soft light"
    assert video["metadata"]["page_name"] == "mug.jpg"
    tab.click("Cancel")
    expect(tab.jobs("cancelled")).to_have_count(1)
    tab.close()


def test_the_page_is_no_way_around_the_api(site: PageSite) -> None:
    with httpx2.Client(base_url=site.url, trust_env=False) as http:
        assert http.get("/ui/media/video_0a").status_code == 401
        assert http.get("/ui/media/..%2F..%2Fv1%2Fmodels").status_code == 404
        strange = {"Origin": "https://elsewhere.example"}
        assert http.post("/ui/key", data={"key": "k"}, headers=strange).status_code == 403
        answer = http.post("/ui/key", data={"key": "", "back": "https://elsewhere.example/x"})
        assert answer.headers["location"] == "/ui/"
        answer = http.get("/ui/", headers={"Accept-Language": "zh-CN"})
        assert answer.headers["location"] == "/ui/zh/"


def test_the_document_says_its_language_and_names_no_other_host(site: PageSite) -> None:
    with httpx2.Client(base_url=site.url, trust_env=False) as http:
        answer = http.get("/ui/zh/")
    assert answer.headers["content-encoding"] == "gzip"
    beginning = answer.text.partition("<gradio-app")[0]
    assert '<html lang="zh-CN"' in beginning
    assert "上传商品照片" in beginning  # to be read before any script has run
    assert "og:" not in beginning
    assert "raw.githubusercontent" not in answer.text
