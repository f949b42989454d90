"""The web page for everybody: by keyboard, on a phone, in both languages, in light and dark."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from cluster.embedded_s3 import EmbeddedS3
from serve.web.words import Language, words_of
from tests.integration.browser import Tab, chromium
from tests.integration.page_site import PageSite, page_site
from tests.integration.service import jpeg

pytestmark = pytest.mark.timeout(400)

_RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
_PHONE_PX, _DESKTOP_PX = 390, 1280
_VIEWS = {  # and what each shows once it is there
    "create": "input[type=radio]:checked",
    "gallery": "#shelf figure",
    "catalogue": "#runs h2",
    "cluster": "#service h2",
}


@pytest.fixture(scope="module")
def site(s3_server: EmbeddedS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageSite]:
    with page_site(s3_server, tmp_path_factory.mktemp("access")) as site:
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def enter(tab: Tab, secret: str) -> None:
    tab.page.locator("#api-key").fill(secret)
    tab.page.locator("#api-key").press("Enter")
    expect(tab.page.locator(_VIEWS["create"])).not_to_have_count(0)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_view_passes_an_automated_check_on_desktop_and_phone_in_light_and_dark(
    browser: Browser, site: PageSite, language: Language
) -> None:
    tab, words = Tab(browser, site.url, f"/ui/{language}/"), words_of(language)
    expect(tab.page.locator("#api-key")).to_be_visible()
    check(tab, f"key-{language}")
    secret = site.secret(f"seen-{language}")
    site.service.create(jpeg(), headers={"Authorization": f"Bearer {secret}"})
    enter(tab, secret)
    assert tab.page.evaluate("document.documentElement.lang") == words("page.language")
    tab.page.get_by_role("button", name=words("create.advanced")).click()
    for view, shown in _VIEWS.items():
        label = words("gallery.create_tab" if view == "create" else f"{view}.tab")
        tab.page.get_by_role("tab", name=label).click()
        expect(tab.page.locator(shown).first).to_be_visible()
        check(tab, f"{view}-{language}")
    assert tab.outside == set()
    tab.close()


def check(tab: Tab, name: str) -> None:
    """At both widths and in both colour schemes, in the colours that stay."""
    tab.page.add_style_tag(content="* { transition: none !important; animation: none !important }")
    for width in (_DESKTOP_PX, _PHONE_PX):
        tab.page.set_viewport_size({"width": width, "height": 1000})
        for scheme, body in (("light", "body:not(.dark)"), ("dark", "body.dark")):
            tab.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            expect(tab.page.locator(body)).to_have_count(1)
            state = f"{name}-{width}-{scheme}"
            tab.shoot(state)
            found = Axe().run(tab.page, options=_RULES)
            assert found.violations_count == 0, f"{state}: {found.generate_report()}"
        wide = tab.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name}: {wide} px, so it scrolls sideways at {width} px"
    tab.page.set_viewport_size({"width": _DESKTOP_PX, "height": 1000})
    tab.page.emulate_media(color_scheme="light")


def test_a_video_is_begun_by_keyboard_alone(
    browser: Browser, site: PageSite, tmp_path: Path
) -> None:
    photo = tmp_path / "mug.jpg"
    photo.write_bytes(jpeg())
    tab, secret = Tab(browser, site.url), site.secret("by-keyboard")
    enter(tab, secret)
    keys = tab.page.keyboard
    tab.page.on("filechooser", lambda _: None)  # from now on, or the first one may be missed
    expect(tab.page.get_by_label("Standard", exact=True)).to_be_checked()
    reach(tab, "start")
    keys.press("Enter")
    expect(tab.page.get_by_role("alert").first).to_contain_text("Add a photo first.")

    reach(tab, "Product title", back=True)
    keys.type("Blue mug")
    expect(tab.page.get_by_label("What should happen")).to_have_value(re.compile("mug"))
    reach(tab, "photos", back=True)
    with tab.page.expect_file_chooser() as asked:
        keys.press("Enter")
    asked.value.set_files(photo)
    expect(tab.page.get_by_alt_text("mug.jpg, as the model will see it")).to_be_visible()
    expect(tab.page.get_by_role("alert")).to_have_count(0)
    reach(tab, "standard")
    keys.press("ArrowLeft")
    expect(tab.page.get_by_label("Preview", exact=True)).to_be_checked()
    reach(tab, "start")
    expect(tab.page.get_by_role("listbox")).to_have_count(0)  # each closed behind us
    tab.shoot("create-by-keyboard")
    keys.press("Enter")
    expect(tab.jobs("queued")).to_have_count(1)
    key = {"Authorization": f"Bearer {secret}"}
    (video,) = site.service.http.get("/v1/videos", headers=key).json()["data"]
    assert (video["preset"], video["metadata"]["page_name"]) == ("preview", "mug.jpg")
    assert "mug" in video["prompt"]

    reach(tab, "cancel")
    keys.press("Enter")
    expect(tab.jobs("cancelled")).to_have_count(1)
    reach(tab, "My videos", back=True)
    keys.press("Enter")
    expect(tab.page.locator("#shelf")).to_contain_text("mug.jpg")
    tab.close()


def reach(tab: Tab, name: str, back: bool = False) -> None:
    """Go by Tab to what is called so."""
    passed: list[str] = []
    for _ in range(80):
        tab.page.keyboard.press("Shift+Tab" if back else "Tab")
        passed.append(tab.page.evaluate(_NAME))
        if passed[-1] == name:
            return
    raise AssertionError(f"no way to {name} by keyboard, only to {passed}")


_NAME = """() => {
  const at = document.activeElement;
  if (at.closest('#photos')) return 'photos';
  const label = at.closest('label')?.querySelector('span');
  return at.id || at.dataset.act || (at.type === 'radio' && at.value)
    || label?.textContent.trim() || at.ariaLabel || at.textContent.trim() || at.tagName;
}"""


def test_the_other_language_keeps_the_video_and_speaks_throughout(
    browser: Browser, site: PageSite
) -> None:
    secret = site.secret("in-chinese")
    key = {"Authorization": f"Bearer {secret}"}
    video_id = site.service.create(jpeg(), headers=key).json()["id"]
    tab = Tab(browser, site.url, f"/ui/en/?video={video_id}", width=_PHONE_PX)
    enter(tab, secret)
    expect(tab.page.get_by_text("Drop File Here")).to_be_visible()
    tab.page.get_by_role("link", name="中文").click()
    expect(tab.page.get_by_role("button", name="制作视频")).to_be_visible()
    expect(tab.jobs()).to_have_attribute("data-video", video_id)
    expect(tab.page.get_by_text("Drop File Here")).to_have_count(0)  # Gradio's own words
    tab.page.get_by_label("商品标题").fill("机械表")
    expect(tab.page.get_by_label("画面描述")).to_have_value(re.compile("watch"))
    tab.close()
