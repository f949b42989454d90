"""A real Chromium, and what every test of the page holds it to: no request leaves the server."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

SHOTS = Path(__file__).parents[2] / "shots"
"""Screenshots, kept to be looked at; git ignores them."""

WAIT_MS = 90_000
"""On two busy cores; nothing that works waits for it."""


@contextmanager
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found is not None, "no chromium on PATH: `make browser` installs it"
    expect.set_options(timeout=WAIT_MS)
    # Chromium's own sandbox refuses to run as root, as in a container.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


class Tab:
    """A page of the site, and every host that it has asked for anything."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        path: str = "/ui/en/",
        width: int = 1280,
        dark: bool = False,
    ):
        self.url, self.hosts = url, set[str]()
        self.context = browser.new_context(
            viewport={"width": width, "height": 1000},
            locale="en-GB",
            accept_downloads=True,
            color_scheme="dark" if dark else "light",
        )
        self.context.set_default_timeout(WAIT_MS)
        self.page: Page = self.context.new_page()
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.goto(f"{url}{path}")

    @property
    def outside(self) -> set[str]:
        """Hosts other than the server; data: and blob: URLs have none."""
        return self.hosts - {urlsplit(self.url).netloc, ""}

    def add(self, *photos: Path) -> None:
        self.page.locator("#photos input[type=file]").set_input_files(photos)
        expect(self.page.locator("#photos .file-preview td.filename")).to_have_count(len(photos))

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def jobs(self, status: str | None = None) -> Locator:
        wanted = "" if status is None else f'[data-status="{status}"]'
        return self.page.locator(f"article.job{wanted}")

    def shoot(self, name: str) -> None:
        SHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)

    def close(self) -> None:
        self.context.close()


def make(tab: Tab, *photos: Path, steps: int = 10, **more: Any) -> None:
    """Fill in the form and start. `more`: fields of `More settings` by their names."""
    tab.add(*photos)
    tab.page.get_by_label("Product title").fill("Steel watch")
    expect(tab.page.get_by_label("What should happen")).to_have_value(re.compile("watch"))
    tab.page.get_by_role("button", name="More settings").click()
    for name, value in {"Steps": steps, "Frames": 8, **more}.items():
        form = tab.page.locator("#form")
        is_text = isinstance(value, str)
        field = form.get_by_role("textbox" if is_text else "spinbutton", name=name, exact=True)
        field.fill(str(value))
        field.blur()
    tab.click("Make the video")
    expect(tab.jobs()).not_to_have_count(0)


def choose(tab: Tab, label: str, option: str) -> None:
    """Of a drop-down list of the view that is shown."""
    tab.page.get_by_label(label, exact=True).locator("visible=true").click()
    tab.page.get_by_role("option", name=option, exact=True).click()


def the_video(tab: Tab) -> dict[str, Any]:
    """What the first <video> is playing, once it plays by itself."""
    tab.page.wait_for_function(
        "() => { const v = document.querySelector('article.job[data-status=completed] video');"
        " return v && v.readyState >= 2 && v.currentTime > 0 && v.duration > 0 }"
    )
    read: dict[str, Any] = (
        tab.jobs("completed")
        .locator("video")
        .first.evaluate(
            "v => ({seconds: v.duration, width: v.videoWidth, height: v.videoHeight,"
            " paused: v.paused, error: v.error})"
        )
    )
    return read


def watch_progress(tab: Tab) -> None:
    """From now on the page keeps all that its progress bars say, for `seen_progress`."""
    tab.page.evaluate(
        """() => {
          window.seen = [];
          const look = () => document.querySelectorAll('article.job progress').forEach((bar) => {
            const said = bar.closest('article').querySelector('header span').textContent;
            window.seen.push([bar.value, said]);
          });
          const all = {childList: true, subtree: true, attributes: true, characterData: true};
          new MutationObserver(look).observe(document.getElementById('progress'), all);
        }"""
    )


def seen_progress(tab: Tab) -> tuple[list[float], list[str]]:
    """The values of the bar and the words beside it, in the order in which they were shown."""
    seen = tab.page.evaluate("window.seen")
    return [value for value, _ in seen], [said for _, said in seen]
