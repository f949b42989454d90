"""A real Chromium, and what every test of the page holds it to: no request leaves the server."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

SHOTS = Path(__file__).parents[2] / "shots"
"""Screenshots, kept to be looked at; git ignores them."""

WAIT_MS = 60_000
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
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.goto(f"{url}{path}")

    @property
    def outside(self) -> set[str]:
        """Hosts other than the server; data: and blob: URLs have none."""
        return self.hosts - {urlsplit(self.url).netloc, ""}

    def add(self, *photos: Path) -> None:
        self.page.locator("#photos input[type=file]").set_input_files(photos)
        expect(self.page.locator("#photos .file-preview td.filename")).to_have_count(len(photos))

    def fill(self, label: str, value: object) -> None:
        field = self.page.get_by_label(label, exact=False).first
        field.fill(str(value))
        field.blur()

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
